"""Products go to the archive of another site by the routes of raw packages, and arrive whole whatever happens."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer.backends.movers import Rsync
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.products.moving import move_products
from ccat_data_transfer.verbs.products.retrying import archive_again
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.trees import TreeFile, tree_listing
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import LocationType, Mover, PhysicalCopyStatus, RouteType, Status
from tests.ssh_server import SshServer, ssh_server
from tests.transfer.reductions import Reductions
from tests.transfer.support import START, Observatory, digest, say
from tests.transfer.test_fetching import damage, delete
from tests.transfer.test_given_up import tidy_up
from tests.transfer.test_products import files_below

FAR, ARCHIVE, BUFFER = "us/hpc", "cologne/lta", "cologne/buffer"
FILES = {"science/map.fits": b"m" * 1_500_000, "qa/noise.json": b"{}", "plots/map.png": b""}
TREE = {"science/cube.zarr/0.0": b"zero", "science/cube.zarr/deep/1.0": b"one", "science/cube.zarr/run.sh": b"#!"}
MODES = {"0.0": 0o444, "deep/1.0": 0o444, "run.sh": 0o555}


@pytest.fixture
def far_maps(far: Observatory) -> Iterator[Reductions]:
    """Maps that are made at a site without an archive."""
    far.add_location(FAR, LocationType.PROCESSING)
    made = Reductions(far, FAR)
    yield made
    made.end()


def make(far_maps: Reductions) -> int:
    return far_maps.make({**FILES, **TREE}, executable="science/cube.zarr/run.sh")


def check_archived(far_maps: Reductions, run_id: int) -> None:
    [transfer] = far_maps.transfers(run_id)
    assert (transfer.status, transfer.failure, transfer.next_id) == (Status.COMPLETED, None, None)
    there = far_maps.observatory.directory(ARCHIVE) / "products/maps/grid/source=M17" / str(run_id)
    assert files_below(there) == {**FILES, **TREE}
    listing = (there.with_name(f"{run_id}.trees") / "science/cube.zarr.listing").read_bytes()
    inside = {path.removeprefix("science/cube.zarr/"): data for path, data in TREE.items()}
    assert listing == tree_listing(TreeFile(path, MODES[path], digest(data)[7:]) for path, data in inside.items())
    copies = far_maps.copies(run_id, ARCHIVE)
    assert copies.keys() == {*FILES, "science/cube.zarr"}
    assert {copy.status for copy in copies.values()} == {PhysicalCopyStatus.PRESENT}
    assert far_maps.observatory.leftovers() == []
    assert not any(far_maps.observatory.root.glob("*/*/transfer/*"))


def direct(far_maps: Reductions) -> Observatory:
    """The observatory, with a route from where maps are made to the site of the archive."""
    far_maps.observatory.add_route("us", "cologne", method=Mover.RSYNC)
    return far_maps.observatory


def test_products_go_over_the_buffer_of_the_site_of_their_archive(far_maps: Reductions) -> None:
    observatory, run_id = direct(far_maps), make(far_maps)
    assert [observatory.aim(), observatory.do(Operation.ARCHIVING_PRODUCTS)] == [1, 0]
    [waiting] = far_maps.transfers(run_id)
    assert waiting.next_id == observatory.location_id(BUFFER)
    assert "to archive" in say(observatory, "transfer", "status")
    assert f"{FAR} → {BUFFER} → {ARCHIVE}" in say(observatory, "transfer", "status")
    assert observatory.do(Operation.TRANSFERRING_PRODUCTS) == 1
    [there] = far_maps.transfers(run_id)
    assert (there.status, there.origin_id, there.next_id) == (Status.PENDING, waiting.next_id, None)
    assert far_maps.copies(run_id, BUFFER).keys() == {*FILES, "science/cube.zarr"}
    assert observatory.do(Operation.ARCHIVING_PRODUCTS) == 1
    check_archived(far_maps, run_id)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    with ssh_server(tmp_path) as found:
        yield found


def test_products_and_trees_cross_with_rsync_over_ssh(far_maps: Reductions, server: SshServer) -> None:
    observatory, run_id = direct(far_maps), make(far_maps)
    with transaction(far_maps.engine) as session:
        session.execute(sa.update(table_of(models.DiskDataLocation)).values(host=server.host))
    observatory.aim()
    worker = replace(observatory.worker, rsync=Rsync(server.shell))
    [transfer_id] = observatory.schedule(Operation.TRANSFERRING_PRODUCTS)
    move_products(worker, transfer_id)
    far_maps.archive()
    check_archived(far_maps, run_id)


@pytest.mark.parametrize("method", [Mover.COPY, Mover.RSYNC])
def test_over_a_relay_products_go_from_buffer_to_buffer(far_maps: Reductions, method: Mover) -> None:
    observatory, run_id = far_maps.observatory, make(far_maps)
    observatory.add_location("santiago/buffer", LocationType.BUFFER)
    observatory.add_route("us", "cologne", RouteType.RELAY, via="santiago", method=method)
    observatory.add_route("santiago", "cologne", method=Mover.RSYNC)
    far_maps.archive()
    check_archived(far_maps, run_id)
    for buffer in ("santiago/buffer", BUFFER):
        assert far_maps.copies(run_id, buffer).keys() == {*FILES, "science/cube.zarr"}


def test_a_custom_route_leads_straight_into_the_archive(far_maps: Reductions) -> None:
    observatory, run_id = direct(far_maps), make(far_maps)
    observatory.add_route(FAR, ARCHIVE, RouteType.CUSTOM)
    far_maps.archive()
    check_archived(far_maps, run_id)
    assert far_maps.copies(run_id, BUFFER) == {}


def test_without_a_route_it_is_said_and_goes_on_once_there_is_one(far_maps: Reductions) -> None:
    run_id = make(far_maps)
    far_maps.archive()
    [stuck] = far_maps.transfers(run_id)
    assert (stuck.status, stuck.destination_id) == (Status.PENDING, None)
    assert f"no active long-term archive that products of location {FAR} can get to" in (stuck.failure or "")
    direct(far_maps)
    far_maps.archive()
    check_archived(far_maps, run_id)


def test_a_route_that_is_taken_out_of_use_leaves_them_waiting_where_they_are(far_maps: Reductions) -> None:
    observatory, run_id = direct(far_maps), make(far_maps)
    observatory.aim()
    with transaction(far_maps.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(active=False))
    observatory.aim()
    assert observatory.do(Operation.TRANSFERRING_PRODUCTS) == 0
    with transaction(far_maps.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(active=True))
    far_maps.archive()
    check_archived(far_maps, run_id)


def test_what_was_brought_in_part_is_gone_on_with(far_maps: Reductions) -> None:
    observatory, run_id = direct(far_maps), make(far_maps)
    inbox = observatory.directory(BUFFER) / f"transfer/run-{run_id}/science"
    inbox.mkdir(parents=True)
    (inbox / "map.fits").write_bytes(FILES["science/map.fits"][:1_000_000])
    far_maps.archive()
    check_archived(far_maps, run_id)


def test_what_came_with_other_bytes_is_sent_again(far_maps: Reductions) -> None:
    observatory, run_id = direct(far_maps), make(far_maps)
    inbox = observatory.directory(BUFFER) / f"transfer/run-{run_id}/science"
    (inbox / "cube.zarr").mkdir(parents=True)
    (inbox / "map.fits").write_bytes(bytes(len(FILES["science/map.fits"])))
    (inbox / "cube.zarr/0.0").write_bytes(b"ZERO")
    far_maps.archive()
    check_archived(far_maps, run_id)
    assert {copy.status for copy in far_maps.copies(run_id, FAR).values()} == {PhysicalCopyStatus.PRESENT}


@pytest.mark.parametrize("how", [damage, Path.unlink], ids=["damaged", "gone"])
def test_what_is_bad_where_it_was_made_is_marked_and_the_rest_is_archived(
    far_maps: Reductions, how: Callable[[Path], None]
) -> None:
    direct(far_maps)
    run_id = make(far_maps)
    file = far_maps.products(run_id) / "science/map.fits"
    how(file)
    far_maps.observatory.aim()
    far_maps.observatory.do(Operation.TRANSFERRING_PRODUCTS)
    assert far_maps.copies(run_id, FAR)["science/map.fits"].status is PhysicalCopyStatus.PRESENT
    assert far_maps.observatory.read_again() == 1
    far_maps.archive()
    [transfer] = far_maps.transfers(run_id)
    assert transfer.status is Status.FAILED
    assert f"Of run {run_id} not everything is archived: science/map.fits" in (transfer.failure or "")
    bad = far_maps.copies(run_id, FAR)["science/map.fits"].status
    assert bad is {damage: PhysicalCopyStatus.CORRUPT, Path.unlink: PhysicalCopyStatus.MISSING}[how]
    archived = [path for path, copy in far_maps.copies(run_id, ARCHIVE).items() if copy.status == "present"]
    assert set(archived) == {*FILES, "science/cube.zarr"} - {"science/map.fits"}

    file.unlink(missing_ok=True)
    file.write_bytes(FILES["science/map.fits"])
    with transaction(far_maps.engine) as session:
        archive_again(session, [run_id], by="an operator")
    assert far_maps.observatory.read_again() == 1, "what was restored is read before it is sent"
    far_maps.archive()
    check_archived(far_maps, run_id)


@pytest.mark.parametrize("path", ["science/map.fits", "science/cube.zarr/0.0"])
@pytest.mark.parametrize("how", [damage, Path.unlink], ids=["damaged", "gone"])
def test_what_is_bad_in_the_buffer_is_sent_again_from_where_it_was_made(
    far_maps: Reductions, how: Callable[[Path], None], path: str
) -> None:
    observatory, run_id = direct(far_maps), make(far_maps)
    observatory.aim()
    observatory.do(Operation.TRANSFERRING_PRODUCTS)
    how(observatory.directory(BUFFER) / "products/maps/grid/source=M17" / str(run_id) / path)
    observatory.do(Operation.ARCHIVING_PRODUCTS)
    [failure] = {one.failure for one in far_maps.transfers(run_id)}
    assert f"Products of run {run_id} have to be sent again from where they were made: " in (failure or "")
    far_maps.archive()
    check_archived(far_maps, run_id)


def test_what_has_come_to_a_buffer_stays_there_while_the_rest_is_sent_again(far_maps: Reductions) -> None:
    observatory, run_id = direct(far_maps), make(far_maps)
    observatory.aim()
    observatory.do(Operation.TRANSFERRING_PRODUCTS)
    damage(observatory.directory(BUFFER) / "products/maps/grid/source=M17" / str(run_id) / "science/map.fits")
    observatory.do(Operation.ARCHIVING_PRODUCTS)
    observatory.aim()
    [back] = far_maps.transfers(run_id)
    ways = [observatory.location_id(one) for one in (FAR, BUFFER)]
    assert [back.origin_id, back.next_id] == ways
    observatory.keep(BUFFER, days=0)
    assert observatory.make_room(BUFFER) == 0
    far_maps.archive()
    check_archived(far_maps, run_id)
    assert observatory.make_room(BUFFER) == len({*FILES, "science/cube.zarr"})


@pytest.mark.parametrize("is_at_home", [True, False])
def test_what_was_deleted_in_the_buffer_is_sent_again_if_it_is_still_where_it_was_made(
    far_maps: Reductions, *, is_at_home: bool
) -> None:
    observatory, run_id = direct(far_maps), make(far_maps)
    observatory.aim()
    observatory.do(Operation.TRANSFERRING_PRODUCTS)
    delete(far_maps, run_id, BUFFER)
    if not is_at_home:
        delete(far_maps, run_id, FAR)
    observatory.do(Operation.ARCHIVING_PRODUCTS)
    [transfer] = far_maps.transfers(run_id)
    if is_at_home:
        assert f"Products of run {run_id} have to be sent again from where they were made: " in (transfer.failure or "")
        far_maps.archive()
        check_archived(far_maps, run_id)
    else:
        assert transfer.status is Status.FAILED
        assert "science/map.fits at location cologne/buffer is missing" in (transfer.failure or "")


def test_a_buffer_without_room_says_so_and_takes_them_when_it_has(far_maps: Reductions) -> None:
    observatory, run_id = direct(far_maps), make(far_maps)
    with transaction(far_maps.engine) as session:
        find(session, LOCATION, BUFFER).free_space_reserve_bytes = 10**18
    observatory.aim()
    observatory.do(Operation.TRANSFERRING_PRODUCTS)
    assert "is full: needs" in (far_maps.transfers(run_id)[0].failure or "")
    with transaction(far_maps.engine) as session:
        find(session, LOCATION, BUFFER).free_space_reserve_bytes = 0
    far_maps.archive()
    check_archived(far_maps, run_id)


def lose_in_vain(observatory: Observatory, buffer: str) -> None:
    """Let products come to a buffer only at the sixth time."""
    place = observatory.directory(buffer)
    place.rename(place.with_name("unmounted"))
    for _ in range(5):
        observatory.do(Operation.TRANSFERRING_PRODUCTS)
    assert len(tried_in_vain(observatory)) == 1
    place.with_name("unmounted").rename(place)
    assert observatory.do(Operation.TRANSFERRING_PRODUCTS) == 1


def tried_in_vain(observatory: Observatory) -> list[str]:
    with transaction(observatory.engine) as session:
        return [one.sentence for one in conditions(session, late=START) if one.key == "products tried in vain"]


def test_what_was_in_the_way_is_over_once_products_are_at_the_next_place(far_maps: Reductions) -> None:
    observatory, run_id = far_maps.observatory, make(far_maps)
    observatory.add_location("santiago/buffer", LocationType.BUFFER)
    observatory.add_route("us", "cologne", RouteType.RELAY, via="santiago", method=Mover.RSYNC)
    observatory.add_route("santiago", "cologne", method=Mover.RSYNC)
    observatory.aim()
    for buffer in ("santiago/buffer", BUFFER):
        lose_in_vain(observatory, buffer)
        assert tried_in_vain(observatory) == []
    far_maps.archive()
    check_archived(far_maps, run_id)


def test_a_buffer_that_loses_products_time_and_again_is_told_of(far_maps: Reductions) -> None:
    observatory, run_id = direct(far_maps), make(far_maps)
    observatory.aim()
    for _ in range(5):
        assert tried_in_vain(observatory) == []
        observatory.do(Operation.TRANSFERRING_PRODUCTS)
        (observatory.directory(BUFFER) / far_maps.copies(run_id, BUFFER)["qa/noise.json"].path).unlink()
        observatory.do(Operation.ARCHIVING_PRODUCTS)
    assert len(tried_in_vain(observatory)) == 1
    far_maps.archive()
    check_archived(far_maps, run_id)


def begun(far_maps: Reductions) -> int:
    """Maps that were to come to a buffer without room, and do not count any more."""
    observatory, run_id = direct(far_maps), make(far_maps)
    with transaction(far_maps.engine) as session:
        find(session, LOCATION, BUFFER).free_space_reserve_bytes = 10**18
    observatory.aim()
    observatory.do(Operation.TRANSFERRING_PRODUCTS)
    with transaction(far_maps.engine) as session:
        find(session, LOCATION, BUFFER).free_space_reserve_bytes = 0
    assert {copy.status for copy in far_maps.copies(run_id, BUFFER).values()} == {PhysicalCopyStatus.WRITING}
    far_maps.withdraw(run_id)
    return run_id


def test_what_was_begun_at_a_buffer_is_ended_there_though_it_does_not_count_any_more(far_maps: Reductions) -> None:
    run_id = begun(far_maps)
    assert far_maps.observatory.aim() == 0
    far_maps.archive()
    far_maps.observatory.aim()
    [transfer] = far_maps.transfers(run_id)
    assert transfer.status is Status.CANCELLED
    assert far_maps.copies(run_id, BUFFER) == far_maps.copies(run_id, ARCHIVE) == {}


def test_what_was_begun_at_a_buffer_that_nothing_leads_to_any_more_is_removed_there(far_maps: Reductions) -> None:
    run_id, observatory = begun(far_maps), far_maps.observatory
    inbox = observatory.directory(BUFFER) / f"transfer/run-{run_id}/science"
    inbox.mkdir(parents=True)
    (inbox / "map.fits").write_bytes(b"half")
    with transaction(far_maps.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(active=False))
    observatory.aim()
    assert tidy_up(observatory) == 0
    observatory.aim()
    [transfer] = far_maps.transfers(run_id)
    assert transfer.status is Status.CANCELLED
    assert tidy_up(observatory) == len(FILES) + 1
    assert far_maps.copies(run_id, BUFFER) == {}
    assert list((observatory.directory(BUFFER) / "transfer").iterdir()) == []
    assert tidy_up(observatory) == 0


def test_what_failed_at_a_buffer_keeps_what_it_brought_for_whoever_takes_it_up(far_maps: Reductions) -> None:
    run_id = begun(far_maps)
    with transaction(far_maps.engine) as session:
        transfers = session.scalars(sa.select(models.ProductArchiveTransfer.id)).all()
        for to in (Status.SCHEDULED, Status.FAILED):
            advance(session, models.ProductArchiveTransfer, transfers, to=to, because="a test", by="a test")
    assert tidy_up(far_maps.observatory) == 0
    assert far_maps.copies(run_id, BUFFER) != {}


def test_what_came_to_a_buffer_goes_from_there_once_it_is_archived(far_maps: Reductions) -> None:
    observatory, run_id = direct(far_maps), make(far_maps)
    observatory.keep(BUFFER, days=0)
    observatory.aim()
    observatory.do(Operation.TRANSFERRING_PRODUCTS)
    assert observatory.mark(BUFFER) == 0
    far_maps.archive()
    assert observatory.make_room(BUFFER) == len(FILES) + 1
    assert far_maps.copies(run_id, BUFFER) == {}
    assert files_below(observatory.directory(BUFFER) / "products") == {}
    check_archived(far_maps, run_id)


def test_what_was_begun_in_an_archive_that_products_do_not_go_to_any_more_is_removed(far_maps: Reductions) -> None:
    observatory, run_id = far_maps.observatory, make(far_maps)
    observatory.add_route(FAR, ARCHIVE, RouteType.CUSTOM)
    observatory.aim()
    with transaction(far_maps.engine) as session:
        find(session, LOCATION, ARCHIVE).free_space_reserve_bytes = 10**18
    observatory.do(Operation.ARCHIVING_PRODUCTS)
    begun = far_maps.copies(run_id, ARCHIVE)
    assert {copy.status for copy in begun.values()} == {PhysicalCopyStatus.WRITING}
    top = observatory.directory(ARCHIVE)
    half, whole = top / begun["science/map.fits"].path, top / begun["qa/noise.json"].path
    inside = top / begun["science/cube.zarr"].path / "0.0"
    for file in (half.with_name("map.fits.partial-1-dead"), whole, inside, inside.with_name("1.0.partial-1-dead")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"begun")
    assert tidy_up(observatory) == 0
    observatory.add_location("us/lta", LocationType.LONG_TERM_ARCHIVE)
    with transaction(far_maps.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(active=False))
    assert observatory.aim() == 1
    assert tidy_up(observatory) == len(FILES) + 1
    assert far_maps.copies(run_id, ARCHIVE) == {}
    assert files_below(top / "products").keys() == {str(whole.relative_to(top / "products"))}
    far_maps.archive()
    assert {copy.status for copy in far_maps.copies(run_id, "us/lta").values()} == {PhysicalCopyStatus.PRESENT}
    assert tidy_up(observatory) == 0
