"""What may go, decided from values; and that SQL finds the obstacles that a person would name."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.retention import (
    AWAY_AFTER,
    CACHE_DAYS,
    HIGH,
    LOW,
    Group,
    Keeping,
    Kind,
    Obstacle,
    Space,
    Term,
    hindered,
    keeping,
    lines,
    room_to_make,
)
from ccat_ops_db.plan.spaces import FRESH
from ccat_ops_db.queries.retention import damaged_and_free, obstacles
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, PackageState, PhysicalCopyStatus, ProductState
from tests.ops_db.rows import DIGEST, World, a_file, a_package, add

NOW = datetime(2026, 4, 5, tzinfo=UTC)
OTHER_DIGEST = f"sha256:{'1' * 64}"


def test_caches_are_kept_for_a_week_and_what_an_instrument_wrote_until_somebody_says_for_how_long() -> None:
    unsaid = {"days": None, "high": None, "low": None}
    for cache in (LocationType.BUFFER, LocationType.PROCESSING):
        assert keeping(cache, **unsaid) == Keeping(CACHE_DAYS, HIGH, LOW)
    assert keeping(LocationType.SOURCE, **unsaid) == Keeping(None)
    assert keeping(LocationType.SOURCE, days=30, high=None, low=None) == Keeping(30)
    assert keeping(LocationType.SOURCE, days=None, high=0.7, low=None) == Keeping(None, 0.7, 0.7)


@given(
    total=st.integers(1, 10**15),
    free_part=st.floats(0, 1),
    low=st.floats(0.01, 1),
    above=st.floats(0, 1),
)
def test_room_is_made_above_the_high_mark_only_and_exactly_down_to_the_low_one(
    total: int, free_part: float, low: float, above: float
) -> None:
    high, free = low + (1 - low) * above, round(total * free_part)
    room = room_to_make(Keeping(None, high, low), Space(free=free, total=total, checked_at=NOW), now=NOW)
    if total - free > high * total:
        assert abs((total - free - room) - low * total) <= 1
    else:
        assert room == 0


def test_nobody_makes_room_for_what_was_seen_long_ago_or_never() -> None:
    full = Keeping(None, 0.9, 0.8)
    assert room_to_make(full, Space(free=0, total=100, checked_at=NOW), now=NOW + FRESH) == 20
    assert room_to_make(full, Space(free=0, total=100, checked_at=NOW), now=NOW + 2 * FRESH) == 0
    assert room_to_make(full, Space(free=None, total=None, checked_at=None), now=NOW) == 0
    assert room_to_make(Keeping(7), Space(free=0, total=100, checked_at=NOW), now=NOW) == 0


@st.composite
def forecasts(draw: st.DrawFn) -> tuple[list[Group], list[Group]]:
    """Groups of copies, and the part of those whose time is not over that goes for want of room."""
    keys = draw(st.sets(st.tuples(st.sampled_from(Kind), st.none() | st.sampled_from(Obstacle), st.sampled_from(Term))))
    groups = [
        Group(kind=kind, obstacle=obstacle, term=term, copies=(n := draw(st.integers(1, 9))), bytes=10 * n)
        for kind, obstacle, term in sorted(keys, key=str)
    ]
    in_line = [one for one in groups if one.may_go and one.term is not Term.OVER]
    taken = [(one, draw(st.integers(0, one.copies))) for one in in_line]
    early = [replace(one, copies=number, bytes=10 * number) for one, number in taken if number]
    return groups, early


@given(found=forecasts(), paused=st.none() | st.just("the disk is copied"))
def test_a_plan_tells_of_each_copy_once_and_lets_none_go_that_something_hinders(
    found: tuple[list[Group], list[Group]], paused: str | None
) -> None:
    groups, early = found
    told = list(lines(groups, early, paused=paused))
    assert sum(line.copies for line in told) == sum(group.copies for group in groups)
    assert sum(line.bytes for line in told) == sum(group.bytes for group in groups)
    goes = sum(line.copies for line in told if line.goes)
    over = sum(group.copies for group in groups if group.may_go and group.term is Term.OVER)
    assert goes == (0 if paused else over + sum(group.copies for group in early))
    whys = {hindered(group.obstacle) for group in groups if group.obstacle}
    assert whys <= {line.why for line in told if not line.goes}
    assert len({(line.kind, line.goes, line.why) for line in told}) == len(told)


# What SQL finds, against a few lines of Python


ARCHIVES = ("cologne/lta", "cologne/z2", "cologne/z3")
IN_USE = "in use"
VERIFIED = ("sound", "late")
BAD = ("corrupt", "missing")


@dataclass(frozen=True)
class Archived:
    """An archive copy: how it is, and its archive."""

    copy: str
    archive: str

    @property
    def is_at_hand(self) -> bool:
        return self.copy in VERIFIED and self.archive != "away"


@dataclass(frozen=True)
class Facts:
    """What may be so of a package and its copies."""

    is_packed: bool
    is_archived: bool
    needed: int
    archives: tuple[Archived, ...]
    is_read: bool
    is_asked_for: bool
    is_taken: bool

    def of_source(self) -> Obstacle | None:
        if not self.is_packed:
            return Obstacle.UNPACKED
        return self._of_archive(self.needed)

    def of_buffer(self) -> Obstacle | None:
        return self._of_archive(self.needed) or (Obstacle.BEING_READ if self.is_read else None)

    def of_staged(self) -> Obstacle | None:
        safety = self._of_archive(1)
        if safety is None and self.is_asked_for:
            return Obstacle.BEING_STAGED
        return safety or (Obstacle.IN_USE if self.is_taken else None)

    def of_archived(self, number: int) -> Obstacle | None:
        if not self.is_archived:
            return Obstacle.NOT_ARCHIVED
        others = [one for other, one in enumerate(self.archives) if other != number]
        if sum(one.copy in VERIFIED for one in others) < self.needed:
            return Obstacle.TOO_FEW_COPIES
        if others.count(Archived("sound", IN_USE)) < self.needed:
            return Obstacle.NOT_READ_LATELY
        return Obstacle.BEING_READ if self.is_read or self.is_asked_for else None

    def _of_archive(self, needed: int) -> Obstacle | None:
        if not self.is_archived:
            return Obstacle.NOT_ARCHIVED
        if sum(one.copy in VERIFIED for one in self.archives) < needed:
            return Obstacle.TOO_FEW_COPIES
        return Obstacle.ARCHIVES_AWAY if sum(one.is_at_hand for one in self.archives) < needed else None


an_archive_copy = st.builds(
    Archived,
    st.sampled_from([*["sound"] * 6, "late", "unverified", "other", "corrupt", "deletion_possible"]),
    st.sampled_from([*[IN_USE] * 6, "away", "inactive", "troubled", "paused"]),
)
facts = st.builds(
    Facts,
    is_packed=st.sampled_from([True, True, False]),
    is_archived=st.sampled_from([True, True, True, False]),
    needed=st.sampled_from([1, 1, 2, 3]),
    archives=st.lists(an_archive_copy, max_size=3).map(tuple) | st.tuples(*[an_archive_copy] * 3),
    is_read=st.booleans(),
    is_asked_for=st.booleans(),
    is_taken=st.booleans(),
)


@pytest.fixture(scope="module")
def places(shared_engine: sa.Engine, world: World) -> dict[str, int]:
    """Locations by their names, with two more archives."""
    with transaction(shared_engine) as session:
        site = session.get_one(models.DataLocation, world.archive).site_id
        for name in ("z2", "z3"):
            kind, path = LocationType.LONG_TERM_ARCHIVE, f"/{name}"
            session.add(models.DiskDataLocation(site_id=site, name=name, location_type=kind, path=path))
        session.flush()
        names = ("ccat/chai_raw_data", "ccat/buffer", "cologne/buffer", "cologne/ramses", *ARCHIVES)
        return {name: find(session, LOCATION, name).id for name in names}


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=facts)
def test_sql_finds_what_hinders_a_copy_and_the_database_lets_the_others_go(
    shared_engine: sa.Engine, world: World, places: dict[str, int], one: Facts
) -> None:
    with Session(shared_engine) as session:
        copies = make(session, world, places, one)
        found = obstacles(session, copies.values())
        wanted = {"source": one.of_source(), "buffer": one.of_buffer(), "staged": one.of_staged()}
        wanted |= {ARCHIVES[number]: one.of_archived(number) for number in range(len(one.archives))}
        wanted = {name: wanted[name] for name in copies}
        assert {name: found.get(copy_id) for name, copy_id in copies.items()} == wanted
        for name, copy_id in copies.items():
            if wanted[name] is None:
                let_go(session, copy_id)
        session.rollback()


# Of products


A_PRODUCT_COPY = st.sampled_from(["verified", "verified", "unread", "unread", "corrupt", "missing", "going", None])
PRODUCT_PLACES = ("cologne/ramses", "cologne/buffer", "cologne/lta", "cologne/z2")
HOME = PRODUCT_PLACES[0]


@dataclass(frozen=True)
class ProductFacts:
    """What may be so of a product that nobody takes, and of its copies by their locations."""

    state: ProductState
    is_to_be_archived: bool
    copies: Mapping[str, str]

    @property
    def may_be_wanted(self) -> bool:
        return self.state in {ProductState.CURRENT, ProductState.SUPERSEDED}

    def obstacle(self, where: str) -> Obstacle | None:
        others = [copy for place, copy in self.copies.items() if place != where]
        is_any_bad = bool(set(BAD).intersection(others))
        if where in ARCHIVES:
            counts = Obstacle.COUNTS if self.state is ProductState.CURRENT else None
            return Obstacle.LAST_SOUND_COPY if is_any_bad else counts
        is_kept = self.is_to_be_archived and self.state is ProductState.CURRENT and "verified" not in others
        is_alone = not {"verified", "unread"}.intersection(others)
        is_needed = self.may_be_wanted and (is_any_bad or where != HOME)
        return Obstacle.LAST_SOUND_COPY if is_kept or (is_alone and is_needed) else None

    def goes_damaged(self, where: str) -> bool:
        if self.obstacle(where) is not None or (where == HOME and self.state is ProductState.CURRENT):
            return False
        in_archives = [copy for place, copy in self.copies.items() if place in ARCHIVES]
        is_safe = "verified" in in_archives or not (self.is_to_be_archived or in_archives)
        return is_safe or not self.may_be_wanted


product_facts = st.builds(
    ProductFacts,
    state=st.sampled_from([*[ProductState.CURRENT] * 3, ProductState.SUPERSEDED, ProductState.WITHDRAWN]),
    is_to_be_archived=st.sampled_from([True, True, False]),
    copies=st.fixed_dictionaries(dict.fromkeys(PRODUCT_PLACES, A_PRODUCT_COPY)).map(
        lambda found: {where: copy for where, copy in found.items() if copy is not None}
    ),
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=product_facts)
def test_sql_finds_what_hinders_a_copy_of_a_product_and_the_database_lets_the_others_go(
    shared_engine: sa.Engine, world: World, places: dict[str, int], one: ProductFacts
) -> None:
    with Session(shared_engine) as session:
        copies = make_product(session, world, places, one)
        found = obstacles(session, copies.values())
        there = [where for where, copy in one.copies.items() if copy in {"verified", "unread"}]
        assert {where: found.get(copies[where]) for where in there} == {where: one.obstacle(where) for where in there}
        for where in there:
            if one.obstacle(where) is None:
                let_go(session, copies[where])
        bad = [where for where, copy in one.copies.items() if copy in BAD and where not in ARCHIVES]
        gone = damaged_and_free(session, [copies[where] for where in bad])
        assert sorted(gone) == sorted(copies[where] for where in bad if one.goes_damaged(where))
        session.rollback()


def make_product(session: Session, world: World, places: dict[str, int], one: ProductFacts) -> dict[str, int]:
    """Rows of which this is so; ids of the copies by their locations."""
    session.execute(sa.update(models.ReductionStepRevision).values(is_final=True, archive=one.is_to_be_archived))
    session.execute(sa.update(models.ExecutedReductionStep).values(data_location_id=places[HOME]))
    session.execute(sa.update(models.DataProduct).values(state=one.state))
    copies = {}
    for where, how in one.copies.items():
        copy = models.DataProductPhysicalCopy(data_product_id=world.product, data_location_id=places[where])
        copy.path, copy.checksum = f"cube-{where}.fits", DIGEST
        copy.status = PhysicalCopyStatus({"going": "deletion_possible"}.get(how, how if how in BAD else "present"))
        copy.verified_at = None if how == "unread" else NOW
        copies[where] = add(session, copy).id
    return copies


def let_go(session: Session, copy_id: int) -> None:
    """Begin the removal of a copy, and undo that."""
    with session.begin_nested() as nested:
        for to in ("deletion_possible", "deletion_scheduled", "deletion_in_progress"):
            done = advance(session, models.PhysicalCopy, [copy_id], to=PhysicalCopyStatus(to), because="a", by="test")
        assert done == [copy_id]
        nested.rollback()


def make(session: Session, world: World, places: dict[str, int], one: Facts) -> dict[str, int]:
    """Rows of which this is so; ids of the copies that might go."""
    safe = add(session, models.DataClass(name="x", min_verified_archive_copies=one.needed))
    session.execute(sa.update(models.Instrument).values(data_class_id=safe.id))
    name = uuid.uuid4().hex
    package = a_package(scan=world.scan, module=world.module, name=name, part=9)
    package.checksum, package.size_bytes = DIGEST, 1
    if one.is_archived:
        package.state, package.archived_at = PackageState.ARCHIVED, NOW
    add(session, package)
    file = a_file(scan=world.scan, module=world.module, relative_path=name)
    file.raw_data_package_id = package.id if one.is_packed else None
    add(session, file)
    copies = {
        where: archive(session, package, places[where], it) for where, it in zip(ARCHIVES, one.archives, strict=False)
    }
    transfer = {"raw_data_package_id": package.id}
    if one.is_read:
        ends = {"origin_id": places["ccat/buffer"], "destination_id": places["cologne/lta"]}
        add(session, models.LongTermArchiveTransfer(**transfer, **ends))
    if one.is_asked_for:
        add(session, models.StagingJob(**transfer, data_location_id=places["cologne/ramses"]))
    if one.is_taken:
        add(session, models.RunInput(run_id=world.run, role="raw", **transfer))
    tar = models.RawDataPackagePhysicalCopy
    source = models.RawDataFilePhysicalCopy(raw_data_file_id=file.id, data_location_id=places["ccat/chai_raw_data"])
    buffer = tar(**transfer, data_location_id=places["ccat/buffer"])
    staged = tar(**transfer, data_location_id=places["cologne/ramses"])
    for copy, status in ((source, "present"), (buffer, "present"), (staged, "staged")):
        copy.path, copy.status = name, status  # type: ignore[assignment]  # the value of the status
        add(session, copy)
    session.execute(sa.update(models.ExecutedReductionStep).values(data_location_id=places["cologne/ramses"]))
    lie = {where: copy.id for where, copy in copies.items() if copy.status != PhysicalCopyStatus.CORRUPT}
    return {"source": source.id, "buffer": buffer.id, "staged": staged.id, **lie}


def archive(
    session: Session, package: models.RawDataPackage, location_id: int, one: Archived
) -> models.RawDataPackagePhysicalCopy:
    """An archive copy that is like this, in an archive that is."""
    location, now = session.get_one(models.DataLocation, location_id), datetime.now(UTC)
    days_ago = {"unverified": None, "late": 70, "sound": 50}.get(one.copy, 0)
    location.scrub_days = 30
    location.free_bytes, location.total_bytes, location.space_checked_at = 1, 1, now
    match one.archive:
        case "away":
            location.space_checked_at = now - 2 * AWAY_AFTER
        case "inactive":
            location.active = False
        case "troubled":
            location.trouble = "has no free inodes"
        case "paused":
            session.add(models.Pause(data_location_id=location_id, because="its disks are exchanged", by="Ann"))
    copy = models.RawDataPackagePhysicalCopy(
        raw_data_package_id=package.id,
        data_location_id=location_id,
        path=package.name,
        status=PhysicalCopyStatus(one.copy if one.copy in {"corrupt", "deletion_possible"} else "present"),
        checksum=OTHER_DIGEST if one.copy == "other" else DIGEST,
        verified_at=None if days_ago is None else now - timedelta(days=days_ago),
    )
    add(session, copy)
    return copy
