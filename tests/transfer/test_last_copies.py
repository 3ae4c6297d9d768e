"""The last copy of a raw package is lost, nothing is left to make it of, and it comes back from outside."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, PhysicalCopyStatus, Status
from tests.transfer.support import START, Observatory, digest, say
from tests.transfer.test_replication import check_copy, tar_of

FILES = {"2026-04-01/a.fits": b"a" * 5000, "2026-04-01/b.txt": b"cloudy"}


@pytest.fixture
def package_id(observatory: Observatory) -> int:
    number = observatory.observe(FILES)
    observatory.do_all()
    return number


@pytest.fixture
def tar(observatory: Observatory, package_id: int) -> Path:
    """Where the archive had the tar of a package of which everything is lost, as a staging job found out."""
    return lose_everything(observatory, package_id)


def lose_everything(observatory: Observatory, package_id: int) -> Path:
    """Remove all files of a package, but for a tar that somebody has elsewhere, and have that noticed."""
    tar = tar_of(observatory, package_id)
    tar.rename(elsewhere(observatory))
    for place in ("ccat/buffer", "cologne/buffer", "ccat/chai_raw_data"):
        for file in observatory.files(place):
            file.unlink()
    observatory.request_staging([package_id])
    observatory.do_all()
    return tar


def elsewhere(observatory: Observatory) -> Path:
    return observatory.root / "elsewhere.tar"


def staged_again(observatory: Observatory, package_id: int) -> models.StagingJob:
    """A job that was asked for just now, once all is done that waits."""
    (number,) = observatory.request_staging([package_id])
    observatory.do_all()
    return observatory.one(models.StagingJob, id=number)


def ways(observatory: Observatory) -> list[Status]:
    """What became of all that was to bring packages into archives."""
    with transaction(observatory.engine) as session:
        way = models.LongTermArchiveTransfer
        return list(session.scalars(sa.select(way.status).order_by(way.id)))


def test_a_copy_that_could_not_be_made_anew_is_lost_as_before(observatory: Observatory, package_id: int) -> None:
    lose_everything(observatory, package_id)
    assert ways(observatory) == [Status.COMPLETED, Status.FAILED]
    copy = observatory.copies(package_id)["cologne/lta"]
    package = observatory.package(package_id)
    assert (copy.status, copy.checksum) == (PhysicalCopyStatus.MISSING, package.checksum)
    failure = staged_again(observatory, package_id).failure or ""
    assert failure.endswith(
        f"has no sound archive copy to stage from: that at cologne/lta, {copy.path}, is missing and cannot be made "
        "anew. Restore that tar there, or its raw files where they were recorded, then "
        f"`ccat package retry {package_id}`, or `ccat package exclude` it."
    )


def test_a_tar_that_comes_back_from_outside_is_read_and_used_when_a_person_says_so(
    observatory: Observatory, package_id: int, tar: Path
) -> None:
    elsewhere(observatory).rename(tar)
    say(observatory, "package", "retry", str(package_id))
    assert observatory.read_again() == 1
    observatory.do_all()
    check_copy(observatory, package_id, "cologne/lta")
    assert observatory.copies(package_id)["cologne/lta"].verified_at is not None
    assert staged_again(observatory, package_id).status is Status.COMPLETED
    assert ways(observatory) == [Status.COMPLETED, Status.CANCELLED]


def test_a_tar_that_is_lost_once_more_is_made_anew_of_raw_files_that_came_back(
    observatory: Observatory, package_id: int, tar: Path
) -> None:
    """Nothing of the first loss is in the way of that."""
    for name, data in FILES.items():
        (observatory.directory("ccat/chai_raw_data") / name).write_bytes(data)
    say(observatory, "package", "retry", str(package_id))
    while observatory.read_again():
        observatory.do_all()
    check_copy(observatory, package_id, "cologne/lta")
    assert digest(tar.read_bytes()) == digest(elsewhere(observatory).read_bytes())
    assert staged_again(observatory, package_id).status is Status.COMPLETED


def cut_short(tar: Path, whole: Path) -> None:
    tar.write_bytes(whole.read_bytes()[:-512])


@pytest.mark.parametrize(
    ("restore", "status"),
    [(cut_short, PhysicalCopyStatus.CORRUPT), (lambda *_: None, PhysicalCopyStatus.MISSING)],
)
def test_what_is_wrongly_said_to_be_restored_is_lost_again_and_can_be_restored_once_more(
    observatory: Observatory,
    package_id: int,
    tar: Path,
    restore: Callable[[Path, Path], None],
    status: PhysicalCopyStatus,
) -> None:
    restore(tar, elsewhere(observatory))
    say(observatory, "package", "retry", str(package_id))
    while observatory.read_again():
        observatory.do_all()
    assert observatory.copies(package_id)["cologne/lta"].status is status
    tar.unlink(missing_ok=True)
    elsewhere(observatory).rename(tar)
    say(observatory, "package", "retry", str(package_id))
    assert observatory.read_again() == 1
    check_copy(observatory, package_id, "cologne/lta")


def test_a_tar_that_comes_back_while_it_is_tried_in_vain_to_make_it_anew_is_used(
    observatory: Observatory, package_id: int
) -> None:
    """The raw files are on a disk that is away: that passes, as far as anybody knows."""
    source = observatory.directory("ccat/chai_raw_data")
    tar = lose_all_but(source, observatory, package_id)
    assert observatory.copies(package_id)["cologne/lta"].status is PhysicalCopyStatus.WRITING
    elsewhere(observatory).rename(tar)
    say(observatory, "package", "retry", str(package_id))
    assert observatory.read_again() == 1
    observatory.do(Operation.STAGING)
    check_copy(observatory, package_id, "cologne/lta")
    source.with_name("away").rename(source)


def lose_all_but(source: Path, observatory: Observatory, package_id: int) -> Path:
    """Remove the tars of a package, and have that noticed while the disk of its raw files is away."""
    tar = tar_of(observatory, package_id)
    tar.rename(elsewhere(observatory))
    with transaction(observatory.engine) as session:
        kept = sa.select(models.DiskDataLocation.path).filter_by(location_type=LocationType.BUFFER)
        for place in session.scalars(kept):
            for file in Path(place).rglob("*.tar"):
                file.unlink()
    source.rename(source.with_name("away"))
    observatory.request_staging([package_id])
    for operation in (Operation.STAGING, Operation.ARCHIVING, Operation.PACKING):
        assert observatory.do(operation) == 1
    return tar


def told(observatory: Observatory) -> str | None:
    """What people are told of packages without any copy."""
    with transaction(observatory.engine) as session:
        found = [one for one in conditions(session, late=START) if one.key == "no copy left"]
    return found[0].sentence if found else None


def looked_up(observatory: Observatory) -> tuple[str | None, dict[str, int], dict[str, int]]:
    """What the list of packages says is wrong, and how many packages there are at the stages and of the night."""
    [listed] = json.loads(say(observatory, "packages", "--json"))
    stages = {
        one["stage"]: one["packages"] for one in json.loads(say(observatory, "transfer", "status", "--json"))["stages"]
    }
    return listed["failure"], stages, json.loads(say(observatory, "night", "--json"))["packages"]


def test_that_no_copy_of_a_package_is_left_is_told_until_it_is_mended(
    observatory: Observatory, package_id: int
) -> None:
    assert told(observatory) is None
    assert looked_up(observatory)[2] == {"archived": 1}
    tar = lose_everything(observatory, package_id)
    at, path = "cologne/lta", observatory.copies(package_id)["cologne/lta"].path
    assert told(observatory) == (
        f"NO copy of 1 raw package is known anywhere, though archived before: such as package {package_id}, which {at} "
        f"had as {path}: restore its tar there, or its raw files where they were recorded, then "
        f"`ccat package retry {package_id}`; where it is gone for good, `ccat package give-up {package_id}`"
    )
    failure, stages, of_night = looked_up(observatory)
    assert (failure or "").startswith("It was archived, and NO copy of it is known anywhere any more")
    assert (stages["archived"], stages["archived and no copy left"]) == (0, 1)
    assert of_night == {"archived and no copy left": 1}
    night = say(observatory, "night")
    assert "1 of 1 scans not done: 1 not in the archive" in night
    assert "NO copy of it is known anywhere" in " ".join(night.split())
    assert "archived and no copy left" in say(observatory, "transfer", "status")

    elsewhere(observatory).rename(tar)
    say(observatory, "package", "retry", str(package_id))
    observatory.read_again()
    failure, stages, of_night = looked_up(observatory)
    assert [told(observatory), failure, of_night] == [None, None, {"archived": 1}]
    assert (stages["archived"], "archived and no copy left" in stages) == (1, False)


@pytest.mark.parametrize("place", ["ccat/buffer", "ccat/chai_raw_data", "cologne/ramses"])
def test_a_package_that_is_known_to_be_anywhere_else_is_not_called_lost(
    observatory: Observatory, package_id: int, place: str
) -> None:
    """Its tar in a buffer, all of its raw files, or what was staged of it."""
    observatory.request_staging([package_id])
    observatory.do_all()
    raw, copy = "ccat/chai_raw_data", models.PhysicalCopy
    here = {observatory.location_id(one) for one in {"ccat/buffer", raw, "cologne/ramses", "cologne/lta"} - {place}}
    with transaction(observatory.engine) as session:
        ids = session.scalars(sa.select(copy.id).where(copy.data_location_id.in_(here))).all()
        advance(session, copy, ids, to=PhysicalCopyStatus.MISSING, because="a test", by="a test")
    assert told(observatory) is None
    with transaction(observatory.engine) as session:
        [first, *_] = session.scalars(sa.select(copy.id).filter_by(data_location_id=observatory.location_id(place)))
        advance(session, copy, [first], to=PhysicalCopyStatus.MISSING, because="a test", by="a test")
    assert "NO copy of 1 raw package" in (told(observatory) or "")
