"""What `ccat transfer status` says of raw data that do not go on: it is where an alert sends people."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ccat_data_transfer.plan import QUIET_PERIOD, UnpackedFiles, waits_for
from ccat_data_transfer.queues import Operation
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from tests.transfer.support import Observatory, say

CAME = {f"f{number}.dat": bytes([number]) for number in range(4)}
NOW = datetime(2026, 4, 1, 3, tzinfo=UTC)


def status(observatory: Observatory) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(say(observatory, "transfer", "status", "--json"))
    return found


def stage(observatory: Observatory, name: str) -> dict[str, Any]:
    [found] = [one for one in status(observatory)["stages"] if one["stage"] == name]
    return dict(found)


def test_registered_files_say_which_scan_they_wait_for_and_until_when(observatory: Observatory) -> None:
    scan_id = observatory.start_scan()
    observatory.write(scan_id, CAME)
    [going_on] = status(observatory)["awaited"]
    assert (going_on["scan"], going_on["waits_for"]) == (str(scan_id), "the end of the scan")
    observatory.finish_scan(scan_id, expected_files=9)
    [found] = status(observatory)["awaited"]
    assert (found["module"], found["files"], found["came"], found["expected"]) == ("CHAI/LFA", 4, 4, 9)
    assert found["waits_for"] == "5 more files of the scan"
    last, packed = (datetime.fromisoformat(found[key]) for key in ("last_file_at", "packed_at"))
    assert packed - last == timedelta(minutes=5)
    [line] = [one for one in say(observatory, "transfer", "status").splitlines() if one.startswith(str(scan_id))]
    assert "CHAI/LFA" in line
    assert "4 of 9" in line
    assert f"{packed:%F %T}" in line
    assert observatory.plan(scan_id)
    assert status(observatory)["awaited"] == []


def test_the_alert_about_registered_files_names_the_moment_that_the_status_names(observatory: Observatory) -> None:
    scan_id = observatory.start_scan()
    observatory.write(scan_id, CAME)
    observatory.finish_scan(scan_id, expected_files=9)
    oldest = datetime.fromisoformat(stage(observatory, "registered")["oldest"])
    with transaction(observatory.engine) as session:
        [told] = [one for one in conditions(session, late=oldest) if one.key == "raw files"]
    assert told.number == len(CAME)
    assert f"the oldest since {oldest:%F %H:%M} UTC" in told.sentence


def test_a_stage_says_what_is_in_the_way_of_most_of_it(observatory: Observatory) -> None:
    for name in ("a.fits", "b.fits"):
        observatory.observe({name: name.encode()})
    observatory.do(Operation.PACKING)
    archive = observatory.directory("cologne/lta")
    archive.rename(archive.with_name("away"))
    try:
        observatory.do(Operation.ARCHIVING)
        found = stage(observatory, "to archive")
    finally:
        archive.with_name("away").rename(archive)
    assert (found["packages"], found["troubled"]) == (2, 2)
    assert "lta) is missing: no such directory here; mount or make it" in found["in_the_way"]
    assert found["in_the_way"] in " ".join(say(observatory, "transfer", "status").split())
    observatory.do_all()
    assert stage(observatory, "to archive")["in_the_way"] is None


@pytest.mark.parametrize(
    ("ended", "expected", "minutes", "told"),
    [
        (False, 9, 1, "the end of the scan"),
        (True, None, 1, "the number of its files"),
        (True, 5, 1, "1 more file of the scan"),
        (True, 9, 1, "5 more files of the scan"),
        (True, 4, 1, "a transfer-manager, which packs them now; is one up?"),
        (False, 9, 6, "a transfer-manager, which packs them now; is one up?"),
    ],
)
def test_files_wait_for_their_scan_and_for_a_manager_after_that(
    *, ended: bool, expected: int | None, minutes: int, told: str
) -> None:
    files = UnpackedFiles(
        group=(uuid.UUID(int=1), 1),
        number=4,
        last_file_at=NOW - timedelta(minutes=minutes),
        scan_ended=ended,
        expected_files=expected,
        registered_files=4,
    )
    assert waits_for(files, now=NOW, quiet_period=QUIET_PERIOD) == told
