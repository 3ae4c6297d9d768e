"""People are told of products that cannot be archived, or brought back, as they are of raw data."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.products.repairing import repair
from ccat_data_transfer.verbs.products.retrying import archive_again
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import AlertKind, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.spaces import record_served
from tests.transfer.reductions import Reductions
from tests.transfer.support import Observatory

FILES = {"science/map.fits": b"m" * 1000, "qa/noise.json": b"{}"}


@pytest.fixture
def reductions(observatory: Observatory) -> Iterator[Reductions]:
    made = Reductions(observatory)
    yield made
    made.end()


def told(reductions: Reductions) -> Sequence[tuple[AlertKind, str]]:
    with transaction(reductions.engine) as session:
        late = datetime.now(UTC) - timedelta(days=1)
        return [(one.kind, one.sentence) for one in conditions(session, late=late)]


def test_products_that_could_not_be_archived_are_told_of_until_they_are_or_do_not_count(reductions: Reductions) -> None:
    runs = [reductions.make(FILES, of=source) for source in ("M17", "Orion")]
    whole = {run_id: reductions.products(run_id) / "science/map.fits" for run_id in runs}
    for file in whole.values():
        file.write_bytes(bytes(1000))
    reductions.archive()
    [(kind, sentence)] = told(reductions)
    assert kind is AlertKind.FAILED_FOR_GOOD
    failures = {run_id: reductions.transfers(run_id)[0].failure for run_id in runs}
    assert sentence in {
        f"products of 2 runs cannot be archived at cologne/lta, such as: {failure} "
        "`ccat run archive --failed` takes up all of them"
        for failure in failures.values()
    }
    whole[runs[0]].write_bytes(FILES["science/map.fits"])
    with transaction(reductions.engine) as session:
        archive_again(session, [runs[0]], by="a test")
        record_served(session, [reductions.observatory.location_id("cologne/ramses")])  # it reads what was restored
    reductions.archive()
    [(_, sentence)] = told(reductions)
    assert sentence.startswith(f"products of 1 run cannot be archived at cologne/lta, such as: Of run {runs[1]} ")
    reductions.withdraw(runs[1])
    assert told(reductions) == []


def test_products_that_no_archive_is_there_for_are_told_of(reductions: Reductions) -> None:
    reductions.make(FILES)
    with transaction(reductions.engine) as session:
        find(session, LOCATION, "cologne/lta").active = False
    reductions.archive()
    [(kind, sentence)] = told(reductions)
    assert kind is AlertKind.BACKLOG
    assert sentence.startswith("products of 1 run are to be archived, and cannot be: There is no active long-term arch")
    with transaction(reductions.engine) as session:
        find(session, LOCATION, "cologne/lta").active = True
    reductions.archive()
    assert told(reductions) == []


def test_products_that_are_tried_in_vain_are_told_of_with_what_is_in_the_way(reductions: Reductions) -> None:
    run_id = reductions.make(FILES)
    reductions.observatory.aim()
    archive = reductions.observatory.directory("cologne/lta")
    archive.rename(archive.with_name("unmounted"))
    for _ in range(5):
        assert told(reductions) == []
        reductions.observatory.do(Operation.ARCHIVING_PRODUCTS)
    archive.with_name("unmounted").rename(archive)
    [(kind, sentence)] = told(reductions)
    assert kind is AlertKind.BACKLOG
    assert sentence == (
        "products of 1 run met trouble 5 times or more on the way into an archive, such as: "
        f"{reductions.transfers(run_id)[0].failure} `ccat transfer status` says what is in the way"
    )
    reductions.archive()
    assert told(reductions) == []


def test_products_that_cannot_be_brought_back_to_where_they_were_made_are_told_of(reductions: Reductions) -> None:
    run_id = reductions.make(FILES)
    reductions.archive()
    copy = reductions.copies(run_id, "cologne/ramses")["science/map.fits"]
    with transaction(reductions.engine) as session:
        gone = PhysicalCopyStatus.MISSING
        advance(session, models.PhysicalCopy, [copy.id], to=gone, because="a test", by="a test")
        assert repair(session) == 1
    archived = reductions.copies(run_id, "cologne/lta")["science/map.fits"]
    (reductions.observatory.directory("cologne/lta") / archived.path).unlink()
    (reductions.products(run_id) / "science/map.fits").unlink()
    while reductions.observatory.do(Operation.STAGING):
        pass
    job = reductions.observatory.one(models.StagingJob)
    assert (job.status, job.is_repair) == (Status.FAILED, True)
    [sentence] = [sentence for kind, sentence in told(reductions) if kind is AlertKind.FAILED_FOR_GOOD]
    assert sentence == (
        f"1 product, made at cologne/ramses and damaged or lost there, cannot be brought back, such as: {job.failure} "
        "It is tried again each day, and at once when a run takes it"
    )
    reductions.withdraw(run_id)
    assert [kind for kind, _ in told(reductions) if kind is AlertKind.FAILED_FOR_GOOD] == []
