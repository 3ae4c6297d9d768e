"""Lives of raw data as chance has them: workers die or sleep at any step, copies rot and disks go away.

Whatever happens, something of every file is intact that nobody of us may lose; and once all is mended, it is archived.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ccat_data_transfer.errors import NothingToRetry
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.tasks import VERBS
from ccat_data_transfer.verbs.attempts import Worker
from ccat_data_transfer.verbs.outcomes import NOUNS
from ccat_data_transfer.verbs.retrying import retry_package, retry_transfer
from ccat_data_transfer.verbs.scheduling import LANES
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState, PhysicalCopyStatus, Status
from tests.transfer.support import AT_ONCE, Observatory, digest

SOURCE, ARCHIVE, STAGED = "ccat/chai_raw_data", "cologne/lta", "cologne/ramses"
TARS: Final = ("ccat/buffer", "cologne/buffer", ARCHIVE)
PLACES: Final = (SOURCE, *TARS, STAGED)
OPERATIONS: Final = tuple(lane.operation for lane in LANES)
OUTSIDE: Final = ("fsync", "mkdir", "rename", "replace", "chmod", "fchmod", "unlink", "rmdir")
"""What a worker does outside of the database; it may die before each, as before each commit."""
THERE: Final = (PhysicalCopyStatus.PRESENT, PhysicalCopyStatus.STAGED)
ROUNDS: Final = 12

whichever = st.integers(0, 1000)
fates = st.none() | st.tuples(st.sampled_from(["dies", "sleeps"]), st.integers(1, 30))
"""What becomes of a worker, and before how many-th step, if anything does."""


class Died(BaseException):
    """What a dead worker does: nothing, however many handlers there are."""


class Fate:
    """What is to become of the worker that works now."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._meanwhile: Callable[[], object] | None = None

    @contextmanager
    def of(self, step: int | None, meanwhile: Callable[[], object] | None = None) -> Iterator[None]:
        """A worker that dies before a step, or sleeps while others work."""
        self._left, self._meanwhile = step, meanwhile
        try:
            with suppress(Died):
                yield
        finally:
            self._left = self._meanwhile = None

    def meet(self, *, outside: bool = True) -> None:
        if self._left is None:
            return
        self._left -= 1
        if self._left <= 0 and self._meanwhile is None:
            raise Died
        if self._left <= 0 and self._meanwhile is not None and outside:  # a commit would hold its locks
            meanwhile, self._left, self._meanwhile = self._meanwhile, None, None
            meanwhile()


@contextmanager
def armed(engine: sa.Engine) -> Iterator[Fate]:
    """Every step leads to this fate."""
    fate = Fate()

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*args: Any, **options: Any) -> Any:
            fate.meet()
            return function(*args, **options)

        return stepping

    def before_commit(_: sa.Connection) -> None:
        fate.meet(outside=False)

    with pytest.MonkeyPatch.context() as patched:
        for name in OUTSIDE:
            patched.setattr(os, name, before(getattr(os, name)))
        sa.event.listen(engine, "commit", before_commit)
        yield fate
        sa.event.remove(engine, "commit", before_commit)


@dataclass(frozen=True)
class Place:
    """A file somewhere."""

    location: str
    path: str


class Histories(RuleBasedStateMachine):
    """Scans, and everything that may become of their files."""

    def __init__(self, observatory: Observatory, fate: Fate) -> None:
        super().__init__()
        self.world, self.fate = observatory, fate
        self.files: dict[str, bytes] = {}
        """What was registered, by path at the source."""
        self.package_of: dict[str, int] = {}
        self.letters: list[tuple[Operation, int]] = []
        self.hurt: dict[Place, datetime] = {}
        """What was damaged or removed here, and when."""
        self.away: set[str] = set()

    @initialize()
    def begin(self) -> None:
        self.world.forget()

    @rule(sizes=st.lists(st.sampled_from([0, 10, 3000]), min_size=1, max_size=2))
    def observe(self, sizes: list[int]) -> None:
        if SOURCE in self.away:
            return
        number = len(self.files)
        files = {f"night/{number}-{one}.fits": os.urandom(size) for one, size in enumerate(sizes)}
        package_id = self.world.observe(files)
        self.files |= files
        self.package_of |= dict.fromkeys(files, package_id)

    @rule(operation=st.sampled_from(OPERATIONS))
    def schedule(self, operation: Operation) -> None:
        self.letters += [(operation, number) for number in self.world.schedule(operation)]

    @rule()
    def ship(self) -> None:
        self.world.ship()

    @rule(operation=st.sampled_from(OPERATIONS), fate=fates)
    def do(self, operation: Operation, fate: tuple[str, int] | None) -> None:
        self.schedule(operation)
        while self.letters and self.letters[-1][0] is operation:
            self.work(*self.letters.pop(), fate)

    @rule(operation=st.sampled_from(OPERATIONS), fate=fates)
    def do_a_round(self, operation: Operation, fate: tuple[str, int] | None) -> None:
        """Everything goes one step on after the other, and one of these meets its fate."""
        self.world.ship()
        for each in OPERATIONS:
            self.do(each, fate if each is operation else None)
            self.world.ship()

    @precondition(lambda self: self.letters)
    @rule(which=whichever, fate=fates, keep=st.booleans())
    def deliver(self, which: int, fate: tuple[str, int] | None, *, keep: bool) -> None:
        """A message that lay somewhere comes, and perhaps once more later."""
        letter = self.letters[which % len(self.letters)]
        if not keep:
            self.letters.remove(letter)
        self.work(*letter, fate)

    @rule()
    def lose_messages(self) -> None:
        self.letters.clear()

    @rule()
    def time_passes(self) -> None:
        """Every lease runs out, whether or not somebody still works."""
        with transaction(self.world.engine) as session:
            for noun in NOUNS:
                past = sa.func.clock_timestamp() - timedelta(seconds=1)
                session.execute(sa.update(noun).where(noun.lease_until.is_not(None)).values(lease_until=past))
        self.world.recover()

    @precondition(lambda self: self.files)
    @rule(which=whichever, how=st.sampled_from(["flip", "cut", "remove"]))
    def hurt_a_file(self, which: int, how: str) -> None:
        """Damage or remove any file, but the last intact copy of what was registered."""
        found = sorted(self.on_disk(), key=lambda place: (place.location, place.path))
        if not found:
            return
        place = found[which % len(found)]
        file = self.root(place.location) / place.path
        whole = file.read_bytes()
        file.chmod(0o600)
        if how == "remove":
            file.unlink()
        else:
            file.write_bytes(whole[:-1] if how == "cut" else flipped(whole))
        if not all(self.intact(path) for path in self.files):
            file.write_bytes(whole)
        elif how == "remove" or whole:
            self.hurt[place] = self.now()

    @precondition(lambda self: any(place.location == SOURCE for place in self.hurt))
    @rule(which=whichever)
    def restore_a_raw_file(self, which: int) -> None:
        if SOURCE in self.away:
            return
        hurt = sorted(place.path for place in self.hurt if place.location == SOURCE)
        path = hurt[which % len(hurt)]
        self.restore(path)
        self.retry(self.package_of[path])

    @precondition(lambda self: self.package_of)
    @rule(which=whichever)
    def retry_a_package(self, which: int) -> None:
        packages = sorted(set(self.package_of.values()))
        self.retry(packages[which % len(packages)])

    @rule(location=st.sampled_from(PLACES))
    def lose_or_return_a_location(self, location: str) -> None:
        here, there = self.world.directory(location), self.world.root / f"away/{location}"
        if location in self.away:
            there.rename(here)
            self.away.remove(location)
        else:
            there.parent.mkdir(parents=True, exist_ok=True)
            here.rename(there)
            self.away.add(location)

    @rule()
    def want_staged(self) -> None:
        """Ask for everything that is archived."""
        self.world.request_staging(self.archived())

    @invariant()
    def something_of_each_file_is_intact(self) -> None:
        for path in self.files:
            assert self.intact(path), f"nothing is left of {path}"

    @invariant()
    def what_is_archived_was_read_back_there(self) -> None:
        for package_id in self.archived():
            package = self.world.package(package_id)
            place = Place(ARCHIVE, tar_path_of(self.world, package_id))
            file = self.root(ARCHIVE) / place.path
            assert place in self.hurt or digest(file.read_bytes()) == package.checksum

    @invariant()
    def nothing_that_is_there_is_called_deleted(self) -> None:
        live, gone = set[Place](), set[Place]()
        for place, copy in self.rows():
            (gone if copy.status is PhysicalCopyStatus.DELETED else live).add(place)
        for place in gone - live:
            assert not (self.root(place.location) / place.path).exists(), f"{place} is DELETED and there"

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self.mend()
            self.check_the_end()

    def mend(self) -> None:
        """Everything that people and processes do, once all that was broken works again."""
        for location in list(self.away):
            self.lose_or_return_a_location(location)
        for _ in range(ROUNDS):
            self.time_passes()
            self.world.do_all()
            if self.is_over():
                break
            for path in self.files:
                self.restore(path)
            self.retry_everything()
        self.world.request_staging(self.archived())
        self.world.do_all()

    def check_the_end(self) -> None:
        assert self.archived() == sorted(set(self.package_of.values())), self.failures()
        assert self.world.leftovers() == []
        assert not any(self.world.directory("cologne/buffer").glob("transfer/*"))
        self.something_of_each_file_is_intact()
        self.nothing_that_is_there_is_called_deleted()
        for place, copy in self.rows():
            if copy.status is PhysicalCopyStatus.WRITING:  # no archive copy was left to stage from
                assert place.location == STAGED
                assert not (self.root(STAGED) / place.path).exists(), f"{place} is there, and called unfinished"
            if copy.status in THERE and not self.is_hurt_since(place, copy):
                self.check_copy(place, copy)
        assert [one for one in self.world.transfers() if one.status in {Status.SCHEDULED, Status.IN_PROGRESS}] == []

    def check_copy(self, place: Place, copy: models.PhysicalCopy) -> None:
        found = self.root(place.location) / place.path
        if copy.raw_data_file_id is not None:
            assert found.read_bytes() == self.files[place.path]
        elif place.location == STAGED:
            expected = {path: data for path, data in self.files.items() if self.is_of(path, copy)}
            touched = {one.path for one in self.hurt if one.location == STAGED}
            for path, data in expected.items():
                assert f"{place.path}/{path}" in touched or (found / path).read_bytes() == data
        else:
            package = self.world.package(copy.raw_data_package_id or 0)
            assert digest(found.read_bytes()) == copy.checksum == package.checksum

    def is_of(self, path: str, copy: models.PhysicalCopy) -> bool:
        return self.package_of[path] == copy.raw_data_package_id

    def is_hurt_since(self, place: Place, copy: models.PhysicalCopy) -> bool:
        """Whether somebody hurt it after it was last read."""
        at = self.hurt.get(place)
        return at is not None and (copy.verified_at or copy.created_at) < at

    def is_over(self) -> bool:
        return self.archived() == sorted(set(self.package_of.values()))

    def work(self, operation: Operation, number: int, fate: tuple[str, int] | None) -> None:
        how, step = fate or ("lives", None)
        with self.fate.of(step, self.others_work if how == "sleeps" else None):
            VERBS[operation](self.worker, number)

    def others_work(self) -> None:
        """What goes on while a worker sleeps for longer than its lease."""
        self.time_passes()
        for operation in OPERATIONS:
            self.world.do(operation)

    @property
    def worker(self) -> Worker:
        return Worker(engine=self.world.engine, name="worker", backoff=AT_ONCE)

    def restore(self, path: str) -> None:
        file = self.world.directory(SOURCE) / path
        file.write_bytes(self.files[path])
        self.hurt.pop(Place(SOURCE, path), None)

    def retry(self, package_id: int) -> None:
        with suppress(NothingToRetry), transaction(self.world.engine) as session:
            retry_package(session, package_id, by="an operator")

    def retry_everything(self) -> None:
        with transaction(self.world.engine) as session:
            packages = session.scalars(sa.select(models.RawDataPackage.id).filter_by(state=PackageState.FAILED)).all()
        for package_id in packages:
            self.retry(package_id)
        with transaction(self.world.engine) as session:
            for number in session.scalars(sa.select(models.DataTransfer.id).filter_by(status=Status.FAILED)).all():
                retry_transfer(session, number, by="an operator")

    def archived(self) -> list[int]:
        with transaction(self.world.engine) as session:
            return sorted(session.scalars(sa.select(models.RawDataPackage.id).filter_by(state=PackageState.ARCHIVED)))

    def failures(self) -> str:
        """What is said of whatever did not get to its end."""
        stuck = [one for one in self.world.transfers() if one.status is not Status.COMPLETED]
        return "; ".join(f"{one.__tablename__} {one.id} is {one.status}: {one.failure}" for one in stuck)

    def now(self) -> datetime:
        with transaction(self.world.engine) as session:
            now: datetime = session.scalars(sa.select(sa.func.clock_timestamp())).one()
            return now

    def root(self, location: str) -> Path:
        return self.world.root / f"away/{location}" if location in self.away else self.world.directory(location)

    def rows(self) -> Iterator[tuple[Place, models.PhysicalCopy]]:
        with transaction(self.world.engine) as session:
            names = dict(session.execute(LOCATION.rows.with_only_columns(models.DataLocation.id, LOCATION.label)).all())
            for copy in session.scalars(sa.select(models.PhysicalCopy)).all():
                yield Place(names[copy.data_location_id], copy.path), copy

    def on_disk(self) -> Iterator[Place]:
        for location in PLACES:
            root = self.root(location)
            for file in root.rglob("*"):
                if file.is_file():
                    yield Place(location, str(file.relative_to(root)))

    def intact(self, path: str) -> bool:
        """Whether a file, or a package with it, is whole anywhere but where it is staged."""
        raw = self.root(SOURCE) / path
        if raw.exists() and raw.read_bytes() == self.files[path]:
            return True
        checksum = self.world.package(self.package_of[path]).checksum
        tar = tar_path_of(self.world, self.package_of[path])
        files = (self.root(location) / tar for location in TARS)
        return checksum is not None and any(file.exists() and digest(file.read_bytes()) == checksum for file in files)


def tar_path_of(observatory: Observatory, package_id: int) -> str:
    with transaction(observatory.engine) as session:
        copy = models.RawDataPackagePhysicalCopy
        found = sa.select(copy.path).join(copy.location).where(copy.raw_data_package_id == package_id)
        name = session.get_one(models.RawDataPackage, package_id).name
        return session.scalars(found.where(copy.path.endswith(".tar")).limit(1)).first() or f"raw/none/{name}.tar"


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data


@pytest.mark.timeout(0)
def test_whatever_happens_nothing_is_lost_and_all_is_archived_in_the_end(far: Observatory) -> None:
    """`--hypothesis-profile=long` has many more, and longer, histories."""
    with armed(far.engine) as fate:
        of_profile = settings(max_examples=max(1, settings().max_examples // 25), stateful_step_count=30)

        class Here(Histories):
            def __init__(self) -> None:
                super().__init__(far, fate)

        run_state_machine_as_test(Here, settings=of_profile)
