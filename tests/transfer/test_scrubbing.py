"""What lies in archives is read again: products too, and what describes archived data beside them."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ccat_data_transfer import archives
from ccat_data_transfer.descriptions import Flaw, flaw
from ccat_data_transfer.managers import TransferContext
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.products.repairing import archive_lost
from ccat_data_transfer.verbs.scrubbing import due_for_scrubbing, next_look_at_archives, scrub, scrub_what_is_due
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.trees import TreeFile, listed, tree_listing
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import AlertKind, PhysicalCopyStatus
from ccat_ops_db.verbs.restoring import trust_no_archive
from ccat_service.servers import RedisSettings
from tests.transfer.object_store import BUCKET, ObjectStore, Road
from tests.transfer.reductions import Reductions
from tests.transfer.support import START, Observatory, say
from tests.transfer.test_managers import messages
from tests.transfer.test_products import archived, files_below
from tests.transfer.test_replication import damage, forget_looks, make_old
from tests.transfer.test_s3_archive import flip

FILES = {"science/map.fits": b"m" * 10_000, "qa/noise.json": b"{}"}
TREE = {"science/cube.zarr/0.0": b"zero" * 2000, "science/cube.zarr/deep/1.0": b"one", "science/cube.zarr/.zattrs": b""}
RAW = {"a.fits": b"a" * 30_000, "b.txt": b"cloudy"}
ARCHIVE, STORE = "cologne/lta", "cologne/s3"
SOUND = PhysicalCopyStatus.PRESENT


@pytest.fixture
def reductions(observatory: Observatory) -> Iterator[Reductions]:
    made = Reductions(observatory)
    yield made
    made.end()


def read_again(reductions: Reductions, run_id: int, location: str = ARCHIVE) -> dict[str, PhysicalCopyStatus]:
    """Read all that an archive has of a run, and what is found of each."""
    copies = reductions.copies(run_id, location)
    scrub(reductions.observatory.worker, [copy.id for copy in copies.values()])
    return {path: copy.status for path, copy in reductions.copies(run_id, location).items()}


def told(observatory: Observatory) -> list[str]:
    with transaction(observatory.engine) as session:
        found = [one for one in conditions(session, late=START) if one.kind is AlertKind.LOST_COPY]
    return [one.sentence for one in found]


def test_what_is_in_doubt_is_read_first_and_what_was_never_read_from_the_newest_on(far: Observatory) -> None:
    packages = [far.observe({f"{number}.fits": b"a"}) for number in range(4)]
    far.do_all()
    make_old(far, days=181)
    read, *unread = (far.copies(package_id)[ARCHIVE].id for package_id in packages)
    with transaction(far.engine) as session:
        assert trust_no_archive(session) == len(packages)
        session.get_one(models.PhysicalCopy, read).verified_at = START
        session.get_one(models.PhysicalCopy, unread[1]).failure = "It arrived damaged."
    with transaction(far.engine) as session:
        due = due_for_scrubbing(session, far.location_id(ARCHIVE))
    assert due == [unread[1], unread[2], unread[0], read]
    [told] = json.loads(say(far, "transfer", "status", "--json"))["doubtful"]
    assert (told["copies"], told["doubted"], told["failure"]) == (3, 1, "It arrived damaged.")
    assert told["example"] == far.copies(packages[2])[ARCHIVE].path


# What a description says


KNOWN = b'{\n  "id": 1,\n  "tar": {"checksum": "sha256:0"}\n}\n'


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (KNOWN, None),
        (None, "is missing"),
        (b"", "cannot be read"),
        (KNOWN[:-3], "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[]", "cannot be read"),
        (KNOWN.replace(b"1", b"2"), "says something else of id"),
        (b'{"tar": {}, "note": ""}', "says something else of id, note, tar"),
        (KNOWN.replace(b"\n", b""), "is written differently"),
    ],
)
def test_a_description_is_right_only_if_it_says_what_is_known_and_its_flaw_is_named(
    found: bytes | None, said: str | None
) -> None:
    assert flaw(found, KNOWN) == (None if said is None else Flaw(said))


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(st.lists(st.builds(TreeFile, names, st.integers(0, 0o7777), digests), unique_by=lambda file: file.path))
def test_a_listing_is_read_as_it_was_written_whatever_files_are_called(files: list[TreeFile]) -> None:
    assert list(listed(tree_listing(files))) == sorted(files, key=lambda file: file.path.encode())


# Products


def cut(file: Path) -> None:
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-1] + b"!")


@pytest.mark.parametrize(
    ("file", "product"),
    [
        ("{run}/science/map.fits", "science/map.fits"),
        ("{run}/science/cube.zarr/deep/1.0", "science/cube.zarr"),
        ("{run}.trees/science/cube.zarr.listing", "science/cube.zarr"),
    ],
)
@pytest.mark.parametrize("how", [cut, Path.unlink])
def test_a_damaged_or_lost_product_is_marked_told_and_archived_anew_from_where_it_was_made(
    reductions: Reductions, file: str, product: str, how: Callable[[Path], object]
) -> None:
    run_id = reductions.make({**FILES, **TREE})
    reductions.archive()
    how(archived(reductions, run_id).parent / file.format(run=run_id))

    found = read_again(reductions, run_id)
    expected = PhysicalCopyStatus.MISSING if how is Path.unlink else PhysicalCopyStatus.CORRUPT
    assert found == {**dict.fromkeys(found, SOUND), product: expected}
    [sentence] = told(reductions.observatory)
    assert sentence.startswith(f"1 archived product is damaged or gone at {ARCHIVE}, such as products/maps/grid/")
    assert "lost, as" not in sentence

    reductions.archive()
    assert set(read_again(reductions, run_id).values()) == {SOUND}
    assert files_below(archived(reductions, run_id)) == {**FILES, **TREE}
    [sentence] = told(reductions.observatory)
    assert sentence.startswith(f"1 archive copy was found damaged or gone at {ARCHIVE} on ")


def test_a_product_that_is_sound_nowhere_else_stays_marked_and_is_named_as_lost(reductions: Reductions) -> None:
    run_id = reductions.make(FILES)
    reductions.archive()
    gone = [copy.id for copy in reductions.copies(run_id, "cologne/ramses").values()]
    with transaction(reductions.engine) as session:
        to = PhysicalCopyStatus.MISSING
        advance(session, models.PhysicalCopy, gone, to=to, because="a test", by="a test")
    cut(archived(reductions, run_id) / "science/map.fits")
    assert read_again(reductions, run_id)["science/map.fits"] is PhysicalCopyStatus.CORRUPT
    reductions.archive()
    assert len(reductions.transfers(run_id)) == 1
    path = f"products/maps/grid/source=M17/{run_id}/science/map.fits"
    [sentence] = told(reductions.observatory)
    assert sentence.endswith(f"; lost, as no sound copy is left: 1, such as {path}")


def test_what_an_archive_lost_while_its_run_was_being_archived_is_asked_for_at_the_next_look(
    reductions: Reductions,
) -> None:
    run_id = reductions.make(FILES)
    reductions.archive()
    with transaction(reductions.engine) as session:
        lost = [copy.id for copy in reductions.copies(run_id, ARCHIVE).values()]
        to = PhysicalCopyStatus.CORRUPT
        advance(session, models.PhysicalCopy, lost, to=to, because="a test", by="a test")
        assert len(archive_lost(session)) == 1
        assert archive_lost(session) == [], "it is on its way"
    reductions.archive()
    assert set(read_again(reductions, run_id).values()) == {SOUND}
    with transaction(reductions.engine) as session:
        assert archive_lost(session) == []


def test_products_are_due_as_raw_packages_are_and_told_to_the_workers_of_their_archive(
    reductions: Reductions, context: TransferContext
) -> None:
    observatory = reductions.observatory
    reductions.make({**FILES, **TREE})
    reductions.archive()
    observatory.observe(RAW)
    observatory.do_all()
    location_id = observatory.location_id(ARCHIVE)
    with transaction(observatory.engine) as session:
        assert due_for_scrubbing(session, location_id) == []
    make_old(observatory, days=181)
    with transaction(observatory.engine) as session:
        assert len(due_for_scrubbing(session, location_id)) == 4
    forget_looks(observatory)
    assert archives.tend(observatory.engine, context.app, by="manager") == 4
    forget_looks(observatory)


def test_what_no_worker_reads_is_told_of_twice_and_no_more(
    observatory: Observatory, context: TransferContext, redis_settings: RedisSettings
) -> None:
    observatory.observe(RAW)
    observatory.do_all()
    make_old(observatory, days=181)
    for _ in range(5):
        forget_looks(observatory)
        archives.tend(observatory.engine, context.app, by="manager")
    assert messages(redis_settings) == {"transfer.cologne_lta_scrubbing": 2}
    with transaction(observatory.engine) as session:
        next_look, now = next_look_at_archives(session), session.scalars(sa.select(sa.func.clock_timestamp())).one()
    assert next_look is not None
    assert next_look - now < timedelta(minutes=2), "and not an hour after it is read"


def test_what_was_read_since_it_was_told_of_is_not_read_again(observatory: Observatory) -> None:
    packages = [observatory.observe({f"{name}.fits": b"a"}) for name in "ab"]
    observatory.do_all()
    make_old(observatory, days=181)
    with transaction(observatory.engine) as session:
        told = due_for_scrubbing(session, observatory.location_id(ARCHIVE))

    def read_at() -> list[datetime | None]:
        scrub_what_is_due(observatory.worker, told)
        return [observatory.copies(one)[ARCHIVE].verified_at for one in packages]

    first = read_at()
    assert min(at for at in first if at is not None) > datetime.now(UTC) - timedelta(hours=1)
    assert read_at() == first
    make_old(observatory, days=181)
    say(observatory, "pause", "--location", ARCHIVE, "--because", "it moves")
    old = read_at()
    assert max(at for at in old if at is not None) < datetime.now(UTC) - timedelta(days=180)
    say(observatory, "resume", "--location", ARCHIVE)
    assert old != read_at()


def test_a_product_that_does_not_count_any_more_is_marked_and_alarms_nobody(reductions: Reductions) -> None:
    run_id = reductions.make(FILES)
    reductions.archive()
    reductions.withdraw(run_id)
    cut(archived(reductions, run_id) / "science/map.fits")
    assert read_again(reductions, run_id)["science/map.fits"] is PhysicalCopyStatus.CORRUPT
    assert (told(reductions.observatory), len(reductions.transfers(run_id))) == ([], 1)


# What describes them


@pytest.mark.parametrize("how", [damage, cut, Path.unlink])
def test_a_sidecar_that_is_missing_or_damaged_is_written_anew_when_its_package_is_read(
    observatory: Observatory, how: Callable[[Path], object]
) -> None:
    package_id = observatory.observe({f"{number}.fits": b"x" for number in range(60)})
    observatory.do_all()
    copy = observatory.copies(package_id)[ARCHIVE]
    sidecar = (observatory.directory(ARCHIVE) / copy.path).with_suffix(".json")
    before = sidecar.read_bytes()
    how(sidecar)
    scrub(observatory.worker, [copy.id])
    assert sidecar.read_bytes() == before
    assert observatory.copies(package_id)[ARCHIVE].status is SOUND
    assert observatory.leftovers() == []


def test_a_sidecar_comes_to_say_what_became_known_after_it_was_written(observatory: Observatory) -> None:
    package_id = observatory.observe(RAW)
    observatory.do_all()
    copy = observatory.copies(package_id)[ARCHIVE]
    with transaction(observatory.engine) as session:
        session.get_one(models.RawDataPackage, package_id).metadata_ = {"license": "CC-BY-4.0"}
    scrub(observatory.worker, [copy.id])
    sidecar = (observatory.directory(ARCHIVE) / copy.path).with_suffix(".json")
    assert json.loads(sidecar.read_bytes())["license"] == "CC-BY-4.0"


def test_a_sound_copy_is_sound_though_what_describes_it_cannot_be_written(observatory: Observatory) -> None:
    package_id = observatory.observe(RAW)
    observatory.do_all()
    copy = observatory.copies(package_id)[ARCHIVE]
    sidecar = (observatory.directory(ARCHIVE) / copy.path).with_suffix(".json")
    sidecar.unlink()
    sidecar.mkdir()
    scrub(observatory.worker, [copy.id])
    read = observatory.copies(package_id)[ARCHIVE]
    assert (read.status, read.claimed_by) == (SOUND, None)
    assert read.verified_at is not None
    assert copy.verified_at is not None
    assert read.verified_at > copy.verified_at


def test_what_describes_a_run_is_written_anew_once_when_its_products_are_read(reductions: Reductions) -> None:
    run_id = reductions.make({**FILES, **TREE})
    reductions.archive()
    description = archived(reductions, run_id).with_name(f"{run_id}.json")
    before = description.read_bytes()
    cut(description)
    copies = sorted(copy.id for copy in reductions.copies(run_id, ARCHIVE).values())
    scrub(reductions.observatory.worker, copies[1:])
    assert description.read_bytes() != before, "it is read with the first of them"
    scrub(reductions.observatory.worker, copies[:1])
    assert description.read_bytes() == before


# In an object store


@pytest.mark.usefixtures("s3_archive")
def test_products_and_descriptions_in_an_object_store_are_read_again_and_made_anew(
    reductions: Reductions, object_store: ObjectStore
) -> None:
    observatory = reductions.observatory
    package_id = observatory.observe(RAW)
    observatory.do_all()
    run_id = reductions.make({**FILES, **TREE})
    reductions.archive()
    before = {key: object_store.get(key) for key in object_store.list_keys()}
    top = f"fyst/products/maps/grid/source=M17/{run_id}"
    sidecar = f"fyst/{observatory.copies(package_id)[STORE].path}".replace(".tar", ".json")
    for key in (f"{top}/science/cube.zarr/0.0", f"{top}.json", sidecar):
        object_store.damage(key, flip)
    object_store.s3.delete_object(Bucket=BUCKET, Key=f"{top}/science/map.fits")

    found = read_again(reductions, run_id, STORE)
    assert found == {
        "science/cube.zarr": PhysicalCopyStatus.CORRUPT,
        "science/map.fits": PhysicalCopyStatus.MISSING,
        "qa/noise.json": SOUND,
    }
    scrub(observatory.worker, [observatory.copies(package_id)[STORE].id])
    reductions.archive()
    assert set(read_again(reductions, run_id, STORE).values()) == {SOUND}
    assert {key: object_store.get(key) for key in object_store.list_keys()} == before


def test_a_store_that_goes_away_while_a_product_is_read_marks_nothing(reductions: Reductions, s3_archive: Road) -> None:
    run_id = reductions.make(FILES)
    reductions.archive()
    s3_archive.break_after(received=2_000)
    assert set(read_again(reductions, run_id, STORE).values()) == {SOUND}
    assert {copy.claimed_by for copy in reductions.copies(run_id, STORE).values()} == {None}
    s3_archive.mend()
    assert reductions.observatory.do(Operation.ARCHIVING_PRODUCTS) == 0
    assert set(read_again(reductions, run_id, STORE).values()) == {SOUND}
