"""A person wants raw packages at a processing location, and lets them go again."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.queries.retention import copies_over
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.staging import cancel_unwanted
from tests.transfer.reductions import Reductions
from tests.transfer.support import START, Observatory, eventually, say

RAMSES = "cologne/ramses"
FILES = {"night/a.fits": b"a" * 300_000}
LONG_AGO = START - timedelta(days=365)


@pytest.fixture
def package_id(observatory: Observatory) -> int:
    """An archived package."""
    package_id = observatory.observe(FILES)
    observatory.do_all()
    return package_id


@pytest.fixture
def reductions(observatory: Observatory) -> Reductions:
    return Reductions(observatory)


def stage(observatory: Observatory, *packages: int) -> Any:
    return json.loads(say(observatory, "package", "stage", *map(str, packages), "--at", RAMSES, "--json"))


def unstage(observatory: Observatory, *packages: int, code: int = 0) -> Any:
    words = ("package", "unstage", *map(str, packages), "--at", RAMSES, "--json")
    return json.loads(say(observatory, *words, code=code))


def staging(observatory: Observatory) -> list[dict[str, Any]]:
    """What `ccat transfer status` says of it."""
    found: list[dict[str, Any]] = json.loads(say(observatory, "transfer", "status", "--json"))["staged"]
    return found


def do(observatory: Observatory, work: Callable[[Session], Any]) -> Any:
    with transaction(observatory.engine) as session:
        return work(session)


def set_used(observatory: Observatory, package_id: int, **when: Any) -> None:
    copy = models.PhysicalCopy
    where = {"raw_data_package_id": package_id, "data_location_id": observatory.location_id(RAMSES)}
    do(observatory, lambda session: session.execute(sa.update(copy).filter_by(**where).values(**when)))


def statuses(observatory: Observatory) -> list[Status]:
    job = models.StagingJob
    return list(do(observatory, lambda session: session.scalars(sa.select(job.status).order_by(job.id)).all()))


def test_a_package_that_is_wanted_is_unpacked_there_shown_until_it_is_and_kept_from_when_it_was_asked_for_last(
    observatory: Observatory, package_id: int
) -> None:
    told = {"location": RAMSES, "asked": [], "on_their_way": [], "staged": []}
    assert stage(observatory, package_id) == {**told, "asked": [package_id]}
    assert stage(observatory, package_id, package_id) == {**told, "on_their_way": [package_id]}
    [shown] = staging(observatory)
    assert (shown["destination"], shown["by_hand"], shown["status"], shown["packages"]) == (RAMSES, True, "pending", 1)
    assert "1 raw package to stage" in say(observatory, "transfer", "status")
    assert do(observatory, lambda session: cancel_unwanted(session, by="manager")) == 0
    observatory.do_all()
    assert staging(observatory) == []
    copy = observatory.copies(package_id)[RAMSES]
    assert (observatory.directory(RAMSES) / copy.path / "night/a.fits").read_bytes() == FILES["night/a.fits"]
    set_used(observatory, package_id, used_at=LONG_AGO, verified_at=LONG_AGO)
    assert stage(observatory, package_id) == {**told, "staged": [package_id]}
    assert observatory.make_room(RAMSES) == 0
    assert observatory.copies(package_id)[RAMSES].id == copy.id


def test_what_was_to_go_is_kept_where_a_person_wants_it(observatory: Observatory, package_id: int) -> None:
    stage(observatory, package_id)
    observatory.do_all()
    set_used(observatory, package_id, used_at=LONG_AGO, verified_at=LONG_AGO)
    assert observatory.mark(RAMSES) == 1
    assert stage(observatory, package_id)["staged"] == [package_id]
    assert observatory.copies(package_id)[RAMSES].status is PhysicalCopyStatus.STAGED
    assert observatory.make_room(RAMSES) == 0


def test_what_is_asked_for_while_it_is_looked_what_may_go_is_not_marked_on_the_strength_of_that(
    observatory: Observatory, package_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(observatory, package_id)
    observatory.do_all()
    set_used(observatory, package_id, used_at=LONG_AGO, verified_at=LONG_AGO)

    def asked_for_just_then(*given: Any, **options: Any) -> Any:
        over = copies_over(*given, **options)
        assert over
        assert stage(observatory, package_id)["staged"] == [package_id]
        return over

    monkeypatch.setattr("ccat_data_transfer.verbs.retaining.copies_over", asked_for_just_then)
    assert observatory.mark(RAMSES) == 0


def test_staging_that_a_person_wants_too_outlives_the_runs_and_what_runs_want_outlives_the_person(
    observatory: Observatory, package_id: int, reductions: Reductions
) -> None:
    run_id = reductions.take([package_id])
    assert stage(observatory, package_id)["on_their_way"] == [package_id]
    assert unstage(observatory, package_id, code=1)["kept"] == {str(package_id): "an active run takes it"}
    stage(observatory, package_id)
    reductions.cancel(run_id)
    assert do(observatory, lambda session: cancel_unwanted(session, by="manager")) == 0
    assert unstage(observatory, package_id)["cancelled"] == [package_id]
    assert statuses(observatory) == [Status.CANCELLED]


def test_what_a_person_let_go_is_staged_for_runs_only_as_long_as_they_want_it(
    observatory: Observatory, package_id: int, reductions: Reductions
) -> None:
    stage(observatory, package_id)
    run_id = reductions.take([package_id])
    unstage(observatory, package_id, code=1)
    reductions.cancel(run_id)
    assert do(observatory, lambda session: cancel_unwanted(session, by="manager")) == 1


def test_a_staged_package_goes_at_once_unless_a_run_uses_it_or_deleting_is_paused(
    observatory: Observatory, package_id: int, reductions: Reductions
) -> None:
    other = observatory.observe({"b.fits": b"b"})
    observatory.do_all()
    assert stage(observatory, package_id, other)["asked"] == [package_id, other]
    observatory.do_all()
    run_id = reductions.take([package_id])
    name = observatory.package(package_id).name
    told = say(observatory, "package", "unstage", name, str(other), "--at", RAMSES)
    assert told.splitlines() == [
        f"{RAMSES}: 1 package is removed; 1 package stays",
        f"package {name} stays: an active run takes it",
    ]
    observatory.make_room(RAMSES)
    assert RAMSES not in observatory.copies(other)
    assert unstage(observatory, other)["absent"] == [other]
    reductions.cancel(run_id)
    say(observatory, "retention", "pause", RAMSES, "--because", "the disk is copied")
    kept = unstage(observatory, package_id, code=1)["kept"]
    assert kept == {str(package_id): "deleting is paused there: the disk is copied"}
    say(observatory, "retention", "resume", RAMSES)
    assert unstage(observatory, package_id)["going"] == [package_id]
    observatory.make_room(RAMSES)
    assert list(observatory.directory(RAMSES).glob("raw/*")) == []
    observatory.check_that_rows_tell_what_is_there()


def test_who_lets_go_while_a_run_begins_waits_and_is_told_that_it_uses_it(
    observatory: Observatory, package_id: int, reductions: Reductions
) -> None:
    stage(observatory, package_id)
    observatory.do_all()
    with ThreadPoolExecutor(1) as other, transaction(observatory.engine) as session:
        run_id = reductions.begin(session, [package_id])
        asked = other.submit(unstage, observatory, package_id, code=1)
        eventually(lambda: is_waited_for(observatory))
        session.commit()
        assert asked.result(30)["kept"] == {str(package_id): "an active run takes it"}
    reductions.cancel(run_id)
    assert unstage(observatory, package_id)["going"] == [package_id]


def test_staging_that_failed_is_shown_until_it_is_asked_for_anew(observatory: Observatory, package_id: int) -> None:
    observatory.lose_all_but_archives(package_id)
    tar = observatory.directory("cologne/lta") / observatory.copies(package_id)["cologne/lta"].path
    kept = tar.read_bytes()
    tar.unlink()
    stage(observatory, package_id)
    observatory.do_all()
    [shown] = staging(observatory)
    assert (shown["status"], shown["by_hand"]) == ("failed", True)
    assert "is missing" in shown["failure"]
    tar.write_bytes(kept)
    say(observatory, "package", "retry", str(package_id))
    assert stage(observatory, package_id)["asked"] == [package_id]
    assert [one["status"] for one in staging(observatory)] == ["pending"]


def test_only_archived_packages_are_staged_and_only_where_runs_are(observatory: Observatory, package_id: int) -> None:
    new = observatory.observe({"new.fits": b"new"})
    words = ("package", "stage", str(package_id), str(new), "--at")
    refused = say(observatory, *words, RAMSES, code=1)
    name = observatory.package(new).name
    assert f"1 package is not archived, and what is staged comes from an archive: {name} is waiting" in refused
    assert observatory.package(new).state is PackageState.WAITING
    assert statuses(observatory) == []
    assert "There is no processing location `cologne/lta`" in say(observatory, *words, "cologne/lta", code=1)
    assert "There is no raw package `nothing`" in say(
        observatory, "package", "unstage", "nothing", "--at", RAMSES, code=1
    )


def is_waited_for(observatory: Observatory) -> bool:
    return bool(
        do(observatory, lambda session: session.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")))
    )
