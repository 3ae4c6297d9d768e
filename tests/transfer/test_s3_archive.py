"""The way of raw files into a bucket and out of it again."""

import json
import re
from collections.abc import Callable

import pytest

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.retrying import retry_package
from ccat_ops_db import models
from ccat_ops_db.lookup import SITE, find
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, PackageState, PhysicalCopyStatus, Status
from tests.transfer.object_store import BUCKET, ObjectStore, Road
from tests.transfer.support import Observatory, digest

FILES = {"2026-04-01/b.fits": b"b" * 1000, "2026-04-01/a.fits": b"a" * 300_000, "empty": b""}


def staged(observatory: Observatory, package_id: int) -> dict[str, bytes]:
    directory = observatory.directory("cologne/ramses") / "raw" / observatory.package(package_id).name
    return {str(f.relative_to(directory)): f.read_bytes() for f in directory.rglob("*") if f.is_file()}


@pytest.mark.usefixtures("s3_archive")
def test_a_scan_is_packed_archived_in_a_bucket_with_its_sidecar_and_staged_from_there(
    observatory: Observatory, object_store: ObjectStore
) -> None:
    package_id = observatory.observe(FILES)
    observatory.do_all()
    observatory.request_staging([package_id])
    observatory.do_all()

    package, copies = observatory.package(package_id), observatory.copies(package_id)
    assert set(copies) == {"ccat/buffer", "cologne/s3", "cologne/ramses"}
    copy, key = copies["cologne/s3"], f"fyst/raw/2026-03-31/{package.name}"
    assert (copy.status, f"fyst/{copy.path}", copy.checksum) == (
        PhysicalCopyStatus.PRESENT,
        f"{key}.tar",
        package.checksum,
    )
    assert package.state is PackageState.ARCHIVED
    assert (copy.mtime_ns is None, copy.inode) == (False, None)
    assert object_store.list_keys() == [f"{key}.json", f"{key}.tar"]
    assert digest(object_store.get(f"{key}.tar")) == package.checksum
    assert object_store.metadata(f"{key}.tar")["sha256"] == (package.checksum or "").removeprefix("sha256:")
    assert json.loads(object_store.get(f"{key}.json"))["tar"]["checksum"] == package.checksum
    assert staged(observatory, package_id) == FILES
    assert copies["cologne/ramses"].status is PhysicalCopyStatus.STAGED


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "said", "status"),
    [
        (lambda store, key: store.damage(key, flip), "has sha256:|holds 2026-04-01/a.fits", PhysicalCopyStatus.CORRUPT),
        (lambda store, key: store.damage(key, lambda data: data[:-512]), "has .* bytes", PhysicalCopyStatus.CORRUPT),
        (lambda store, key: store.s3.delete_object(Bucket=BUCKET, Key=key), "is missing", PhysicalCopyStatus.MISSING),
    ],
    ids=["damaged", "truncated", "gone"],
)
@pytest.mark.usefixtures("s3_archive")
def test_a_bad_object_is_marked_with_what_is_wrong_and_used_again_once_it_is_restored(
    observatory: Observatory,
    object_store: ObjectStore,
    damage: Callable[[ObjectStore, str], None],
    said: str,
    status: PhysicalCopyStatus,
) -> None:
    package_id = observatory.observe(FILES)
    observatory.do_all()
    observatory.lose_all_but_archives(package_id)
    key = f"fyst/{observatory.copies(package_id)['cologne/s3'].path}"
    whole = object_store.get(key)
    damage(object_store, key)
    [job] = observatory.request_staging([package_id])
    observatory.do_all()

    failure = observatory.one(models.StagingJob, id=job).failure or ""
    assert f"s3://{BUCKET}/{key} at location cologne/s3 " in failure
    assert re.search(said, failure)
    assert observatory.copies(package_id)["cologne/s3"].status is status
    assert staged(observatory, package_id) == {}

    object_store.put(key, whole)
    with transaction(observatory.engine) as session:
        retry_package(session, package_id, by="an operator")
    observatory.request_staging([package_id])
    observatory.do_all()
    assert staged(observatory, package_id) == FILES


@pytest.mark.usefixtures("s3_archive")
def test_what_a_store_did_not_keep_as_it_was_sent_is_sent_again_and_what_others_put_there_stays(
    observatory: Observatory, object_store: ObjectStore
) -> None:
    ours, taken = (observatory.observe({f"{number}.fits": FILES["2026-04-01/a.fits"]}) for number in "12")
    assert observatory.do(Operation.PACKING) == 2
    tars = {
        one: observatory.directory("ccat/buffer") / observatory.copies(one)["ccat/buffer"].path for one in (ours, taken)
    }
    keys = {one: f"fyst/raw/2026-03-31/{tar.name}" for one, tar in tars.items()}
    said = {"sha256": (observatory.package(ours).checksum or "").removeprefix("sha256:")}
    object_store.s3.put_object(Bucket=BUCKET, Key=keys[ours], Body=flip(tars[ours].read_bytes()), Metadata=said)
    object_store.put(keys[taken], flip(tars[taken].read_bytes()))
    observatory.do_all()
    assert observatory.package(ours).state is PackageState.ARCHIVED
    assert object_store.get(keys[ours]) == tars[ours].read_bytes()
    assert object_store.get(keys[taken]) == flip(tars[taken].read_bytes())
    assert "is something else, and is not known here" in (observatory.package(taken).failure or "")


def test_a_store_that_is_away_is_waited_for_and_said(
    observatory: Observatory, object_store: ObjectStore, s3_archive: Road
) -> None:
    package_id = observatory.observe(FILES)
    observatory.do(Operation.PACKING)
    s3_archive.break_after(sent=100_000)
    observatory.do(Operation.ARCHIVING)
    transfer = observatory.one(models.LongTermArchiveTransfer)
    assert (transfer.status, transfer.trouble_count, transfer.retry_count) == (Status.PENDING, 1, 0)
    assert (transfer.failure or "").startswith(f"Location cologne/s3 (s3://{BUCKET}/fyst) fails: ")
    assert (transfer.failure or "").endswith("; check the store and the way to it. It is tried again.")
    assert object_store.list_keys() == []

    s3_archive.mend()
    observatory.do_all()
    assert observatory.package(package_id).state is PackageState.ARCHIVED


def test_a_store_that_goes_away_while_a_package_is_staged_from_it_is_waited_for(
    observatory: Observatory, s3_archive: Road
) -> None:
    package_id = observatory.observe(FILES)
    observatory.do_all()
    [job] = observatory.request_staging([package_id])
    s3_archive.break_after(received=100_000)
    assert observatory.do(Operation.STAGING) == 1
    failed = observatory.one(models.StagingJob, id=job)
    assert (failed.status, failed.trouble_count) == (Status.PENDING, 1)
    assert (failed.failure or "").startswith(f"Location cologne/s3 (s3://{BUCKET}/fyst) fails: ")
    assert observatory.copies(package_id)["cologne/s3"].status is PhysicalCopyStatus.PRESENT
    assert staged(observatory, package_id) == {}

    s3_archive.mend()
    observatory.do_all()
    assert staged(observatory, package_id) == FILES


def test_nothing_is_planned_to_go_to_tape_and_what_is_sent_there_is_refused(observatory: Observatory) -> None:
    with transaction(observatory.engine) as session:
        site, kind = find(session, SITE, "cologne"), LocationType.LONG_TERM_ARCHIVE
        tape = models.TapeDataLocation(site=site, name="tape", location_type=kind, priority=99, library="l")
        session.add(tape)
        session.flush()
        number = tape.id
    package_id = observatory.observe(FILES)
    observatory.do(Operation.PACKING)
    transfer = observatory.one(models.LongTermArchiveTransfer)
    assert transfer.destination_id == observatory.location_id("cologne/lta")

    with transaction(observatory.engine) as session:
        session.get_one(models.LongTermArchiveTransfer, transfer.id).destination_id = number
    observatory.do_all()
    assert (observatory.package(package_id).failure or "").startswith(
        "Location cologne/tape is on tape, which cannot be used for this: archives are on disk or s3, and "
    )
