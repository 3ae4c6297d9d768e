"""A source, a buffer or an archive that a worker cannot use is told of, though nothing is to be done there."""

import errno
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat.wiring import roots_of
from ccat_ops_db import models
from ccat_ops_db.plan.marks import MARK
from ccat_ops_db.plan.retention import AWAY_AFTER
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.queries.away import is_away
from ccat_ops_db.session import transaction
from ccat_ops_db.states import AlertKind, LocationType
from ccat_service import spaces
from ccat_service.spaces import measure_space
from tests.needs import do_without
from tests.transfer.support import START, Observatory, say

SOURCE, BUFFER, ARCHIVE = "ccat/chai_raw_data", "ccat/buffer", "cologne/lta"
ON = f" on {platform.node()}: "


def look(observatory: Observatory) -> None:
    """Have a worker look at all disks, as each does again and again."""
    with transaction(observatory.engine) as session:
        roots = roots_of(session.scalars(sa.select(models.DataLocation)).all())
    for number, root in roots.items():
        with suppress(OSError):  # which is logged
            measure_space(observatory.engine, number, root)


def let_a_minute_pass(observatory: Observatory, *, ago: timedelta = timedelta(minutes=5)) -> datetime:
    then = datetime.now(UTC) - ago
    location = models.DataLocation
    with transaction(observatory.engine) as session:
        session.execute(sa.update(location).where(location.space_checked_at.is_not(None)).values(space_checked_at=then))
    return then


def told(observatory: Observatory) -> list[str]:
    with transaction(observatory.engine) as session:
        found = [one for one in conditions(session, late=START) if one.kind is AlertKind.UNUSABLE_LOCATION]
    return [one.sentence for one in found]


def state(observatory: Observatory, name: str) -> tuple[str, str | None]:
    [found] = [one for one in json.loads(say(observatory, "locations", "--json")) if one["name"] == name]
    return found["state"], found["trouble"]


@contextmanager
def away(path: Path) -> Iterator[None]:
    path.rename(path.with_name("away"))
    yield
    path.with_name("away").rename(path)


@contextmanager
def not_mounted(path: Path) -> Iterator[None]:
    with away(path):
        path.mkdir()
        yield
        path.rmdir()


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    place = str(path)
    for command in (["mount", "--bind", place, place], ["mount", "-o", "remount,ro,bind", place]):
        if subprocess.run(command, check=False, capture_output=True).returncode:
            subprocess.run(["umount", place], check=False, capture_output=True)
            do_without("this container may not mount: start it with CAP_SYS_ADMIN (`--cap-add SYS_ADMIN`)")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@contextmanager
def anothers(path: Path) -> Iterator[None]:
    mark = path / MARK
    was = mark.read_bytes()
    mark.chmod(0o644)
    mark.write_bytes((path.parents[1] / BUFFER / MARK).read_bytes())
    yield
    mark.write_bytes(was)


@pytest.mark.parametrize(
    ("name", "trouble", "said"),
    [
        (SOURCE, away, f"is missing{ON}No such file or directory: "),
        (BUFFER, away, f"is missing{ON}No such file or directory: "),
        (ARCHIVE, away, f"is missing{ON}No such file or directory: "),
        (ARCHIVE, not_mounted, f"is missing{ON}it is empty, as a directory where nothing is mounted: "),
        (BUFFER, read_only, f"cannot be written{ON}Read-only file system: "),
        (ARCHIVE, anothers, f"has another directory{ON}it is the directory of ccat/buffer, as its file "),
    ],
    ids=["source away", "buffer away", "archive away", "not mounted", "read-only", "another's"],
)
def test_a_place_that_cannot_be_used_is_told_of_until_it_can(
    observatory: Observatory, name: str, trouble: Callable[[Path], AbstractContextManager[None]], said: str
) -> None:
    observatory.observe({"a.fits": b"a"})
    observatory.do_all()
    look(observatory)
    assert (told(observatory), state(observatory, name)) == ([], ("ok", None))
    then = let_a_minute_pass(observatory)
    with trouble(observatory.directory(name)):
        look(observatory)
        [sentence] = told(observatory)
        assert sentence.startswith(f"location {name} {said}")
        since = f": nothing is read or written there until then (since {then:%F %H:%M} UTC)"
        assert sentence.endswith(": nothing is written there until then" if trouble is read_only else since)
        found, because = state(observatory, name)
        assert (found, sentence.partition(": nothing is ")[0]) == ("unusable", f"location {name} {because}")
        assert "unusable: `ccat locations` says why" in " ".join(say(observatory, "transfer", "status").split())
    look(observatory)
    assert (told(observatory), state(observatory, name)) == ([], ("ok", None))


def test_a_new_place_that_is_not_there_is_told_of_at_once(observatory: Observatory) -> None:
    say(observatory, "location", "add", "ccat/nl", "--type", "source", "--path", "/nonexistent")
    look(observatory)
    [sentence] = told(observatory)
    assert "location ccat/nl is missing" in sentence
    assert "/nonexistent; mount or make it" in sentence


def test_what_one_worker_sees_holds_for_a_moment_against_what_another_does_not(observatory: Observatory) -> None:
    look(observatory)
    with away(observatory.directory(SOURCE)):
        look(observatory)
        assert (told(observatory), state(observatory, SOURCE)) == ([], ("ok", None))


def test_that_an_archive_is_told_of_keeps_it_from_being_relied_on_as_before(observatory: Observatory) -> None:
    """When it was seen well last stays: what is deleted elsewhere hangs on that."""
    observatory.observe({"a.fits": b"a"})
    observatory.do_all()
    look(observatory)
    then = let_a_minute_pass(observatory)
    with away(observatory.directory(ARCHIVE)):
        look(observatory)
        seen = observatory.one(models.DataLocation, id=observatory.location_id(ARCHIVE)).space_checked_at
    assert seen == then


@pytest.mark.parametrize(("number", "free"), [(errno.EROFS, "some"), (errno.EACCES, "some"), (errno.EDQUOT, "none")])
def test_an_archive_that_cannot_be_written_is_read_and_relied_on_all_the_same(
    observatory: Observatory, monkeypatch: pytest.MonkeyPatch, number: int, free: str
) -> None:
    observatory.observe({"a.fits": b"a"})
    observatory.do_all()
    look(observatory)
    let_a_minute_pass(observatory, ago=AWAY_AFTER + timedelta(minutes=1))

    def refused(directory: Path) -> None:  # as the system refuses it, which no test can have it do for a quota
        raise OSError(number, os.strerror(number), str(directory))

    monkeypatch.setattr(spaces, "_write_in", refused)
    look(observatory)
    archive = observatory.one(models.DataLocation, id=observatory.location_id(ARCHIVE))
    with transaction(observatory.engine) as session:
        assert session.scalars(sa.select(models.DataLocation.id).where(is_away())).all() == []
    assert archive.trouble is not None
    assert archive.total_bytes
    assert archive.free_bytes == 0 if free == "none" else archive.free_bytes
    assert state(observatory, ARCHIVE)[0] == "unusable"


def test_a_new_place_that_is_empty_is_no_trouble_and_stays_empty(observatory: Observatory) -> None:
    observatory.add_location("us/lta", LocationType.LONG_TERM_ARCHIVE)
    look(observatory)
    assert (told(observatory), state(observatory, "us/lta")) == ([], ("ok", None))
    assert list(observatory.directory("us/lta").iterdir()) == []


def test_what_is_out_of_use_and_has_nothing_may_be_away(observatory: Observatory) -> None:
    observatory.add_location("us/lta", LocationType.LONG_TERM_ARCHIVE)
    say(observatory, "location", "set", "us/lta", "--inactive")
    observatory.directory("us/lta").rmdir()
    look(observatory)
    assert told(observatory) == []
    observatory.directory("us/lta").mkdir()
