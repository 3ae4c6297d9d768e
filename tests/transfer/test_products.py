"""The way of the products of runs into an archive."""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_data_transfer.errors import NothingToArchive
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.routing import Place, Route
from ccat_data_transfer.verbs.products.plan import NOWHERE, Aim, Archive, Network, aim_from
from ccat_data_transfer.verbs.products.retrying import archive_again, retry_failed_archiving
from ccat_data_transfer.verbs.scheduling import LANES, waiting
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.trees import TreeFile, tree_listing
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PhysicalCopyStatus, RouteType, Status, StorageType
from tests.transfer.object_store import ObjectStore, Road
from tests.transfer.reductions import Reductions
from tests.transfer.support import Observatory, digest, say

FILES = {"science/map.fits": b"m" * 1_500_000, "qa/noise.json": b"{}", "plots/map.png": b"", "science/.hidden": b"h"}
TREE = {"science/cube.zarr/0.0": b"zero", "science/cube.zarr/deep/1.0": b"one", "science/cube.zarr/.zattrs": b"{}"}


@pytest.fixture
def reductions(observatory: Observatory) -> Iterator[Reductions]:
    made = Reductions(observatory)
    yield made
    made.end()


def archived(reductions: Reductions, run_id: int, location: str = "cologne/lta") -> Path:
    return reductions.observatory.directory(location) / "products/maps/grid/source=M17" / str(run_id)


def files_below(top: Path) -> dict[str, bytes]:
    return {str(f.relative_to(top)): f.read_bytes() for f in top.rglob("*") if f.is_file()}


def test_the_products_of_a_run_end_in_the_archive_each_compared_and_read_back(reductions: Reductions) -> None:
    run_id = reductions.make(FILES)
    reductions.archive()

    [transfer] = reductions.transfers(run_id)
    assert (transfer.status, transfer.failure) == (Status.COMPLETED, None)
    there = archived(reductions, run_id)
    assert files_below(there) == FILES
    copies = reductions.copies(run_id, "cologne/lta")
    assert copies.keys() == FILES.keys()
    for path, copy in copies.items():
        file = there / path
        assert copy.status is PhysicalCopyStatus.PRESENT
        assert copy.path == f"products/maps/grid/source=M17/{run_id}/{path}"
        assert (copy.size_bytes, copy.checksum) == (len(FILES[path]), digest(FILES[path]))
        assert (copy.mtime_ns, copy.inode) == (file.stat().st_mtime_ns, file.stat().st_ino)
        assert copy.verified_at is not None
    assert reductions.observatory.leftovers() == []


def test_what_is_archived_explains_itself_in_the_same_bytes_each_time(reductions: Reductions) -> None:
    run_id = reductions.make({**FILES, **TREE})
    reductions.archive()
    sidecar = archived(reductions, run_id).with_name(f"{run_id}.json")
    first = sidecar.read_bytes()
    told = json.loads(first)

    run, software = told["run"], told["software"]
    assert (run["id"], run["pipeline"], run["step"], run["sub_group"]) == (run_id, "maps", "grid", {"source": "M17"})
    assert (software["name"], software["version"]) == ("gridder", "1.0")
    assert told["execution"]["attempt"] == 1
    assert {one["path"]: one["checksum"] for one in told["products"]} == {
        path: copy.checksum for path, copy in reductions.copies(run_id, "cologne/lta").items()
    }
    for copy in reductions.copies(run_id, "cologne/lta").values():
        lose(reductions, copy)
    again(reductions, run_id)
    assert sidecar.read_bytes() == first


def lose(reductions: Reductions, copy: models.PhysicalCopy) -> None:
    with transaction(reductions.engine) as session:
        session.execute(sa.update(models.PhysicalCopy).filter_by(id=copy.id).values(status=PhysicalCopyStatus.CORRUPT))


def again(reductions: Reductions, *run_ids: int) -> None:
    with transaction(reductions.engine) as session:
        archive_again(session, run_ids, by="an operator")
    reductions.archive()


def test_a_tree_is_archived_file_by_file_with_a_listing_whose_digest_is_that_of_the_product(
    reductions: Reductions,
) -> None:
    run_id = reductions.make({**TREE, "qa/noise.json": b"{}"})
    (reductions.products(run_id) / "science/cube.zarr/0.0").stat()
    reductions.archive()

    copy = reductions.copies(run_id, "cologne/lta")["science/cube.zarr"]
    there = archived(reductions, run_id)
    assert {
        f"science/cube.zarr/{path}": data for path, data in files_below(there / "science/cube.zarr").items()
    } == TREE
    listing = (there.with_name(f"{run_id}.trees") / "science/cube.zarr.listing").read_bytes()
    assert digest(listing) == copy.checksum
    paths = {path.removeprefix("science/cube.zarr/"): data for path, data in TREE.items()}
    assert listing == tree_listing(TreeFile(path, 0o444, digest(data)[7:]) for path, data in paths.items())
    assert (copy.size_bytes, copy.status) == (sum(map(len, TREE.values())), PhysicalCopyStatus.PRESENT)


@pytest.mark.usefixtures("s3_archive")
def test_products_and_trees_end_in_an_object_store_with_their_digests(
    reductions: Reductions, object_store: ObjectStore
) -> None:
    made = {**FILES, **TREE}
    run_id = reductions.make(made)
    reductions.archive()

    assert [one.status for one in reductions.transfers(run_id)] == [Status.COMPLETED]
    top = f"fyst/products/maps/grid/source=M17/{run_id}"
    beside = [f"{top}.json", f"{top}.trees/science/cube.zarr.listing"]
    assert object_store.list_keys() == sorted([*beside, *(f"{top}/{path}" for path in made)])
    for path, data in made.items():
        assert object_store.get(f"{top}/{path}") == data
        assert object_store.metadata(f"{top}/{path}")["sha256"] == digest(data)[7:]
    copies = reductions.copies(run_id, "cologne/s3")
    assert copies["science/cube.zarr"].checksum == digest(object_store.get(beside[1]))
    assert {copy.status for copy in copies.values()} == {PhysicalCopyStatus.PRESENT}


def test_a_store_that_is_away_is_waited_for_and_what_was_recorded_is_not_sent_again(
    reductions: Reductions, object_store: ObjectStore, s3_archive: Road
) -> None:
    run_id = reductions.make(FILES)
    reductions.observatory.aim()
    s3_archive.break_after(sent=100_000)
    reductions.observatory.do(Operation.ARCHIVING_PRODUCTS)
    [transfer] = reductions.transfers(run_id)
    assert (transfer.status, transfer.trouble_count) == (Status.PENDING, 1)
    assert "check the store and the way to it. It is tried again." in (transfer.failure or "")

    s3_archive.mend()
    reductions.archive()
    assert [one.status for one in reductions.transfers(run_id)] == [Status.COMPLETED]
    assert object_store.unfinished() == []


@pytest.mark.parametrize("tree", [False, True], ids=["file", "tree"])
def test_a_changed_and_a_vanished_product_are_named_and_marked_and_the_others_are_archived(
    reductions: Reductions, *, tree: bool
) -> None:
    run_id = reductions.make({**FILES, **TREE})
    changed = "science/cube.zarr" if tree else "science/map.fits"
    file = reductions.products(run_id) / (f"{changed}/0.0" if tree else changed)
    whole = file.read_bytes()
    file.write_bytes(bytes(len(whole)))
    (reductions.products(run_id) / "qa/noise.json").unlink()
    reductions.archive()

    [transfer] = reductions.transfers(run_id)
    assert transfer.status is Status.FAILED
    assert f"Of run {run_id} not everything is archived: " in (transfer.failure or "")
    assert f"{changed} at location cologne/ramses has sha256:" in (transfer.failure or "")
    assert "qa/noise.json at location cologne/ramses is missing" in (transfer.failure or "")
    assert f"`ccat run archive {run_id}`" in (transfer.failure or "")
    made, there = reductions.copies(run_id, "cologne/ramses"), reductions.copies(run_id, "cologne/lta")
    assert made[changed].status is PhysicalCopyStatus.CORRUPT
    assert made["qa/noise.json"].status is PhysicalCopyStatus.MISSING
    present = {path for path, copy in there.items() if copy.status is PhysicalCopyStatus.PRESENT}
    assert present == {*FILES, "science/cube.zarr"} - {changed, "qa/noise.json"}

    assert "not everything is archived" in say(reductions.observatory, "transfer", "status")
    file.write_bytes(whole)
    (reductions.products(run_id) / "qa/noise.json").write_bytes(FILES["qa/noise.json"])
    assert "products of 1 run are archived again" in say(reductions.observatory, "run", "archive", "--failed")
    reductions.archive()
    assert [one.status for one in reductions.transfers(run_id)] == [Status.COMPLETED]
    copies = reductions.copies(run_id, "cologne/lta")
    assert {copy.status for copy in copies.values()} == {PhysicalCopyStatus.PRESENT}


def test_a_thousand_products_are_one_transfer_and_few_transactions(reductions: Reductions) -> None:
    files = {f"science/{number % 10}/{number}.bin": os.urandom(10) for number in range(1_000)}
    run_id = reductions.make(files)
    reductions.observatory.aim()
    commits: list[None] = []
    sa.event.listen(reductions.engine, "commit", lambda _: commits.append(None))
    reductions.observatory.do(Operation.ARCHIVING_PRODUCTS)

    assert [one.status for one in reductions.transfers(run_id)] == [Status.COMPLETED]
    assert len(commits) < 20
    assert files_below(archived(reductions, run_id)) == files


def test_a_step_that_says_nothing_keeps_its_products_where_they_are_until_it_says_so(reductions: Reductions) -> None:
    reductions.define(archive=False)
    older, run_id = reductions.make(FILES), reductions.make(FILES)
    other = reductions.make(FILES, of="W3")
    reductions.archive()
    assert reductions.transfers(run_id) == []

    reductions.define(archive=True)
    reductions.define(archive=True)
    assert reductions.transfers(older) == []
    reductions.archive()
    for one in (run_id, other):
        assert [transfer.status for transfer in reductions.transfers(one)] == [Status.COMPLETED]
    reductions.define(archive=False)
    reductions.define(archive=True)
    assert len(reductions.transfers(run_id)) == 1


def test_products_that_do_not_count_any_more_are_not_archived(reductions: Reductions) -> None:
    superseded = reductions.make(FILES)
    newer, withdrawn = reductions.make(FILES), reductions.make(FILES, of="W3")
    reductions.withdraw(withdrawn)
    reductions.archive()

    for run_id in (superseded, withdrawn):
        assert [one.status for one in reductions.transfers(run_id)] == [Status.CANCELLED]
        assert reductions.copies(run_id, "cologne/lta") == {}
    assert [one.status for one in reductions.transfers(newer)] == [Status.COMPLETED]
    newest = reductions.make(FILES)
    reductions.archive()
    assert files_below(archived(reductions, newer)) == FILES
    assert {copy.status for copy in reductions.copies(newer, "cologne/lta").values()} == {PhysicalCopyStatus.PRESENT}
    assert [one.status for one in reductions.transfers(newest)] == [Status.COMPLETED]


def test_products_of_a_step_that_does_not_say_so_any_more_are_not_archived(reductions: Reductions) -> None:
    run_id = reductions.make(FILES)
    reductions.define(archive=False)
    reductions.archive()
    assert [one.status for one in reductions.transfers(run_id)] == [Status.CANCELLED]


def test_products_that_are_withdrawn_while_an_archive_is_full_are_given_up_by_the_worker(
    reductions: Reductions,
) -> None:
    run_id = reductions.make(FILES)
    with transaction(reductions.engine) as session:
        find(session, LOCATION, "cologne/lta").free_space_reserve_bytes = 10**18
    reductions.observatory.aim()
    reductions.observatory.do(Operation.ARCHIVING_PRODUCTS)
    assert "is full: needs" in (reductions.transfers(run_id)[0].failure or "")
    assert len(reductions.copies(run_id, "cologne/lta")) == len(FILES)

    reductions.withdraw(run_id)
    reductions.archive()
    assert [one.status for one in reductions.transfers(run_id)] == [Status.CANCELLED]
    assert reductions.copies(run_id, "cologne/lta") == {}


def test_without_an_archive_it_is_said_what_is_missing_and_goes_on_by_itself(reductions: Reductions) -> None:
    run_id = reductions.make(FILES)
    with transaction(reductions.engine) as session:
        find(session, LOCATION, "cologne/lta").active = False
    reductions.archive()
    [transfer] = reductions.transfers(run_id)
    assert (transfer.status, transfer.destination_id) == (Status.PENDING, None)
    assert "There is no active long-term archive that products of location cologne/ramses can get to" in (
        transfer.failure or ""
    )
    assert "4 products of 1 run to archive" in say(reductions.observatory, "transfer", "status")

    with transaction(reductions.engine) as session:
        find(session, LOCATION, "cologne/lta").active = True
    reductions.archive()
    assert [one.status for one in reductions.transfers(run_id)] == [Status.COMPLETED]


DISK, S3 = StorageType.DISK, StorageType.S3
PLACES = {number: Place(location_id=number, site_id=number // 10, site=f"site-{number // 10}") for number in range(100)}


def leads(number: int, origin: int, to: int, **values: Any) -> Route:
    kind: dict[str, Any] = {"type": RouteType.DIRECT, "package_bytes": 1, "package_wait": timedelta()}
    return Route(id=number, origin_site_id=origin, destination_site_id=to, **(kind | values))


RELAY = leads(2, 7, 6, type=RouteType.RELAY, via_site_id=5)


@pytest.mark.parametrize(
    ("archives", "kept", "aim"),
    [
        ([Archive(71, 7, DISK, 0), Archive(72, 7, DISK, 5)], None, Aim(72)),
        ([Archive(71, 7, DISK, 0), Archive(72, 7, DISK, 5)], 71, Aim(71)),
        ([Archive(71, 7, DISK, 0, is_active=False), Archive(72, 7, DISK, 5, is_active=False)], 71, Aim(71)),
        ([Archive(71, 7, DISK, 0, is_active=False)], None, NOWHERE),
        ([Archive(41, 4, S3, 9), Archive(71, 7, DISK, 0)], None, Aim(71)),
        ([Archive(41, 4, DISK, 9), Archive(42, 4, S3, 0)], None, Aim(42)),
        ([Archive(41, 4, DISK, 9)], None, NOWHERE),
        ([Archive(91, 9, DISK, 9), Archive(42, 4, S3, 0)], None, Aim(91)),
        ([Archive(81, 8, DISK, 0)], None, Aim(81, 80, 1)),
        ([Archive(61, 6, DISK, 0)], None, Aim(61, 50, 2)),
        ([Archive(81, 8, S3, 0)], None, Aim(81)),
        ([], None, NOWHERE),
    ],
    ids=[
        *("priority", "what was chosen", "what was chosen and is not in use any more", "nothing in use"),
        *("own site first", "far store", "far disk", "far disk that is seen", "over a buffer", "over a relay"),
        *("store behind a buffer", "none"),
    ],
)
def test_an_archive_is_chosen_that_products_can_get_to(archives: list[Archive], kept: int | None, aim: Aim) -> None:
    here = Network(places=PLACES, routes=[leads(1, 7, 8), RELAY], buffers={8: 80, 5: 50}, mounted={(7, 9)})
    assert aim_from(PLACES[70], archives, here, kept=kept) == aim


def test_a_store_of_another_site_is_written_by_the_workers_of_the_processing_location(
    reductions: Reductions, s3_archive: Road
) -> None:
    run_id = reductions.make(FILES)
    with transaction(reductions.engine) as session:
        store, disk = (find(session, LOCATION, name) for name in ("cologne/s3", "cologne/lta"))
        here, store.site_id = store.site_id, find(session, LOCATION, "ccat/buffer").site_id
        disk.active = False
    reductions.observatory.aim()
    with transaction(reductions.engine) as session:
        (lane,) = (one for one in LANES if one.operation is Operation.ARCHIVING_PRODUCTS)
        assert waiting(session, lane, outstanding=1) == {find(session, LOCATION, "cologne/ramses").id: 1}
        session.get_one(models.DataLocation, store.id).site_id = here
    assert s3_archive.port
    reductions.archive()
    assert [one.status for one in reductions.transfers(run_id)] == [Status.COMPLETED]


def test_what_is_archived_is_not_archived_again_and_unknown_runs_are_named(reductions: Reductions) -> None:
    run_id = reductions.make(FILES)
    reductions.archive()
    with transaction(reductions.engine) as session, pytest.raises(NothingToArchive, match=f"Of run {run_id}, run 4711"):
        archive_again(session, [run_id, 4711], by="an operator")
    with transaction(reductions.engine) as session:
        assert retry_failed_archiving(session, by="an operator") == []


def test_people_see_where_the_copies_of_products_are(reductions: Reductions) -> None:
    run_id = reductions.make({"science/map.fits": b"map"})
    reductions.archive()
    [listed] = json.loads(say(reductions.observatory, "products", "--json"))
    assert [(one["location"], one["status"]) for one in listed["copies"]] == [
        ("cologne/ramses", "present"),
        ("cologne/lta", "present"),
    ]
    shown = say(reductions.observatory, "lineage", str(listed["id"]))
    assert f"copy at cologne/lta: products/maps/grid/source=M17/{run_id}/science/map.fits" in shown


def test_products_that_are_reinstated_are_archived_after_all(reductions: Reductions) -> None:
    run_id = reductions.make({"science/map.fits": b"map"})
    observatory = reductions.observatory
    [listed] = json.loads(say(observatory, "products", "--json"))
    say(observatory, "withdraw", "run", str(run_id), "--because", "it looked wrong")
    reductions.archive()
    assert reductions.copies(run_id, "cologne/lta") == {}

    say(observatory, "reinstate", "run", str(run_id))
    reductions.archive()
    statuses = [one.status for one in reductions.transfers(run_id)]
    assert statuses == [Status.CANCELLED, Status.COMPLETED]
    assert reductions.copies(run_id, "cologne/lta").keys() == {listed["path"]}


def test_a_worker_that_is_lost_again_and_again_is_told_with_the_command_that_goes_on(reductions: Reductions) -> None:
    run_id = reductions.make(FILES)
    reductions.observatory.aim()
    with transaction(reductions.engine) as session:
        session.execute(sa.update(models.ProductArchiveTransfer).values(retry_count=9))
    scheduled = reductions.observatory.schedule(Operation.ARCHIVING_PRODUCTS)
    with transaction(reductions.engine) as session:
        noun = models.ProductArchiveTransfer
        advance(session, noun, scheduled, to=Status.IN_PROGRESS, because="taken", by="a worker that is killed")
        session.execute(sa.update(noun).values(lease_until=sa.func.clock_timestamp() - timedelta(seconds=1)))
    reductions.observatory.recover()

    [transfer] = reductions.transfers(run_id)
    assert transfer.status is Status.FAILED
    assert (transfer.failure or "").endswith(f"Once that is mended, `ccat run archive {run_id}` takes it up again.")
    say(reductions.observatory, "run", "archive", str(run_id))
    reductions.archive()
    assert [one.status for one in reductions.transfers(run_id)] == [Status.COMPLETED]
