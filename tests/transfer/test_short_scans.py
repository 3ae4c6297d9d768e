"""A scan of which fewer raw files came than its instrument told: it is packed without them, and people are told."""

import json
import uuid
from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.scans import Contradiction
from tests.transfer.support import START, Observatory, say

CAME = {f"f{number}.dat": bytes([number]) for number in range(4)}
REST = {f"g{number}.dat": bytes([number, number]) for number in range(5)}


@pytest.fixture
def short(observatory: Observatory) -> uuid.UUID:
    """A scan that told nine files, and of which four came and were packed."""
    scan_id = observatory.start_scan()
    observatory.write(scan_id, CAME)
    observatory.finish_scan(scan_id, expected_files=9)
    assert observatory.plan(scan_id)
    observatory.do_all()
    return scan_id


def alerts(observatory: Observatory) -> Sequence[str]:
    with transaction(observatory.engine) as session:
        return [one.sentence for one in conditions(session, late=START) if one.key == "scans that lack files"]


def in_the_way(observatory: Observatory) -> list[str]:
    found = json.loads(say(observatory, "night", "--json"))["hindrances"]
    return [one["sentence"] for one in found if one["where"] == "scans"]


def correct(observatory: Observatory, scan_id: uuid.UUID, files: int, *words: str, code: int = 0) -> str:
    because = words or ("--because", "9 was a slip")
    return say(observatory, "scan", "correct", str(scan_id), "--files", str(files), *because, code=code)


def test_the_night_and_an_alert_say_of_a_scan_how_many_files_were_told_and_how_many_came(
    observatory: Observatory, short: uuid.UUID
) -> None:
    told = f"scan {short} told 9 files, 4 came; register the others"
    [alert] = alerts(observatory)
    assert alert.startswith(f"1 scan lacks raw files, and is packed without them: {told}")
    [hindrance] = in_the_way(observatory)
    assert hindrance.startswith(told)
    assert "`ccat scan correct SCAN --files NUMBER`" in hindrance

    observatory.write(short, REST)
    assert (alerts(observatory), in_the_way(observatory)) == ([], [])


def test_what_may_still_come_is_not_told_of(observatory: Observatory) -> None:
    scan_id = observatory.start_scan()
    observatory.write(scan_id, CAME)
    assert alerts(observatory) == []
    observatory.finish_scan(scan_id, expected_files=9)
    assert alerts(observatory) == []  # what came is not packed yet
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.ExecutedObsUnit).values(ended_at=sa.func.now()))
    assert observatory.plan(scan_id)
    assert alerts(observatory) == []


def test_a_wrong_number_is_corrected_by_a_person_who_says_why(observatory: Observatory, short: uuid.UUID) -> None:
    with pytest.raises(Contradiction, match=r"files 9, now told 4\. If the first was wrong, `ccat scan correct"):
        observatory.finish_scan(short, expected_files=4)
    assert "`--because` is empty" in correct(observatory, short, 4, "--because", " ", code=1)
    assert "cannot have 3 raw files: 4 are registered" in correct(observatory, short, 3, code=1)
    assert correct(observatory, short, 4) == f"4 raw files belong to scan {short}\n"
    assert correct(observatory, short, 4) == f"4 raw files belong to scan {short} already\n"
    assert (alerts(observatory), in_the_way(observatory)) == ([], [])
    assert json.loads(say(observatory, "night", "--json"))["unarchived"] == 0
    entry = observatory.one(models.AuditEntry, resource="executed_obs_unit")
    assert (entry.action, entry.resource_id) == ("correct", str(short))
    assert (entry.detail["before"], entry.detail["after"], entry.detail["because"]) == (9, 4, "9 was a slip")
    assert entry.detail["by"]


def test_a_number_that_is_corrected_upwards_makes_a_scan_lack_files(observatory: Observatory) -> None:
    scan_id = observatory.start_scan()
    observatory.write(scan_id, CAME)
    observatory.finish_scan(scan_id, expected_files=4)
    observatory.plan(scan_id)
    assert alerts(observatory) == []
    correct(observatory, scan_id, 9)
    [alert] = alerts(observatory)
    assert "told 9 files, 4 came" in alert
