"""Products come back to where runs take them: from an archive, a store, or another location that has them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ccat_data_transfer.backends.movers import Rsync
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.routing import Place, Route
from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_data_transfer.verbs.discarding import choose_given_up, discard
from ccat_data_transfer.verbs.products.plan import Fetch, Source, fetch_from
from ccat_data_transfer.verbs.products.repairing import archive_lost, repair
from ccat_data_transfer.verbs.retrying import believe
from ccat_data_transfer.verbs.staging import stage
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.trees import TreeFile, listed, tree_listing
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import LocationType, Mover, PhysicalCopyStatus, RouteType, Status, StorageType
from ccat_ops_db.verbs.staging import cancel_unwanted, request_products
from tests.ssh_server import SshServer, ssh_server
from tests.transfer.object_store import Road
from tests.transfer.reductions import Reductions
from tests.transfer.support import START, Observatory, eventually
from tests.transfer.test_given_up import cancel, tidy_up
from tests.transfer.test_troubles import forbidden

HOME, ARCHIVE = "cologne/ramses", "cologne/lta"
FILES = {"science/map.fits": b"m" * 1_500_000, "qa/noise.json": b"{}"}
TREE = {"science/cube.zarr/0.0": b"zero", "science/cube.zarr/deep/1.0": b"one", "science/cube.zarr/run.sh": b"#!"}


@pytest.fixture
def reductions(observatory: Observatory) -> Iterator[Reductions]:
    made = Reductions(observatory)
    yield made
    made.end()


def archived(reductions: Reductions, archive: Callable[[], None] | None = None) -> int:
    """A run whose products are in the archive, and were deleted where it made them."""
    run_id = reductions.make({**FILES, **TREE}, executable="science/cube.zarr/run.sh")
    (archive or reductions.archive)()
    delete(reductions, run_id)
    return run_id


def delete(reductions: Reductions, run_id: int, at: str = HOME) -> None:
    """Somebody lost what was there."""
    copies = [copy.id for copy in reductions.copies(run_id, at).values()]
    with transaction(reductions.engine) as session:
        for status in (PhysicalCopyStatus.MISSING, PhysicalCopyStatus.DELETED):
            advance(session, models.PhysicalCopy, copies, to=status, because="a test", by="a test")
    reductions.remove(run_id, at)


def ask(reductions: Reductions, run_id: int, to: str = HOME) -> list[int]:
    """Ask for all products of a run at a location, as a run does that takes them."""
    location_id = reductions.observatory.location_id(to)
    with transaction(reductions.engine) as session:
        products = session.scalars(sa.select(models.DataProduct.id).filter_by(run_id=run_id)).all()
        return request_products(session, products, location_id)


def fetch(reductions: Reductions, run_id: int, to: str = HOME) -> list[models.StagingJob]:
    """Do all that is asked for."""
    ask(reductions, run_id, to)
    while reductions.observatory.do(Operation.STAGING):
        pass
    return jobs(reductions)


def jobs(reductions: Reductions) -> list[models.StagingJob]:
    with transaction(reductions.engine) as session:
        return list(session.scalars(sa.select(models.StagingJob).order_by(models.StagingJob.id)))


def check(reductions: Reductions, run_id: int, at: str = HOME) -> None:
    """All products of a run are at a location as they were made."""
    copies = reductions.copies(run_id, at)
    assert {copy.status for copy in copies.values()} == {PhysicalCopyStatus.PRESENT}
    assert copies.keys() == {*FILES, "science/cube.zarr"}
    found: dict[str, bytes] = {}
    for path, copy in copies.items():
        place = reductions.observatory.directory(at) / copy.path
        inside = {f"{path}/{file.relative_to(place)}": file for file in place.rglob("*") if file.is_file()}
        found |= {name: file.read_bytes() for name, file in (inside or {path: place}).items()}
        assert (copy.mtime_ns, copy.inode) in {(seen(place), place.stat().st_ino), (None, None)}  # brought, or made
    assert found == {**FILES, **TREE}
    script = reductions.observatory.directory(at) / copies["science/cube.zarr"].path / "run.sh"
    assert script.stat().st_mode & 0o777 == 0o555
    assert reductions.observatory.leftovers() == []


def seen(place: Path) -> int:
    return max(one.lstat().st_mtime_ns for one in (place, *place.rglob("*")))


def test_products_come_back_from_the_archive_to_where_they_were_made(reductions: Reductions) -> None:
    run_id = archived(reductions)
    assert reductions.copies(run_id, HOME) == {}
    assert {job.status for job in fetch(reductions, run_id)} == {Status.COMPLETED}
    check(reductions, run_id)
    product = reductions.products(run_id) / "science/map.fits"
    assert product.read_bytes() == FILES["science/map.fits"]
    assert ask(reductions, run_id) == []


def test_two_that_ask_for_the_same_products_share_one_transfer_of_each(reductions: Reductions) -> None:
    run_id = archived(reductions)
    assert len(ask(reductions, run_id)) == len(FILES) + 1
    assert ask(reductions, run_id) == []
    assert len(fetch(reductions, run_id)) == len(FILES) + 1


@pytest.mark.usefixtures("s3_archive")
def test_products_and_trees_come_back_from_an_object_store(reductions: Reductions) -> None:
    run_id = archived(reductions)
    assert reductions.copies(run_id, "cologne/s3").keys() == {*FILES, "science/cube.zarr"}
    assert {job.status for job in fetch(reductions, run_id)} == {Status.COMPLETED}
    check(reductions, run_id)


def test_a_store_that_is_away_is_waited_for_and_told_of(reductions: Reductions, s3_archive: Road) -> None:
    run_id = archived(reductions)
    ask(reductions, run_id)
    s3_archive.break_after(sent=0)
    reductions.observatory.do(Operation.STAGING)
    assert {(job.status, job.trouble_count) for job in jobs(reductions)} == {(Status.PENDING, 1)}
    assert all(
        "check the store and the way to it. It is tried again." in (job.failure or "") for job in jobs(reductions)
    )
    s3_archive.mend()
    fetch(reductions, run_id)
    check(reductions, run_id)


def damage(file: Path) -> None:
    file.chmod(0o600)
    file.write_bytes(bytes(file.stat().st_size))


def let_go(reductions: Reductions, run_id: int, to: PhysicalCopyStatus, at: str = ARCHIVE) -> list[int]:
    """Have copies of what a run made go as far as this, now that its step does not keep them any more; which."""
    way = [one for one in PhysicalCopyStatus if one.value.startswith("deletion")]
    copies = [copy.id for copy in reductions.copies(run_id, at).values()]
    with transaction(reductions.engine) as session:
        session.execute(sa.update(models.ReductionStepRevision).values(archive=False))
        for status in way[: way.index(to) + 1]:
            advance(session, models.PhysicalCopy, copies, to=status, because="a test", by="a test")
    return copies


MARKED = [PhysicalCopyStatus.DELETION_POSSIBLE, PhysicalCopyStatus.DELETION_SCHEDULED]


@pytest.mark.parametrize("status", MARKED)
@pytest.mark.parametrize("marked", [ARCHIVE, HOME])
def test_what_is_to_be_deleted_is_taken_back_by_who_reads_it(
    sites: Reductions, status: PhysicalCopyStatus, marked: str
) -> None:
    run_id = sites.make({**FILES, **TREE}, executable="science/cube.zarr/run.sh")
    sites.archive()
    delete(sites, run_id, {HOME: ARCHIVE, ARCHIVE: HOME}[marked])
    scheduled = let_go(sites, run_id, status, marked)
    assert {job.status for job in fetch(sites, run_id, "cologne/second")} == {Status.COMPLETED}
    check(sites, run_id, "cologne/second")
    delete_copies(sites.observatory.worker, scheduled)
    kept, directory = sites.copies(run_id, marked).values(), sites.observatory.directory(marked)
    assert {(copy.status, (directory / copy.path).exists()) for copy in kept} == {(PhysicalCopyStatus.PRESENT, True)}


def test_what_was_let_go_before_it_was_asked_for_is_waited_for(reductions: Reductions) -> None:
    run_id = archived(reductions)
    [copy_id, *_] = let_go(reductions, run_id, PhysicalCopyStatus.DELETION_IN_PROGRESS)
    ask(reductions, run_id)
    reductions.observatory.do(Operation.STAGING)
    [failure] = {(job.failure or "").partition(" cannot be brought ")[2] for job in jobs(reductions)}
    assert failure == (
        "to cologne/ramses just now: that at cologne/lta is deletion_in_progress. What was let go before it was asked "
        "for is waited for: it goes, or is there again. It is tried again."
    )
    assert {job.status for job in jobs(reductions)} == {Status.PENDING}
    gone = PhysicalCopyStatus.DELETED
    with transaction(reductions.engine) as session:
        advance(session, models.PhysicalCopy, [copy_id], to=gone, because="removed", by="a test")
    reductions.observatory.do(Operation.STAGING)
    assert sorted(job.status for job in jobs(reductions)) == [Status.FAILED, Status.PENDING, Status.PENDING]


def test_a_removal_that_begins_while_a_copy_is_chosen_is_not_overtaken(reductions: Reductions) -> None:
    run_id = reductions.make({"science/map.fits": b"map"})
    reductions.archive()
    delete(reductions, run_id)
    [copy_id] = let_go(reductions, run_id, PhysicalCopyStatus.DELETION_SCHEDULED)
    ask(reductions, run_id)
    [job_id] = reductions.observatory.schedule(Operation.STAGING)
    with ThreadPoolExecutor(1) as beside:
        with transaction(reductions.engine) as session:
            to = PhysicalCopyStatus.DELETION_IN_PROGRESS
            advance(session, models.PhysicalCopy, [copy_id], to=to, because="a test", by="a worker")
            fetching = beside.submit(stage, reductions.observatory.worker, job_id)
            waits = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()")
            eventually(lambda: session.scalar(waits))
        fetching.result()
    [job] = jobs(reductions)
    assert (job.status, reductions.copies(run_id, ARCHIVE)["science/map.fits"].status) == (Status.PENDING, to)
    assert "What was let go before it was asked for is waited for" in (job.failure or "")


def archived_file(reductions: Reductions, run_id: int, path: str) -> Path:
    return reductions.observatory.directory(ARCHIVE) / reductions.copies(run_id, ARCHIVE)[path].path


@pytest.mark.parametrize("path", ["science/map.fits", "science/cube.zarr"])
def test_a_damaged_copy_is_marked_and_told_of_and_never_used_again(reductions: Reductions, path: str) -> None:
    run_id = archived(reductions)
    file = archived_file(reductions, run_id, path)
    damage(file if file.is_file() else file / "0.0")
    by_product = {job.data_product_id: job for job in fetch(reductions, run_id)}
    assert reductions.copies(run_id, ARCHIVE)[path].status is PhysicalCopyStatus.CORRUPT
    failed = by_product[reductions.product(run_id, path).id]
    assert failed.status is Status.FAILED
    assert f"({path} of run {run_id}) has no copy that could be brought to {HOME}" in (failed.failure or "")
    assert "that at cologne/lta is corrupt. `ccat trigger maps --step grid --force` has it made again." in (
        failed.failure or ""
    )
    assert {job.status for job in by_product.values()} == {Status.COMPLETED, Status.FAILED}


@pytest.fixture
def sites(far: Observatory) -> Iterator[Reductions]:
    """More processing locations, at the site where products are made, and at another one."""
    far.add_location("cologne/second", LocationType.PROCESSING)
    far.add_location("us/hpc", LocationType.PROCESSING)
    made = Reductions(far)
    yield made
    made.end()


def test_what_another_location_of_the_site_has_comes_from_there(sites: Reductions) -> None:
    run_id = sites.make({**FILES, **TREE}, executable="science/cube.zarr/run.sh")
    fetch(sites, run_id, "cologne/second")
    check(sites, run_id, "cologne/second")
    copy = sites.copies(run_id, "cologne/second")["science/map.fits"]
    assert copy.path == f"products/maps/grid/source=M17/{run_id}/science/map.fits"


def go_on(reductions: Reductions, run_id: int, to: str) -> None:
    """Fetch what is asked for, and read what is in doubt meanwhile."""
    ask(reductions, run_id, to)
    for _ in range(3):
        reductions.observatory.do(Operation.STAGING)
        reductions.observatory.read_again()


def flip(file: Path) -> bytes:
    """Have one bit of a file be another; what it holds then."""
    data = file.read_bytes()
    data = bytes([data[0] ^ 1]) + data[1:]
    file.chmod(0o600)
    file.write_bytes(data)
    return data


@pytest.mark.parametrize("to", [HOME, "us/hpc"], ids=["where it is read", "along a route"])
@pytest.mark.parametrize("path", ["science/map.fits", "science/cube.zarr/0.0"])
def test_a_damaged_product_stays_until_a_whole_one_takes_its_place_and_for_good_where_there_is_none(
    sites: Reductions, to: str, path: str
) -> None:
    """The copy in the archive, which nobody has read since, turns out to be as bad."""
    run_id = sites.make({**FILES, **TREE}, executable="science/cube.zarr/run.sh")
    sites.archive()
    sites.observatory.add_route(ARCHIVE, "us/hpc", RouteType.CUSTOM)
    if to != HOME:
        fetch(sites, run_id, to)
    product, inside = path.partition(".zarr")[0] + (".zarr" if ".zarr" in path else ""), path.rpartition(".zarr/")[2]
    home, there, archived = (sites.copies(run_id, one)[product] for one in (HOME, to, ARCHIVE))
    file = sites.observatory.directory(to) / there.path
    file = file if file.is_file() else file / inside
    left = flip(file)
    move(sites, list({copy.id: copy for copy in (home, there)}.values()), PhysicalCopyStatus.CORRUPT)
    source = sites.observatory.directory(ARCHIVE) / archived.path
    good = (source if source.is_file() else source / inside).read_bytes()
    flip(source if source.is_file() else source / inside)
    go_on(sites, run_id, to)
    assert sites.copies(run_id, ARCHIVE)[product].status is PhysicalCopyStatus.CORRUPT
    tidy_up(sites.observatory)
    assert (file.read_bytes(), sites.copies(run_id, to)[product].status) == (left, PhysicalCopyStatus.CORRUPT)

    (source if source.is_file() else source / inside).write_bytes(good)
    with transaction(sites.engine) as session:
        believe(session, sa.select(models.PhysicalCopy).filter_by(id=archived.id), by="an operator")
    go_on(sites, run_id, to)
    check(sites, run_id, to)


@pytest.mark.parametrize("how", [damage, Path.unlink], ids=["damaged", "gone"])
def test_what_is_bad_where_it_was_made_comes_from_the_archive_and_is_mended(
    sites: Reductions, how: Callable[[Path], None]
) -> None:
    run_id = sites.make({**FILES, **TREE}, executable="science/cube.zarr/run.sh")
    sites.archive()
    how(sites.products(run_id) / "science/map.fits")
    fetch(sites, run_id, "cologne/second")
    check(sites, run_id, "cologne/second")
    bad = sites.copies(run_id, HOME)["science/map.fits"].status
    assert bad is {damage: PhysicalCopyStatus.CORRUPT, Path.unlink: PhysicalCopyStatus.MISSING}[how]

    with transaction(sites.engine) as session:
        assert (repair(session), repair(session)) == (1, 0)
        assert cancel_unwanted(session, by="manager") == 0
    while sites.observatory.do(Operation.STAGING):
        pass
    check(sites, run_id)
    with transaction(sites.engine) as session:
        assert repair(session) == 0


def test_what_is_damaged_in_the_archive_is_archived_anew_from_where_it_was_made(reductions: Reductions) -> None:
    run_id = reductions.make({**FILES, **TREE}, executable="science/cube.zarr/run.sh")
    reductions.archive()
    with transaction(reductions.engine) as session:
        assert archive_lost(session, [run_id]) == []
        [bad] = [one for path, one in reductions.copies(run_id, ARCHIVE).items() if path == "science/map.fits"]
        advance(session, models.PhysicalCopy, [bad.id], to=PhysicalCopyStatus.CORRUPT, because="rot", by="a test")
        assert len(archive_lost(session, [run_id])) == 1
    damage(reductions.observatory.directory(ARCHIVE) / bad.path)
    reductions.archive()
    delete(reductions, run_id)
    fetch(reductions, run_id)
    check(reductions, run_id)


# What a fetch leaves that failed for good, or that nobody wants any more


def leave_what_is_unfinished(reductions: Reductions, run_id: int) -> None:
    """Files of workers that died in the middle, of each product and in the inbox of one."""
    disk = reductions.observatory.directory(HOME)
    copies = reductions.copies(run_id, HOME)
    assert {copy.status for copy in copies.values()} == {PhysicalCopyStatus.WRITING}
    for path in (disk / copy.path for copy in copies.values()):
        path.with_name(f"{path.name}.partial-1-dead").write_bytes(b"half")
    (disk / f"transfer/product-{copies['science/map.fits'].id}").mkdir(parents=True)
    (disk / f"transfer/product-{copies['science/map.fits'].id}/map.fits").write_bytes(b"half")


def check_that_nothing_is_left(reductions: Reductions, run_id: int) -> None:
    assert reductions.copies(run_id, HOME) == {}
    assert [path for path in reductions.observatory.directory(HOME).rglob("*") if path.is_file()] == []
    assert list((reductions.observatory.directory(HOME) / "transfer").iterdir()) == []
    assert tidy_up(reductions.observatory) == 0


def begun(reductions: Reductions) -> int:
    """A run whose products were to come back, and for which there is no room."""
    run_id = archived(reductions)
    with transaction(reductions.engine) as session:
        find(session, LOCATION, HOME).free_space_reserve_bytes = 10**18
    ask(reductions, run_id)
    reductions.observatory.do(Operation.STAGING)
    leave_what_is_unfinished(reductions, run_id)
    assert tidy_up(reductions.observatory) == 0
    with transaction(reductions.engine) as session:
        find(session, LOCATION, HOME).free_space_reserve_bytes = 0
    return run_id


def test_a_fetch_that_was_cancelled_leaves_neither_rows_nor_files(reductions: Reductions) -> None:
    run_id = begun(reductions)
    cancel(reductions.observatory)
    assert tidy_up(reductions.observatory) == len(FILES) + 1
    check_that_nothing_is_left(reductions, run_id)
    fetch(reductions, run_id)
    check(reductions, run_id)


def test_a_fetch_that_failed_for_good_leaves_neither_rows_nor_files(reductions: Reductions) -> None:
    run_id = begun(reductions)
    for path in (*FILES, "science/cube.zarr/0.0"):
        damage(reductions.observatory.directory(ARCHIVE) / f"products/maps/grid/source=M17/{run_id}" / path)
    fetch(reductions, run_id)
    assert {job.status for job in jobs(reductions)} == {Status.FAILED}
    assert tidy_up(reductions.observatory) == len(FILES) + 1
    check_that_nothing_is_left(reductions, run_id)


def test_nobody_fetches_what_is_being_removed_and_what_is_wanted_again_is_not_removed(reductions: Reductions) -> None:
    run_id = begun(reductions)
    cancel(reductions.observatory)
    location_id = reductions.observatory.location_id(HOME)
    with transaction(reductions.engine) as session:
        chosen = choose_given_up(session, location_id, by="manager", lease=timedelta(minutes=1))
    ask(reductions, run_id)
    reductions.observatory.do(Operation.STAGING)
    waiting = [job for job in jobs(reductions) if job.status is Status.PENDING]
    assert len(waiting) == len(chosen) == len(FILES) + 1
    assert all("has a copy there that is unfinished, and being removed" in (job.failure or "") for job in waiting)
    discard(reductions.observatory.worker, chosen)
    fetch(reductions, run_id)
    reductions.observatory.directory(HOME).joinpath("transfer").rename(reductions.observatory.root / "of the dead")
    check(reductions, run_id)


def move(reductions: Reductions, copies: list[models.PhysicalCopy], to: PhysicalCopyStatus) -> None:
    with transaction(reductions.engine) as session:
        advance(session, models.PhysicalCopy, [one.id for one in copies], to=to, because="a test", by="a test")


def damage_at_home(reductions: Reductions, run_id: int) -> None:
    move(reductions, list(reductions.copies(run_id, HOME).values()), PhysicalCopyStatus.CORRUPT)
    damage(reductions.products(run_id) / "science/map.fits")


@pytest.mark.parametrize("asked_by", ["a run", "the manager"])
def test_a_repair_that_failed_is_told_of_and_tried_again_and_what_was_there_is_kept(
    sites: Reductions, asked_by: str
) -> None:
    """Its only other copy is bad by then, and later a third one is back."""
    run_id = sites.make({"science/map.fits": b"map"})
    sites.archive()
    fetch(sites, run_id, "cologne/second")
    [third] = sites.copies(run_id, "cologne/second").values()
    move(sites, [third], PhysicalCopyStatus.MISSING)
    damage_at_home(sites, run_id)
    damage(archived_file(sites, run_id, "science/map.fits"))
    if asked_by == "a run":
        ask(sites, run_id)
    else:
        with transaction(sites.engine) as session:
            assert repair(session) == 1
    while sites.observatory.do(Operation.STAGING):
        pass
    assert [job.status for job in jobs(sites)] == [Status.COMPLETED, Status.FAILED]
    assert tidy_up(sites.observatory) == 1
    [left] = sites.copies(run_id, HOME).values()
    left_bytes = (sites.observatory.directory(HOME) / left.path).read_bytes()
    assert (left.status, left_bytes) == (PhysicalCopyStatus.CORRUPT, bytes(3))
    [told] = alerts(sites)
    assert told.startswith(f"1 product, made at {HOME} and damaged or lost there, cannot be brought back, such as: ")

    move(sites, [third], PhysicalCopyStatus.DELETED)
    with transaction(sites.engine) as session:
        place = {"data_location_id": third.data_location_id, "path": third.path}
        session.add(copy := models.DataProductPhysicalCopy(data_product_id=third.data_product_id, **place))
        session.flush()
        to = PhysicalCopyStatus.PRESENT
        advance(session, models.PhysicalCopy, [copy.id], to=to, because="it was found", by="an operator")
        assert repair(session) == 0, "not again at once"
        yesterday = sa.func.now() - timedelta(days=1)
        session.execute(sa.update(models.StagingJob).values(created_at=yesterday))
    with transaction(sites.engine) as session:
        assert (repair(session), repair(session)) == (1, 0)
    assert alerts(sites) == [told], "it is not mended yet"
    while sites.observatory.do(Operation.STAGING):
        pass
    [home] = sites.copies(run_id, HOME).values()
    assert (home.status, sites.products(run_id).joinpath("science/map.fits").read_bytes()) == (to, b"map")
    assert alerts(sites) == []


def test_what_a_run_asked_for_in_vain_is_mended_once_something_sound_is_there(reductions: Reductions) -> None:
    run_id = reductions.make({"science/map.fits": b"map"})
    reductions.archive()
    [archived_copy] = reductions.copies(run_id, ARCHIVE).values()
    move(reductions, [archived_copy], PhysicalCopyStatus.MISSING)
    move(reductions, list(reductions.copies(run_id, HOME).values()), PhysicalCopyStatus.CORRUPT)
    [job] = fetch(reductions, run_id)
    assert (job.status, job.is_repair) == (Status.FAILED, False)
    with transaction(reductions.engine) as session:
        assert repair(session) == 0
        believe(session, sa.select(models.PhysicalCopy).filter_by(id=archived_copy.id), by="an operator")
    with transaction(reductions.engine) as session:
        assert (repair(session), repair(session)) == (1, 0)
    reductions.observatory.do(Operation.STAGING)
    assert [copy.status for copy in reductions.copies(run_id, HOME).values()] == [PhysicalCopyStatus.PRESENT]


# Copies that cannot be read


def is_verified(reductions: Reductions, run_id: int, at: str) -> bool:
    copy = reductions.copies(run_id, at)["science/map.fits"]
    assert copy.status is PhysicalCopyStatus.PRESENT
    return copy.verified_at is not None


@pytest.mark.parametrize("to", ["cologne/second", "us/hpc"], ids=["where it is", "along a route"])
def test_another_copy_is_taken_where_one_cannot_be_read(sites: Reductions, to: str) -> None:
    run_id = sites.make({**FILES, **TREE}, executable="science/cube.zarr/run.sh")
    sites.archive()
    for origin in (HOME, ARCHIVE):
        sites.observatory.add_route(origin, "us/hpc", RouteType.CUSTOM)
    ask(sites, run_id, to)
    file = sites.products(run_id) / "science/map.fits"
    with forbidden(file):
        sites.observatory.do(Operation.STAGING)
    assert (is_verified(sites, run_id, HOME), is_verified(sites, run_id, ARCHIVE)) == (False, True)
    assert sites.copies(run_id, HOME)["science/map.fits"].trouble_count == 0, "it counts what its own location reads"
    with forbidden(file):
        [failure] = {job.failure for job in jobs(sites) if job.failure}
        assert failure.endswith(
            "map.fits at location cologne/ramses cannot be read (Permission denied); check its permissions, and the "
            "disk that it is on. It is read again where it lies; another copy is taken meanwhile, if there is one. "
            "It is tried again."
        )
        sites.observatory.do(Operation.STAGING)
    check(sites, run_id, to)
    sites.observatory.read_again()
    assert is_verified(sites, run_id, HOME)


def test_no_copy_is_doubted_while_its_location_cannot_be_read(sites: Reductions) -> None:
    run_id = sites.make(FILES)
    ask(sites, run_id, "cologne/second")
    with forbidden(sites.observatory.directory(HOME)):
        sites.observatory.do(Operation.STAGING)
    assert is_verified(sites, run_id, HOME)
    assert {job.status for job in fetch(sites, run_id, "cologne/second")} == {Status.COMPLETED}


def test_what_cannot_be_read_where_a_product_gets_to_is_removed(reductions: Reductions) -> None:
    run_id = archived(reductions)
    left = reductions.products(run_id) / "science/map.fits"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(bytes(len(FILES["science/map.fits"])))
    ask(reductions, run_id)
    with forbidden(left):
        reductions.observatory.do(Operation.STAGING)
    assert {job.failure for job in jobs(reductions)} == {None}
    left.chmod(0o444)
    check(reductions, run_id)


def alerts(reductions: Reductions) -> list[str]:
    """What people are told of repairs."""
    with transaction(reductions.engine) as session:
        return [one.sentence for one in conditions(session, late=START) if one.key.startswith("repairs ")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    with ssh_server(tmp_path) as found:
        yield found


@pytest.mark.parametrize("origin", [HOME, ARCHIVE])
def test_products_come_from_another_site_along_a_route(sites: Reductions, server: SshServer, origin: str) -> None:
    run_id = sites.make({**FILES, **TREE}, executable="science/cube.zarr/run.sh")
    sites.archive()
    delete(sites, run_id, {HOME: ARCHIVE, ARCHIVE: HOME}[origin])
    sites.observatory.add_route("cologne", "us", method=Mover.RSYNC)
    with transaction(sites.engine) as session:
        session.execute(sa.update(table_of(models.DiskDataLocation)).values(host=server.host))
    ask(sites, run_id, "us/hpc")
    worker = replace(sites.observatory.worker, rsync=Rsync(server.shell))
    for job_id in sites.observatory.schedule(Operation.STAGING):
        stage(worker, job_id)
    assert {job.failure for job in jobs(sites)} == {None}
    check(sites, run_id, "us/hpc")
    assert not any((sites.observatory.directory("us/hpc") / "transfer").iterdir())


def test_what_arrives_damaged_twice_is_read_where_it_comes_from_and_is_damaged_if_that_says_so(
    sites: Reductions,
) -> None:
    run_id = sites.make(FILES)
    sites.observatory.add_route("cologne", "us", method=Mover.RSYNC)
    damage(sites.products(run_id) / "science/map.fits")
    ask(sites, run_id, "us/hpc")
    sites.observatory.do(Operation.STAGING)
    [failure] = {job.failure for job in jobs(sites) if job.failure}
    assert "cologne/ramses arrives at us/hpc with other bytes than registered, also when sent again" in failure
    assert sites.copies(run_id, HOME)["science/map.fits"].status is PhysicalCopyStatus.PRESENT
    sites.observatory.read_again()
    fetch(sites, run_id, "us/hpc")
    assert sites.copies(run_id, HOME)["science/map.fits"].status is PhysicalCopyStatus.CORRUPT
    assert {job.status for job in jobs(sites)} == {Status.COMPLETED, Status.FAILED}


def test_what_no_route_leads_from_is_told(sites: Reductions) -> None:
    run_id = sites.make(FILES)
    [failure] = {(job.failure or "").partition(" has no copy ")[2] for job in fetch(sites, run_id, "us/hpc")}
    assert failure == (
        "that could be brought to us/hpc: that at cologne/ramses is present. No direct route leads from there: "
        "`ccat route add`, or `ccat trigger maps --step grid --force` has it made again."
    )


def test_where_there_is_no_room_it_is_waited_for(reductions: Reductions) -> None:
    run_id = archived(reductions)
    with transaction(reductions.engine) as session:
        find(session, LOCATION, HOME).free_space_reserve_bytes = 10**18
    ask(reductions, run_id)
    reductions.observatory.do(Operation.STAGING)
    assert all("is full: needs" in (job.failure or "") for job in jobs(reductions))
    with transaction(reductions.engine) as session:
        find(session, LOCATION, HOME).free_space_reserve_bytes = 0
    fetch(reductions, run_id)
    check(reductions, run_id)


# Which copy is fetched


def place(number: int, site: int) -> Place:
    return Place(location_id=number, site_id=site, site=f"site-{site}")


def source(
    number: int, site: int, kind: LocationType = LocationType.PROCESSING, *, s3: bool = False, **values: bool
) -> Source:
    storage = StorageType.S3 if s3 else StorageType.DISK
    return Source(copy_id=number, place=place(number, site), type=kind, storage=storage, **values)


def doubtful(number: int, site: int) -> Source:
    return source(number, site, is_verified=False, is_doubted=True)


def unread(number: int, site: int) -> Source:
    return source(number, site, is_verified=False)


def going(number: int, site: int) -> Source:
    return replace(source(number, site), is_to_go=True)


def route(number: int, origin: int, to: int, **values: Any) -> Route:
    kinds: dict[str, Any] = {"type": RouteType.DIRECT, "package_bytes": 1, "package_wait": timedelta()}
    return Route(id=number, origin_site_id=origin, destination_site_id=to, **(kinds | values))


LTA = LocationType.LONG_TERM_ARCHIVE
DIRECT = route(1, 8, 7)


@pytest.mark.parametrize(
    ("sources", "chosen"),
    [
        ([source(1, 7, LTA), source(2, 7)], Fetch(source(2, 7), None)),
        ([source(1, 8), source(2, 7, LTA)], Fetch(source(2, 7, LTA), None)),
        ([source(1, 8), source(2, 9, LTA, s3=True)], Fetch(source(2, 9, LTA, s3=True), None)),
        ([source(1, 8), source(2, 6)], Fetch(source(2, 6), None)),
        ([source(1, 8), source(2, 9)], Fetch(source(1, 8), DIRECT)),
        ([going(1, 7), source(2, 7, LTA)], Fetch(source(2, 7, LTA), None)),
        ([source(1, 8), going(2, 7)], Fetch(going(2, 7), None)),
        ([source(2, 9)], None),
        ([], None),
    ],
    ids=["disk first", "own site", "far store", "seen", "by a route", "to stay", "near", "no way", "nothing"],
)
def test_the_nearest_copy_is_fetched(sources: list[Source], chosen: Fetch | None) -> None:
    assert fetch_from(sources, 7, seen={6}, routes=[DIRECT, route(2, 7, 9)]) == chosen


@pytest.mark.parametrize(
    ("sources", "chosen", "waits"),
    [
        ([doubtful(1, 7), source(2, 8)], source(2, 8), False),
        ([doubtful(1, 7), source(2, 9)], doubtful(1, 7), False),
        ([doubtful(1, 8), source(2, 9)], doubtful(1, 8), True),
        ([doubtful(1, 7), unread(2, 8)], unread(2, 8), False),
        ([unread(1, 7), source(2, 8)], source(2, 8), False),
        ([doubtful(1, 8), unread(2, 8)], unread(2, 8), False),
    ],
    ids=["another", "read where it is", "not sent", "unread before", "verified before", "unread is sent"],
)
def test_what_is_in_doubt_is_taken_last_and_is_not_sent(sources: list[Source], chosen: Source, *, waits: bool) -> None:
    found = fetch_from(sources, 7, seen=(), routes=[DIRECT])
    assert found is not None
    assert (found.source, found.waits) == (chosen, waits)


def test_a_custom_route_is_that_of_its_location_and_a_relay_leads_nowhere_at_once() -> None:
    custom = route(3, 8, 7, type=RouteType.CUSTOM, origin_id=1, destination_id=5)
    relay = route(0, 8, 7, type=RouteType.RELAY, via_site_id=9)
    assert fetch_from([source(1, 8)], 7, seen=(), routes=[DIRECT, custom, relay]) == Fetch(source(1, 8), custom)
    assert fetch_from([source(2, 8)], 7, seen=(), routes=[DIRECT, custom, relay]) == Fetch(source(2, 8), DIRECT)
    assert fetch_from([source(2, 8)], 7, seen=(), routes=[custom, relay]) is None


FILE = st.builds(
    TreeFile,
    st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), min_size=1),
    st.sampled_from([0o444, 0o555]),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)


@given(st.lists(FILE, unique_by=lambda file: file.path))
def test_a_listing_says_again_what_it_was_made_of(files: list[TreeFile]) -> None:
    assert sorted(listed(tree_listing(files)), key=repr) == sorted(files, key=repr)
