"""Lives of raw data as chance has them: workers die or sleep at any step, copies rot, go, are read again and made anew.

Whatever happens, something of every file is intact that nobody of us may lose; and once all is mended, it is archived
as often as it should be, and everything else may go.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
import sqlalchemy as sa
from hypothesis import Phase, settings
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
from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_data_transfer.verbs.outcomes import NOUNS
from ccat_data_transfer.verbs.retrying import retry_package, retry_transfer
from ccat_data_transfer.verbs.scrubbing import scrub, scrub_what_is_due
from ccat_data_transfer.verbs.surveying import look_through
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.retention import (
    forget_retention,
    retry_deletions,
    set_data_class,
    set_retention,
)
from ccat_ops_db.verbs.spaces import record_space
from ccat_ops_db.verbs.staging import cancel_unwanted
from tests.transfer.books import THERE, Books, Grounds, Place
from tests.transfer.fates import Fate, armed
from tests.transfer.reductions import Reductions
from tests.transfer.support import AT_ONCE, Observatory, digest

SOURCE, STAGED = "ccat/chai_raw_data", "cologne/ramses"
BUFFERS: Final = ("ccat/buffer", "cologne/buffer", "us/buffer")
ARCHIVES: Final = ("cologne/lta", "us/lta")
DELETED_AT: Final = (SOURCE, *BUFFERS, STAGED)
PLACES: Final = (*DELETED_AT, *ARCHIVES)
OPERATIONS: Final = tuple(one for one in Operation if one is not Operation.ARCHIVING_PRODUCTS)
BEGINNINGS: Final = ("staged", "in archives only", "archived", "observed")
"""How far the first scans are when chance begins."""
ROUNDS: Final = 12
BEGINNING: Final = "beginning"
"""Where the rows are kept that each history begins with."""
DAMAGED: Final = (PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING)
"""What was found so stays as it is until it is made anew."""
IN_USE: Final = (PhysicalCopyStatus.STAGED, *DAMAGED)

whichever = st.integers(0, 1000)
fates = st.none() | st.tuples(st.sampled_from(["dies", "sleeps"]), st.integers(1, 30))
"""What becomes of a worker, and before how many-th step, if anything does."""


@dataclass(frozen=True)
class Letter:
    """A message to a worker: transfers, or copies, that an operation is to be done with."""

    operation: Operation
    ids: tuple[int, ...]


class Histories(RuleBasedStateMachine):
    """Scans, and everything that may become of their files."""

    def __init__(self, observatory: Observatory, fate: Fate, reductions: Reductions) -> None:
        super().__init__()
        self.world, self.fate, self.reductions = observatory, fate, reductions
        self.grounds = Grounds(observatory)
        self.files: dict[str, bytes] = {}
        """What was registered, by path at the source."""
        self.package_of: dict[str, int] = {}
        self.letters: list[Letter] = []
        self.runs: dict[int, list[int]] = {}
        """Packages that runs take, by run."""
        self.limited: set[str] = set()
        """Locations where copies may go sooner than in a week."""
        self.in_use: set[int] = set()
        """Staged copies that a run was seen to have."""

    @initialize(copies=st.sampled_from([1, 2]), scans=st.integers(1, 3), beginning=st.sampled_from(BEGINNINGS))
    def begin(self, copies: int, scans: int, beginning: str) -> None:
        self.world.forget(BEGINNING)
        self.want_copies(copies)
        for _ in range(scans):
            self.observe([10, 3000])
        if beginning != "observed":
            self.go_on()
        if beginning == "staged":
            self.begin_a_run()
            self.go_on()
        if beginning == "in archives only":
            for location in DELETED_AT:
                self.say_how_long_copies_are_kept(location, "not at all")
            self.go_on()

    # What the telescope and the managers do

    @rule(sizes=st.lists(st.sampled_from([0, 10, 3000]), min_size=1, max_size=2))
    def observe(self, sizes: list[int]) -> None:
        if SOURCE in self.grounds.away:
            return
        number = len(self.files)
        files = {f"night/{number}-{one}.fits": os.urandom(size) for one, size in enumerate(sizes)}
        package_id = self.world.observe(files)
        self.files |= files
        self.package_of |= dict.fromkeys(files, package_id)

    @rule(operation=st.sampled_from(OPERATIONS))
    def schedule(self, operation: Operation) -> None:
        """Send messages about whatever waits for an operation."""
        match operation:
            case Operation.DELETION:
                for location in sorted(self.limited):
                    self._tell(operation, self.world.schedule_deletions(location))
                    self.world.mark(location)
            case Operation.SCRUBBING:
                self._tell(operation, self._archive_copies())
            case _:
                for number in self.world.schedule(operation):
                    self._tell(operation, [number])

    @rule()
    def manage(self) -> None:
        """Send packages on their way, and see to it that there are enough archive copies."""
        self.world.ship()
        with transaction(self.world.engine) as session:
            session.execute(sa.update(models.ReplicationRound).values(look_at=None))
            look_through(session, by="manager")

    @rule(lose_messages=st.booleans())
    def time_passes(self, *, lose_messages: bool) -> None:
        """Every lease runs out, whether or not somebody still works."""
        past = sa.func.clock_timestamp() - timedelta(seconds=1)
        with transaction(self.world.engine) as session:
            for noun in (*NOUNS, models.PhysicalCopy):
                session.execute(sa.update(noun).where(noun.lease_until.is_not(None)).values(lease_until=past))
            cancel_unwanted(session, by="manager")
        self.world.recover()
        if lose_messages:
            self.letters.clear()

    # What workers do, and what becomes of them

    @rule(operation=st.sampled_from(OPERATIONS), fate=fates)
    def do(self, operation: Operation, fate: tuple[str, int] | None) -> None:
        self.schedule(operation)
        while self.letters and self.letters[-1].operation is operation:
            self.work(self.letters.pop(), fate)

    @rule(operation=st.sampled_from(OPERATIONS), fate=fates)
    def do_a_round(self, operation: Operation, fate: tuple[str, int] | None) -> None:
        """Everything goes one step on after the other, and one of these meets its fate."""
        self.manage()
        for each in OPERATIONS:
            self.do(each, fate if each is operation else None)
            if each is Operation.UNPACKING:
                self.world.ship()

    @precondition(lambda self: self.letters)
    @rule(which=whichever, fate=fates, keep=st.booleans())
    def deliver(self, which: int, fate: tuple[str, int] | None, *, keep: bool) -> None:
        """A message that lay somewhere comes, and perhaps once more later."""
        letter = self.letters[which % len(self.letters)]
        if not keep:
            self.letters.remove(letter)
        self.work(letter, fate)

    # What happens to disks

    @precondition(lambda self: self.files)
    @rule(
        which=whichever, how=st.sampled_from(["flip", "cut", "remove"]), locations=st.sampled_from([PLACES, ARCHIVES])
    )
    def hurt_a_file(self, which: int, how: str, locations: tuple[str, ...]) -> None:
        """Damage or remove any file, but the last one that is intact where nothing goes.

        Where only what might go would be left then, the archives are read again at once.
        """
        found = self.grounds.files(locations)
        if not found:
            return
        place = found[which % len(found)]
        file, undo = self.grounds.file(place), self.grounds.file(place).read_bytes()
        self.grounds.hurt_file(place, how)
        if not (undo or how == "remove"):
            return
        books = self.books()
        if all(books.is_safe(path) for path in self.files):
            self.grounds.hurt[place] = self.now()
        elif self.is_readable_archive(place.location) and all(books.is_spared(path) for path in self.files):
            self.grounds.hurt[place] = self.now()
            scrub(self.worker, self._archive_copies())
        else:
            file.write_bytes(undo)

    def is_readable_archive(self, location: str) -> bool:
        return location in ARCHIVES and location not in self.grounds.away

    @rule(location=st.sampled_from(PLACES))
    def lose_or_return_a_location(self, location: str) -> None:
        """A disk is away; as long as one is, no other."""
        self.grounds.lose_or_return(next(iter(self.grounds.away), location))

    @rule(location=st.sampled_from(DELETED_AT))
    def find_full(self, location: str) -> None:
        """What a worker sees of a disk."""
        self.limited.add(location)
        location_id = self.world.location_id(location)
        with transaction(self.world.engine) as session:
            record_space(session, location_id, free=0, total=1000, now=datetime.now(UTC))

    # What people do

    @precondition(lambda self: self.package_of)
    @rule(which=whichever, restore=st.booleans())
    def retry_a_package(self, which: int, *, restore: bool) -> None:
        packages = sorted(set(self.package_of.values()))
        package_id = packages[which % len(packages)]
        for path, number in self.package_of.items():
            if restore and number == package_id and SOURCE not in self.grounds.away:
                self.restore(path)
        self.retry(package_id)

    @rule()
    def want_staged(self) -> None:
        """Ask for everything that is archived."""
        self.world.request_staging(self.books().archived())

    @rule(copies=st.sampled_from([1, 2]))
    def want_copies(self, copies: int) -> None:
        with transaction(self.world.engine) as session:
            set_data_class(session, "raw", copies=copies, instruments=[])

    @rule(location=st.sampled_from(DELETED_AT), how=st.sampled_from(["not at all", "until it is full", "as usual"]))
    def say_how_long_copies_are_kept(self, location: str, how: str) -> None:
        self.limited.add(location)
        with transaction(self.world.engine) as session:
            match how:
                case "not at all":
                    set_retention(session, location, days=0, high=None, low=None, by="Ann")
                case "until it is full":
                    set_retention(session, location, days=None, high=0.9, low=0.5, by="Ann")
                case _:
                    forget_retention(session, location, by="Ann")

    @rule()
    def begin_a_run(self) -> None:
        archived = self.books().archived()
        if archived:
            run_id = self.reductions.take(archived[-2:], of=f"source-{len(self.runs)}-{os.urandom(4).hex()}")
            self.runs[run_id] = archived[-2:]

    @precondition(lambda self: self.runs)
    @rule(which=whichever)
    def end_a_run(self, which: int) -> None:
        run_id = sorted(self.runs)[which % len(self.runs)]
        self.reductions.cancel(run_id)
        del self.runs[run_id]
        self.in_use.clear()

    # What always holds

    @invariant()
    def what_is_said_of_copies_is_so(self) -> None:
        books = self.books()
        for path in self.files:
            assert books.is_safe(path), f"nothing is left of {path}"
        for package_id in books.archived():
            assert books.counted(package_id) or self.is_hurt_in_an_archive(package_id, books)
        check_live_rows(books)
        check_presence(books)
        self.check_use(books)

    def is_hurt_in_an_archive(self, package_id: int, books: Books) -> bool:
        """Whether something was done to an archive copy of it, or a person said that one was restored."""
        of_package = {copy.path for _, copy in books.rows if copy.raw_data_package_id == package_id}
        return any(place.location in ARCHIVES and place.path in of_package for place in self.grounds.hurt)

    def check_use(self, books: Books) -> None:
        """Copies that a run had stay as long as it is active."""
        taken = {package_id for packages in self.runs.values() for package_id in packages}
        for place, copy in books.rows:
            if place.location != STAGED or copy.raw_data_package_id not in taken:
                continue
            if copy.id in self.in_use:
                was_hurt = any(one.location == STAGED for one in self.grounds.hurt)
                assert copy.status in IN_USE or was_hurt, f"{place} is {copy.status}, and a run takes it"
            elif copy.status is PhysicalCopyStatus.STAGED:
                self.in_use.add(copy.id)

    # The end

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self.mend()
            self.check_the_end()
            self.let_go()

    def mend(self) -> None:
        """Everything that people and processes do, once all that was broken works again."""
        for location in list(self.grounds.away):
            self.grounds.lose_or_return(location)
        for _ in range(ROUNDS):
            self.time_passes(lose_messages=False)
            self.go_on()
            self.world.request_staging(self.books().archived())
            self.go_on()  # which finds what was hurt in archives, too
            if self.is_over():
                break
            for path in self.files:
                self.restore(path)
            self.clear_away()
            self.retry_everything()

    def go_on(self) -> None:
        """Do whatever waits, for as long as anything does; no longer than a while, as some is tried again at once."""
        for _ in range(ROUNDS):
            before = self.changes()
            self.do_a_round(Operation.PACKING, None)
            if self.changes() == before:
                break

    def is_over(self) -> bool:
        books = self.books()
        is_archived = books.archived() == sorted(set(self.package_of.values()))
        return is_archived and all(len(books.counted(one)) >= self.copies_wanted() for one in books.archived())

    def check_the_end(self) -> None:
        assert self.is_over(), self.failures()
        assert self.world.leftovers() == []
        assert not any(self.world.root.glob("*/buffer/transfer/*"))
        self.what_is_said_of_copies_is_so()
        books = self.books()
        for place, copy in books.rows:
            assert copy.status is not PhysicalCopyStatus.WRITING, f"{place} is called unfinished"
            if copy.status in THERE and not self.grounds.is_hurt_since(place, copy):
                self.check_copy(place, copy, books)
        assert [one for one in self.world.transfers() if one.status in {Status.SCHEDULED, Status.IN_PROGRESS}] == []

    def check_copy(self, place: Place, copy: models.PhysicalCopy, books: Books) -> None:
        found = self.grounds.file(place)
        if copy.raw_data_file_id is not None:
            assert found.read_bytes() == self.files[place.path]
        elif place.location == STAGED:
            of_package = {path for path, number in self.package_of.items() if number == copy.raw_data_package_id}
            assert {path: (found / path).read_bytes() for path in of_package} == {
                path: self.files[path] for path in of_package
            }
        else:
            package = books.packages[copy.raw_data_package_id or 0]
            assert digest(found.read_bytes()) == copy.checksum == package.checksum

    def let_go(self) -> None:
        """Whatever an archive has may go in the end."""
        for run_id in self.runs:
            self.reductions.cancel(run_id)
        self.runs.clear()
        for location in DELETED_AT:
            self.say_how_long_copies_are_kept(location, "not at all")
        self.time_passes(lose_messages=False)
        self.go_on()
        books = self.books()
        left = {place: copy.status for place, copy in books.rows if copy.status is not PhysicalCopyStatus.DELETED}
        kept = {place for place, status in left.items() if status not in DAMAGED and not self.is_kept(place, status)}
        assert {place.location for place in kept} <= set(ARCHIVES), left
        assert set(self.grounds.files(DELETED_AT)) <= left.keys()
        assert all(books.is_safe(path) for path in self.files)

    def is_kept(self, place: Place, status: PhysicalCopyStatus) -> bool:
        """Whether something else lies there than was registered: a person has to look at it before it goes."""
        return status is PhysicalCopyStatus.DELETION_FAILED and place in self.grounds.hurt

    # How it is done

    def books(self) -> Books:
        return Books(self.grounds, self.files, self.package_of, ARCHIVES)

    def work(self, letter: Letter, fate: tuple[str, int] | None) -> None:
        how, step = fate or ("lives", None)
        with self.fate.of(step, self.others_work if how == "sleeps" else None):
            match letter.operation:
                case Operation.DELETION:
                    delete_copies(self.worker, letter.ids)
                case Operation.SCRUBBING:
                    scrub_what_is_due(self.worker, letter.ids)
                case operation:
                    VERBS[operation](self.worker, *letter.ids)

    def others_work(self) -> None:
        """What goes on while a worker sleeps for longer than its lease."""
        self.time_passes(lose_messages=False)
        self.do_a_round(Operation.PACKING, None)

    @property
    def worker(self) -> Worker:
        return Worker(engine=self.world.engine, name="worker", backoff=AT_ONCE)

    def _tell(self, operation: Operation, ids: Sequence[int]) -> None:
        if ids:
            self.letters.append(Letter(operation, tuple(ids)))

    def _archive_copies(self) -> list[int]:
        """Copies that are read again."""
        return [
            copy.id
            for place, copy in self.books().rows
            if place.location in ARCHIVES and copy.status is PhysicalCopyStatus.PRESENT
        ]

    def changes(self) -> int:
        """How often anything was moved so far."""
        with transaction(self.world.engine) as session:
            return session.scalars(sa.select(sa.func.count()).select_from(models.StatusChange)).one()

    def copies_wanted(self) -> int:
        return self.world.one(models.DataClass, name="raw").min_verified_archive_copies

    def restore(self, path: str) -> None:
        """A person who has it writes a raw file once more."""
        for place in self.books().raw(path):
            self.grounds.file(place).write_bytes(self.files[path])
            self.grounds.hurt.pop(place, None)

    def retry(self, package_id: int) -> None:
        with suppress(NothingToRetry), transaction(self.world.engine) as session:
            retry_package(session, package_id, by="an operator")

    def clear_away(self) -> None:
        """Remove what is kept where a copy was to go, as somebody else wrote there: people are told to look at it."""
        for place, copy in self.books().rows:
            if self.is_kept(place, copy.status):
                self.grounds.file(place).unlink(missing_ok=True)
        with transaction(self.world.engine) as session:
            retry_deletions(session, None)

    def retry_everything(self) -> None:
        with transaction(self.world.engine) as session:
            packages = session.scalars(sa.select(models.RawDataPackage.id).filter_by(state=PackageState.FAILED)).all()
        for package_id in packages:
            self.retry(package_id)
        with transaction(self.world.engine) as session:
            for number in session.scalars(sa.select(models.DataTransfer.id).filter_by(status=Status.FAILED)).all():
                retry_transfer(session, number, by="an operator")

    def failures(self) -> str:
        """What is said of whatever did not get to its end."""
        stuck = [one for one in self.world.transfers() if one.status is not Status.COMPLETED]
        return "; ".join(f"{one.__tablename__} {one.id} is {one.status}: {one.failure}" for one in stuck)

    def now(self) -> datetime:
        with transaction(self.world.engine) as session:
            now: datetime = session.scalars(sa.select(sa.func.clock_timestamp())).one()
            return now


def check_live_rows(books: Books) -> None:
    """Nothing has two rows at one place, and nothing is there that is only called DELETED."""
    live = [place for place, copy in books.rows if copy.status is not PhysicalCopyStatus.DELETED]
    assert len(live) == len(set(live))
    for place in {place for place, _ in books.rows} - set(live):
        assert not books.grounds.file(place).exists(), f"{place} is DELETED and there"


def check_presence(books: Books) -> None:
    """What is called PRESENT or STAGED is there, and tars are whole, but what was hurt since it was last read."""
    for place, copy in books.rows:
        is_parcel = copy.data_transfer_package_id is not None  # whose worker may have died before it said so
        if copy.status not in THERE or is_parcel or books.grounds.is_hurt_since(place, copy):
            continue
        file = books.grounds.file(place)
        assert file.exists(), f"{place} is {copy.status} and not there"
        if copy.raw_data_package_id is not None and file.is_file():
            assert digest(file.read_bytes()) == copy.checksum, f"{place} is {copy.status} and not whole"


@pytest.fixture
def reductions(two_archives: Observatory) -> Iterator[Reductions]:
    made = Reductions(two_archives)
    made.define(archive=False)
    two_archives.remember(BEGINNING)
    yield made
    made.end()


@pytest.mark.timeout(0)
def test_whatever_happens_nothing_is_lost_and_all_is_archived_in_the_end(
    two_archives: Observatory, reductions: Reductions
) -> None:
    """`--hypothesis-profile=long` has many more histories."""
    with armed(two_archives.engine) as fate:
        examples = max(1, settings().max_examples // 40)
        # To shrink one takes minutes, and tells little: as names and times differ, it is another history each time.
        of_profile = settings(max_examples=examples, stateful_step_count=40, phases=[Phase.generate])

        class Here(Histories):
            def __init__(self) -> None:
                super().__init__(two_archives, fate, reductions)

        run_state_machine_as_test(Here, settings=of_profile)
