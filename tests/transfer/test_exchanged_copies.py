"""What has the name of a copy that is to go, and is another thing by now, is not removed in its place."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, PhysicalCopyStatus
from ccat_ops_db.verbs.retention import retry_deletions
from tests.transfer.reductions import Reductions
from tests.transfer.support import Observatory
from tests.transfer.test_fetching import fetch
from tests.transfer.test_retention import BUFFER, STAGED, archived, staged, statuses

SECOND = "cologne/second"
GONE, FAILED = PhysicalCopyStatus.DELETED, PhysicalCopyStatus.DELETION_FAILED


@pytest.fixture
def reductions(observatory: Observatory) -> Iterator[Reductions]:
    observatory.add_location(SECOND, LocationType.PROCESSING)
    made = Reductions(observatory)
    yield made
    made.end()


def asleep_before_the_last(monkeypatch: pytest.MonkeyPatch, times: int, meanwhile: Callable[[], object]) -> None:
    """Have a worker sleep before the last of some removals, while others work."""
    remove, left = Disk.remove, [times]

    def sleep_before(*args: Any, **options: Any) -> None:
        left[0] -= 1
        if not left[0]:
            monkeypatch.undo()
            meanwhile()
        remove(*args, **options)

    monkeypatch.setattr(Disk, "remove", sleep_before)


def take_over(observatory: Observatory, copy_id: int) -> None:
    """Have another worker remove a copy whose worker sleeps."""
    with transaction(observatory.engine) as session:
        late = sa.func.clock_timestamp() - timedelta(hours=1)
        session.execute(sa.update(models.PhysicalCopy).filter_by(id=copy_id).values(lease_until=late))
    assert observatory.recover() == 1
    delete_copies(observatory.worker, [copy_id])
    assert observatory.one(models.PhysicalCopy, id=copy_id).status is GONE


def test_who_lost_one_copy_of_many_leaves_alone_what_was_made_anew_and_goes_on_with_the_others(
    observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = [staged(observatory, name) for name in ("a", "b", "c")]
    observatory.keep(STAGED, days=0)
    observatory.mark(STAGED)
    scheduled = observatory.schedule_deletions(STAGED)
    by_path = sorted((observatory.copies(one)[STAGED].path, one) for one in packages)
    [_, (_, lost), _] = by_path

    def meanwhile() -> None:
        take_over(observatory, observatory.copies(lost)[STAGED].id)
        observatory.request_staging([lost])
        observatory.do_all()

    asleep_before_the_last(monkeypatch, 2, meanwhile)
    delete_copies(observatory.worker, scheduled)
    assert [observatory.copies(one).get(STAGED) is not None for _, one in by_path] == [False, True, False]
    observatory.check_that_rows_tell_what_is_there()


def test_a_tar_that_was_only_copied_to_another_disk_goes(observatory: Observatory) -> None:
    package_id = archived(observatory)
    observatory.keep(BUFFER, days=0)
    tar = observatory.directory(BUFFER) / observatory.copies(package_id)[BUFFER].path
    content = tar.read_bytes()
    tar.rename(tar.with_name("old"))
    tar.write_bytes(content)
    tar.with_name("old").unlink()
    assert observatory.make_room(BUFFER) == 1
    assert (tar.exists(), statuses(observatory, BUFFER)) == (False, [GONE])


def test_another_tar_under_the_name_of_a_copy_is_kept_and_told_of(observatory: Observatory) -> None:
    package_id = archived(observatory)
    observatory.keep(BUFFER, days=0)
    tar = observatory.directory(BUFFER) / observatory.copies(package_id)[BUFFER].path
    tar.rename(tar.with_name("old"))
    tar.write_bytes(b"of somebody else")
    assert observatory.make_room(BUFFER) == 1
    assert (tar.read_bytes(), statuses(observatory, BUFFER)) == (b"of somebody else", [FAILED])
    copy = observatory.copies(package_id)[BUFFER]
    assert f"{tar} at location {BUFFER} is not the copy that is to be removed, as somebody else" in (copy.failure or "")


@pytest.mark.parametrize("path", ["science/map.fits", "science/cube.zarr"])
def test_another_product_under_the_name_of_a_copy_is_kept_until_somebody_moves_it_away(
    reductions: Reductions, path: str
) -> None:
    run_id = reductions.make({"science/map.fits": b"map", "science/cube.zarr/0.0": b"zero"})
    fetch(reductions, run_id, SECOND)
    place = reductions.observatory.directory(SECOND) / reductions.copies(run_id, SECOND)[path].path
    file = place if place.is_file() else place / "0.0"
    file.chmod(0o600)
    file.write_bytes(b"of somebody else")
    reductions.observatory.keep(SECOND, days=0)
    assert reductions.observatory.make_room(SECOND) == 2
    left = reductions.copies(run_id, SECOND)
    assert (file.read_bytes(), {one: copy.status for one, copy in left.items()}) == (
        b"of somebody else",
        {path: FAILED},
    )
    assert reductions.observatory.make_room(SECOND) == 0, "a person has to look first"

    place.rename(place.with_name("kept"))
    with transaction(reductions.engine) as session:
        retry_deletions(session, None)
    assert reductions.observatory.make_room(SECOND) == 1
    assert reductions.copies(run_id, SECOND) == {}
    assert not place.exists()
