"""Workers that die or freeze anywhere: whatever they were at is done once, and nothing of them is left."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL, SIGSTOP, Signals
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_data_transfer.verbs.outcomes import NOUNS
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.models.data import GOING
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, PackageState, PhysicalCopyStatus, RouteType, Status
from ccat_ops_db.verbs.staging import request_products
from ccat_service.orphans import expire_orphans
from tests.transfer.object_store import ENVIRONMENT, ObjectStore
from tests.transfer.reductions import Reductions
from tests.transfer.support import Observatory, digest, eventually

A_MOMENT = timedelta(milliseconds=20)
FILES = {"a.fits": b"a" * 1_100_000}


class Mortals:
    """Workers that signal themselves before a chosen step."""

    def __init__(self, url: str, log: Path) -> None:
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).parent / "programs/mortal.py", url],
                cwd=Path(__file__).parents[2],
                env={"PYTHONPATH": os.pathsep.join([".", *sys.path]), **ENVIRONMENT},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def do(self, operation: Operation, number: int, *, until_step: int, then: Signals) -> dict[str, Any]:
        return self.ask(operation=operation, id=number, step=until_step, signal=then, lease_s=A_MOMENT.total_seconds())

    def close(self) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture(scope="module")
def mortals(observatory_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortals]:
    yield from _mortals(observatory_url, tmp_path_factory)


@pytest.fixture(scope="module")
def far_mortals(far_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortals]:
    yield from _mortals(far_url, tmp_path_factory)


def _mortals(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortals]:
    log = tmp_path_factory.mktemp("mortals") / "log"
    mortals = Mortals(url, log)
    yield mortals
    mortals.close()
    assert "Traceback" not in log.read_text()


def disturb(
    observatory: Observatory, mortals: Mortals, operation: Operation, *, then: Signals, lease: timedelta = A_MOMENT
) -> list[int]:
    """Have each package's worker signal itself one step later than the last, until one gets to its end; their pids."""
    first, *scheduled = observatory.schedule(operation, lease=A_MOMENT)
    how = {"operation": operation, "signal": then, "lease_s": lease.total_seconds()}
    mortals.ask(id=first, step=0, **how)
    pids: list[int] = []
    for step, transfer_id in enumerate(scheduled, start=1):
        worker = mortals.ask(id=transfer_id, step=step, **how)
        if worker["ended"] == "done":
            return pids
        assert worker["ended"] == {SIGKILL: "killed", SIGSTOP: "stopped"}[then]
        pids.append(worker["pid"])
    pytest.fail(f"{operation} has more steps than there are packages")


def finish(observatory: Observatory, operation: Operation) -> None:
    """What a manager and a healthy worker do about it."""
    eventually(lambda: not _underway(observatory) or (observatory.recover() and False))
    observatory.do(operation)


def test_the_work_of_a_dead_worker_of_the_same_host_goes_on_long_before_its_lease_is_over(
    observatory: Observatory, mortals: Mortals
) -> None:
    observatory.observe(FILES)
    [transfer_id] = observatory.schedule(Operation.PACKING)
    mortals.ask(operation=Operation.PACKING, id=transfer_id, step=3, signal=SIGKILL, lease_s=3600)
    assert observatory.recover() == 0
    with transaction(observatory.engine) as session:
        assert expire_orphans(session, *NOUNS) == 1
        assert expire_orphans(session, *NOUNS) == 0
    assert observatory.recover() == 1
    assert observatory.do(Operation.PACKING) == 1


def _underway(observatory: Observatory) -> int:
    with transaction(observatory.engine) as session:
        return sum(
            session.scalars(
                sa.select(sa.func.count()).where(noun.status.in_([Status.SCHEDULED, Status.IN_PROGRESS]))
            ).one()
            for noun in NOUNS
        )


def check_each_once(observatory: Observatory, packages: Sequence[int]) -> None:
    for package_id in packages:
        package, copies = observatory.package(package_id), observatory.copies(package_id)
        assert package.state is PackageState.ARCHIVED
        assert set(copies) == {"ccat/buffer", "cologne/lta", "cologne/ramses"}
        for location in ("ccat/buffer", "cologne/lta"):
            tar = observatory.directory(location) / copies[location].path
            assert copies[location].status is PhysicalCopyStatus.PRESENT
            assert digest(tar.read_bytes()) == copies[location].checksum == package.checksum
            assert tar.stat().st_ino == copies[location].inode
        assert copies["cologne/ramses"].status is PhysicalCopyStatus.STAGED
        directory = observatory.directory("cologne/ramses") / copies["cologne/ramses"].path
        assert {str(f.relative_to(directory)): f.read_bytes() for f in directory.rglob("*") if f.is_file()} == FILES
    assert observatory.leftovers() == []
    with transaction(observatory.engine) as session:
        change = models.StatusChange
        ends = session.execute(
            sa.select(change.noun, change.object_id).where(change.to_status.in_(["archived", "completed", "staged"]))
        )
        assert set(Counter(tuple(end) for end in ends).values()) == {1}


def test_workers_killed_at_every_step_leave_work_that_is_done_again_once(
    observatory: Observatory, mortals: Mortals
) -> None:
    packages = [observatory.observe(FILES) for _ in range(28)]
    for operation in (Operation.PACKING, Operation.ARCHIVING, Operation.STAGING):
        if operation is Operation.STAGING:
            observatory.request_staging(packages)
        killed = disturb(observatory, mortals, operation, then=SIGKILL)
        finish(observatory, operation)

        assert len(killed) >= 8
    check_each_once(observatory, packages)


@pytest.mark.parametrize("then", [SIGKILL, SIGSTOP])
def test_workers_killed_or_frozen_at_every_step_of_a_crossing_leave_packages_that_arrive_once(
    far: Observatory, far_mortals: Mortals, then: Signals
) -> None:
    packages = [far.observe(FILES) for _ in range(16)]
    with transaction(far.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(package_bytes=1))  # a parcel for each
    far.do(Operation.PACKING)
    assert far.ship() == len(packages)
    for operation in (Operation.TRANSFERRING, Operation.UNPACKING):
        disturbed = disturb(far, far_mortals, operation, then=then)
        finish(far, operation)
        assert len(disturbed) >= {SIGKILL: 6, SIGSTOP: 2}[then]
        if then is SIGSTOP:
            assert {far_mortals.ask(**{"continue": pid})["ended"] for pid in disturbed} == {"done"}
    far.do_all()
    for package_id in packages:
        package, copies = far.package(package_id), far.copies(package_id)
        assert (package.state, set(copies)) == (PackageState.ARCHIVED, {"ccat/buffer", "cologne/buffer", "cologne/lta"})
        for location, copy in copies.items():
            assert digest((far.directory(location) / copy.path).read_bytes()) == package.checksum
    assert far.leftovers() == []
    assert not any((far.directory("cologne/buffer") / "transfer").iterdir())
    with transaction(far.engine) as session:
        change = models.StatusChange
        ended = sa.select(change.object_id).where(change.noun == "data_transfer", change.to_status == "completed")
        assert set(Counter(session.scalars(ended)).values()) == {1}


def test_workers_frozen_at_every_step_do_no_harm_when_they_wake_up_after_others_did_their_work(
    observatory: Observatory, mortals: Mortals
) -> None:
    packages = [observatory.observe(FILES) for _ in range(14)]
    observatory.do(Operation.PACKING)
    for operation in (Operation.ARCHIVING, Operation.STAGING):
        if operation is Operation.STAGING:
            observatory.request_staging(packages)
        frozen = disturb(observatory, mortals, operation, then=SIGSTOP)
        finish(observatory, operation)
        awake = [mortals.ask(**{"continue": pid})["ended"] for pid in frozen]

        assert len(frozen) >= 4
        assert set(awake) == {"done"}
    check_each_once(observatory, packages)


@pytest.mark.parametrize("then", [SIGKILL, SIGSTOP])
@pytest.mark.usefixtures("s3_archive")
def test_workers_killed_or_frozen_at_every_request_to_an_object_store_leave_one_whole_object_and_nothing_else(
    observatory: Observatory, mortals: Mortals, object_store: ObjectStore, then: Signals
) -> None:
    packages = [observatory.observe(FILES) for _ in range(22)]
    observatory.do(Operation.PACKING)
    long_enough_for_a_request = timedelta(seconds=2)
    lost = disturb(observatory, mortals, Operation.ARCHIVING, then=then, lease=long_enough_for_a_request)
    finish(observatory, Operation.ARCHIVING)
    awake = [mortals.ask(**{"continue": pid})["ended"] for pid in lost if then == SIGSTOP]

    assert len(lost) >= 11
    assert set(awake) <= {"done"}
    for package_id in packages:
        package, copy = observatory.package(package_id), observatory.copies(package_id)["cologne/s3"]
        assert (package.state, copy.status) == (PackageState.ARCHIVED, PhysicalCopyStatus.PRESENT)
        assert digest(object_store.get(f"fyst/{copy.path}")) == copy.checksum == package.checksum
        assert object_store.get(f"fyst/{copy.path.removesuffix('.tar')}.json").startswith(b'{\n  "schema_version": 3')
    assert len(object_store.list_keys()) == 2 * len(packages)
    assert object_store.unfinished() == []


def staged_to_go(observatory: Observatory, number: int) -> list[int]:
    """Copies of that many packages that a worker is told to remove."""
    packages = [observatory.observe({f"{one}.fits": b"a" * 1000}) for one in range(number)]
    observatory.do_all()
    observatory.request_staging(packages)
    observatory.do_all()
    observatory.keep("cologne/ramses", days=0)
    assert observatory.mark("cologne/ramses") == number
    return observatory.schedule_deletions("cologne/ramses", lease=A_MOMENT)


def disturb_deletion(mortals: Mortals, scheduled: Sequence[int], *, then: Signals) -> list[int]:
    """Have each copy's worker signal itself one step later than the last, until one gets to its end; their pids."""
    first, *others = scheduled
    mortals.do(Operation.DELETION, first, until_step=0, then=then)
    pids: list[int] = []
    for step, copy_id in enumerate(others, start=1):
        worker = mortals.do(Operation.DELETION, copy_id, until_step=step, then=then)
        if worker["ended"] == "done":
            return pids
        pids.append(worker["pid"])
    pytest.fail("a deletion has more steps than there are copies")


def finish_deletion(observatory: Observatory) -> None:
    """What a manager and a healthy worker do about it."""

    def is_over() -> bool:
        observatory.recover()
        delete_copies(observatory.worker, observatory.schedule_deletions("cologne/ramses"))
        with transaction(observatory.engine) as session:
            return not session.scalar(sa.select(sa.func.count()).select_from(models.PhysicalCopy).where(sa.text(GOING)))

    eventually(is_over)


def test_workers_killed_at_every_step_of_a_removal_leave_what_is_removed_once(
    observatory: Observatory, mortals: Mortals
) -> None:
    scheduled = staged_to_go(observatory, 12)
    killed = disturb_deletion(mortals, scheduled, then=SIGKILL)
    finish_deletion(observatory)

    assert len(killed) >= 6
    observatory.check_that_rows_tell_what_is_there()
    with transaction(observatory.engine) as session:
        gone = sa.select(models.PhysicalCopy.id).filter_by(status=PhysicalCopyStatus.DELETED)
        assert sorted(session.scalars(gone)) == sorted(scheduled)


def test_workers_frozen_at_every_step_of_a_removal_remove_nothing_that_is_made_anew_meanwhile(
    observatory: Observatory, mortals: Mortals
) -> None:
    scheduled = staged_to_go(observatory, 10)
    frozen = disturb_deletion(mortals, scheduled, then=SIGSTOP)
    finish_deletion(observatory)
    with transaction(observatory.engine) as session:
        packages = list(session.scalars(sa.select(models.RawDataPackage.id)))
    observatory.request_staging(packages)
    observatory.do_all()
    awake = [mortals.ask(**{"continue": pid})["ended"] for pid in frozen]

    assert len(frozen) >= 4
    assert set(awake) == {"done"}
    observatory.check_that_rows_tell_what_is_there()
    assert all("cologne/ramses" in observatory.copies(one) for one in packages)


PRODUCTS = {"science/map.fits": b"m" * 1_100_000, "science/cube.zarr/0.0": b"zero"}
"""A large file and a tree: of several small ones some would be copied while the process is stopped for another."""


@pytest.fixture
def reductions(observatory: Observatory) -> Iterator[Reductions]:
    made = Reductions(observatory)
    yield made
    made.end()


@pytest.mark.parametrize("then", [SIGKILL, SIGSTOP])
def test_workers_killed_or_frozen_at_every_step_leave_products_that_are_archived_once(
    reductions: Reductions, mortals: Mortals, then: Signals
) -> None:
    observatory, number = reductions.observatory, {SIGKILL: 38, SIGSTOP: 28}[then]
    runs = {reductions.make(PRODUCTS, of=f"source-{one}"): f"source=source-{one}" for one in range(number)}
    maps = observatory.directory("cologne/lta/products/maps/grid")
    places = {run_id: maps / of / str(run_id) for run_id, of in runs.items()}
    for place in places.values():  # to make these takes most steps, which are like those of other operations
        (place / "science/cube.zarr").mkdir(parents=True)
        (place.with_name(f"{place.name}.trees") / "science").mkdir(parents=True)
    observatory.aim()
    disturbed = disturb(observatory, mortals, Operation.ARCHIVING_PRODUCTS, then=then)
    finish(observatory, Operation.ARCHIVING_PRODUCTS)
    awake = {mortals.ask(**{"continue": pid})["ended"] for pid in disturbed if then is SIGSTOP}

    assert len(disturbed) >= {SIGKILL: 20, SIGSTOP: 12}[then]
    assert awake <= {"done"}
    for run_id, there in places.items():
        assert [one.status for one in reductions.transfers(run_id)] == [Status.COMPLETED]
        assert {str(f.relative_to(there)): f.read_bytes() for f in there.rglob("*") if f.is_file()} == PRODUCTS
        copies = reductions.copies(run_id, "cologne/lta")
        assert copies.keys() == {"science/map.fits", "science/cube.zarr"}
        assert {copy.status for copy in copies.values()} == {PhysicalCopyStatus.PRESENT}
        assert copies["science/map.fits"].inode == (there / "science/map.fits").stat().st_ino
    assert observatory.leftovers() == []


@pytest.mark.parametrize("then", [SIGKILL, SIGSTOP])
def test_workers_killed_or_frozen_at_every_step_bring_products_back_once(
    reductions: Reductions, mortals: Mortals, then: Signals
) -> None:
    observatory, number = reductions.observatory, {SIGKILL: 32, SIGSTOP: 22}[then]
    tree = {"science/cube.zarr/0.0": b"zero", "science/cube.zarr/deep/1.0": b"one"}
    runs = [reductions.make(tree, of=f"source-{one}") for one in range(number)]
    reductions.archive()
    for run_id in runs:
        reductions.remove(run_id, "cologne/ramses")
    with transaction(observatory.engine) as session:
        made = sa.update(models.PhysicalCopy).where(models.PhysicalCopy.path.startswith("runs/"))
        session.execute(made.values(status=PhysicalCopyStatus.DELETED))
        products = session.scalars(sa.select(models.DataProduct.id)).all()
        request_products(session, products, find(session, LOCATION, "cologne/ramses").id)
    disturbed = disturb(observatory, mortals, Operation.STAGING, then=then)
    finish(observatory, Operation.STAGING)
    awake = {mortals.ask(**{"continue": pid})["ended"] for pid in disturbed if then is SIGSTOP}

    assert len(disturbed) >= {SIGKILL: 12, SIGSTOP: 8}[then]
    assert awake <= {"done"}
    for run_id in runs:
        [copy] = reductions.copies(run_id, "cologne/ramses").values()
        top = observatory.directory("cologne/ramses") / copy.path
        there = {f"science/cube.zarr/{f.relative_to(top)}": f.read_bytes() for f in top.rglob("*") if f.is_file()}
        assert (copy.status, there, copy.inode) == (PhysicalCopyStatus.PRESENT, tree, top.stat().st_ino)
    assert observatory.leftovers() == []


@pytest.fixture
def far_maps(far: Observatory) -> Iterator[Reductions]:
    far.add_location("us/hpc", LocationType.PROCESSING)
    made = Reductions(far, "us/hpc")
    yield made
    made.end()


@pytest.mark.parametrize("then", [SIGKILL, SIGSTOP])
def test_workers_killed_or_frozen_at_every_step_move_products_to_another_site_once(
    far: Observatory, far_maps: Reductions, far_mortals: Mortals, then: Signals
) -> None:
    far.add_location("santiago/buffer", LocationType.BUFFER)
    far.add_route("us", "cologne", RouteType.RELAY, via="santiago")
    runs = [far_maps.make(PRODUCTS, of=f"source-{one}") for one in range({SIGKILL: 52, SIGSTOP: 40}[then])]
    far.aim()
    disturbed = disturb(far, far_mortals, Operation.TRANSFERRING_PRODUCTS, then=then)
    finish(far, Operation.TRANSFERRING_PRODUCTS)
    awake = {far_mortals.ask(**{"continue": pid})["ended"] for pid in disturbed if then is SIGSTOP}

    assert len(disturbed) >= {SIGKILL: 14, SIGSTOP: 8}[then]
    assert awake <= {"done"}
    for run_id in runs:
        [transfer] = far_maps.transfers(run_id)
        assert (transfer.status, transfer.origin_id) == (Status.PENDING, far.location_id("santiago/buffer"))
        copies = far_maps.copies(run_id, "santiago/buffer")
        assert copies.keys() == {"science/map.fits", "science/cube.zarr"}
        for path, copy in copies.items():
            place = far.directory("santiago/buffer") / copy.path
            assert (copy.status, copy.inode) == (PhysicalCopyStatus.PRESENT, place.stat().st_ino)
            file = place / "0.0" if place.is_dir() else place
            assert file.read_bytes() in {PRODUCTS.get(path), PRODUCTS["science/cube.zarr/0.0"]}
    assert far.leftovers() == []
    left = [file for file in far.root.glob("*/buffer/transfer/**/*") if file.is_file() and file.stat().st_size]
    assert left == []  # who wakes up makes the inbox anew before it finds that its lease is lost
