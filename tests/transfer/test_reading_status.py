"""It is seen whether archives are read again as often as they should be, and told where they are not."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ccat_data_transfer.verbs.scrubbing import scrub
from ccat_ops_db import models
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PhysicalCopyStatus
from ccat_ops_db.verbs.restoring import trust_no_archive
from tests.transfer.support import Observatory, say

ARCHIVE = "cologne/lta"


def archive(observatory: Observatory, name: str = ARCHIVE) -> Mapping[str, Any]:
    told = json.loads(say(observatory, "transfer", "status", "--json"))["archives"]
    [found] = [one for one in told if one["archive"] == name]
    return dict(found)


def told(observatory: Observatory) -> list[str]:
    late = datetime.now(UTC) - timedelta(days=1)
    with transaction(observatory.engine) as session:
        return [one.sentence for one in conditions(session, late=late) if one.key.startswith("reading again")]


def read(observatory: Observatory, package_id: int, *, days_ago: float | None) -> int:
    """The archive copy of a package was read so long ago, or never; its size."""
    copy = observatory.copies(package_id)[ARCHIVE]
    at = None if days_ago is None else datetime.now(UTC) - timedelta(days=days_ago)
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.PhysicalCopy).filter_by(id=copy.id).values(verified_at=at))
    return copy.size_bytes or 0


def test_how_much_of_an_archive_was_not_read_for_too_long_is_shown_and_told(far: Observatory) -> None:
    first, second, third = (far.observe({f"{number}.fits": bytes(1000)}) for number in range(3))
    assert archive(far) == {
        "archive": ARCHIVE,
        "every_days": 180,
        "oldest": None,
        "overdue_copies": 0,
        "overdue_bytes": 0,
    }
    far.do_all()
    assert (archive(far)["overdue_copies"], told(far)) == (0, [])
    read(far, first, days_ago=179)
    assert (archive(far)["overdue_copies"], told(far)) == (0, [])
    overdue = read(far, first, days_ago=190)
    assert (archive(far)["overdue_copies"], archive(far)["overdue_bytes"], told(far)) == (1, overdue, [])
    overdue += read(far, second, days_ago=199)
    overdue += read(far, third, days_ago=None)
    assert (archive(far)["overdue_copies"], archive(far)["overdue_bytes"]) == (3, overdue)
    [sentence] = told(far)
    assert sentence.startswith(
        "what lies at cologne/lta is not read again every 180 days: some of it was read last at "
    )
    assert "1 archive to read again" in say(far, "transfer", "status")
    assert "3 copies" in say(far, "transfer", "status")


def test_an_archive_is_judged_by_the_days_that_it_says_and_not_while_it_is_paused(far: Observatory) -> None:
    package_id = far.observe({"a.fits": bytes(1000)})
    far.do_all()
    read(far, package_id, days_ago=20)
    say(far, "location", "set", ARCHIVE, "--scrub-days", "10")
    assert (archive(far)["every_days"], len(told(far))) == (10, 1)
    say(far, "pause", "--location", ARCHIVE, "--because", "a new tape robot")
    assert told(far) == []
    say(far, "resume", "--location", ARCHIVE)
    say(far, "location", "set", ARCHIVE, "--scrub-days", "0")
    assert told(far) == []
    assert json.loads(say(far, "transfer", "status", "--json"))["archives"] == []


def test_what_is_not_there_any_more_is_not_overdue(far: Observatory) -> None:
    package_id = far.observe({"a.fits": bytes(1000)})
    far.do_all()
    read(far, package_id, days_ago=400)
    with transaction(far.engine) as session:
        lost = sa.update(models.PhysicalCopy).filter_by(id=far.copies(package_id)[ARCHIVE].id)
        session.execute(lost.values(status=PhysicalCopyStatus.CORRUPT))
    assert (archive(far)["overdue_copies"], archive(far)["oldest"], told(far)) == (0, None, [])


def never_read(observatory: Observatory, *package_ids: int) -> None:
    """Their archive copies were made long ago, and never read since."""
    with transaction(observatory.engine) as session:
        copies = sa.update(models.PhysicalCopy)
        session.execute(copies.values(created_at=datetime.now(UTC) - timedelta(days=100)))
    for package_id in package_ids:
        read(observatory, package_id, days_ago=None)


def let_pass(observatory: Observatory, *, days: int) -> None:
    """So much time passes, in which nothing is read."""
    with transaction(observatory.engine) as session:
        read_at = models.DataLocation.read_at
        session.execute(sa.update(models.DataLocation).values(read_at=read_at - timedelta(days=days)))


def test_what_was_never_read_is_told_of_where_nothing_is_read_whatever_comes_in(far: Observatory) -> None:
    packages = [far.observe({f"{number}.fits": bytes(1000)}) for number in range(2)]
    far.do_all()
    never_read(far, *packages)
    [sentence] = told(far)
    assert sentence.startswith("what lies at cologne/lta is not read: some of it never was, and nothing is since ")
    far.observe({"of today.fits": bytes(1000)})
    far.do_all()
    assert told(far) == [sentence], "what is archived is read back, and that is no reading again"
    scrub(far.worker, [far.copies(packages[0])[ARCHIVE].id])
    assert told(far) == []
    for days, number in ((17, 0), (2, 1), (180, 1)):
        let_pass(far, days=days)
        assert len(told(far)) == number
    assert far.read_again() == 1
    assert told(far) == []


def test_after_a_restore_an_archive_has_time_to_be_read_once_it_is_not_paused_any_more(far: Observatory) -> None:
    package_id = far.observe({"a.fits": bytes(1000)})
    far.do_all()
    never_read(far)
    with transaction(far.engine) as session:
        trust_no_archive(session)
    assert far.copies(package_id)[ARCHIVE].verified_at is None
    assert told(far) == []
    say(far, "pause", "--all", "--because", "restored from a backup")
    let_pass(far, days=100)
    assert told(far) == []
    say(far, "resume", "--all")
    assert told(far) == []
    let_pass(far, days=19)
    say(far, "resume", "--all")
    assert len(told(far)) == 1


def test_what_is_to_be_read_since_today_is_not_told_of_where_all_was_read_until_then(far: Observatory) -> None:
    package_id = far.observe({"a.fits": bytes(1000)})
    far.do_all()
    assert far.read_again() == 0
    never_read(far, package_id)
    assert told(far) == []
    let_pass(far, days=19)
    assert len(told(far)) == 1
