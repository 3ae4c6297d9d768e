"""Copies outside of archives that were found damaged or gone go as sound ones do, and the plan tells of them."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ccat_data_transfer import retention
from ccat_data_transfer.managers import TransferContext
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.discarding import discard
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.queries import retention as retention_queries
from ccat_ops_db.session import transaction
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import PhysicalCopyStatus, ProductState, Status
from ccat_service.servers import RedisSettings
from tests.transfer.reductions import Reductions
from tests.transfer.support import Observatory, say
from tests.transfer.test_managers import messages
from tests.transfer.test_retention import ARCHIVE, BUFFER, SOURCE, STAGED, archived, change, files, staged

CORRUPT, MISSING, DELETED = (PhysicalCopyStatus(one) for one in ("corrupt", "missing", "deleted"))
COPY = models.PhysicalCopy
LEASE = timedelta(minutes=1)


@pytest.fixture
def reductions(observatory: Observatory) -> Iterator[Reductions]:
    made = Reductions(observatory)
    yield made
    made.end()


def find_bad(observatory: Observatory, copy_id: int, to: PhysicalCopyStatus = CORRUPT) -> None:
    with transaction(observatory.engine) as session:
        assert advance(session, COPY, [copy_id], to=to, because="a test", by="a test")


def tend(context: TransferContext) -> int:
    """What a manager does about deletions, looking at all locations."""
    with context.engine.begin() as connection:
        connection.execute(sa.update(table_of(models.DataLocation)).values(retention_look_at=None))
    return retention.tend(context.engine, context.app, by="manager", lease=LEASE)


def remove(observatory: Observatory, *copy_ids: int) -> None:
    """What a worker does about a message that names these copies."""
    discard(observatory.worker, copy_ids)


def status_of(observatory: Observatory, copy_id: int) -> PhysicalCopyStatus:
    return observatory.one(COPY, id=copy_id).status


@pytest.mark.parametrize("how", [CORRUPT, MISSING])
def test_a_damaged_staged_package_goes_when_a_sound_one_would_and_the_plan_says_so(
    observatory: Observatory, context: TransferContext, redis_settings: RedisSettings, how: PhysicalCopyStatus
) -> None:
    copy = observatory.copies(staged(observatory))[STAGED]
    find_bad(observatory, copy.id, how)
    assert tend(context) == 0, "its time is not over"
    assert "damaged staged" in say(observatory, "retention", "plan", "--location", STAGED)
    observatory.keep(STAGED, days=0)
    assert tend(context) == 1
    assert messages(redis_settings) == {"transfer.cologne_ramses_deletion": 1}
    remove(observatory, copy.id)
    assert (status_of(observatory, copy.id), files(observatory, STAGED)) == (DELETED, [])


def test_a_damaged_tar_in_a_buffer_goes_and_what_an_instrument_wrote_anew_stays(
    observatory: Observatory, context: TransferContext
) -> None:
    copy = observatory.copies(archived(observatory))[BUFFER]
    raw = observatory.one(COPY, path="2026-04-01/a-1.fits")
    for one in (copy, raw):
        find_bad(observatory, one.id)
    for place in (BUFFER, SOURCE):
        observatory.keep(place, days=0)
    tend(context)
    remove(observatory, copy.id, raw.id)
    assert (status_of(observatory, copy.id), status_of(observatory, raw.id)) == (DELETED, CORRUPT)
    assert not (observatory.directory(BUFFER) / copy.path).exists()
    assert "2026-04-01/a-1.fits" in files(observatory, SOURCE)


def test_the_plan_says_of_what_is_left_of_a_lost_package_that_no_copy_is(observatory: Observatory) -> None:
    copies = observatory.copies(staged(observatory))
    raw = observatory.one(COPY, path="2026-04-01/a-1.fits")
    for one in (raw, copies[BUFFER], copies[STAGED]):
        find_bad(observatory, one.id)
    assert planned(observatory)[SOURCE, "source"] == "it is kept for ever"
    find_bad(observatory, copies[ARCHIVE].id, MISSING)
    told = "NO copy of its package is known anywhere any more, though it was archived"
    kinds = ((SOURCE, "source"), (BUFFER, "damaged buffer"), (STAGED, "damaged staged"))
    assert planned(observatory) == dict.fromkeys(kinds, told)


def planned(observatory: Observatory) -> dict[tuple[str, str], str]:
    """What the plan says of copies, by their locations and what they are."""
    rows = json.loads(say(observatory, "retention", "plan", "--json"))["rows"]
    return {(row["location"], row["what"]): row["why"] for row in rows}


@pytest.mark.parametrize("why", ["unverified", "asked for", "paused"])
def test_a_damaged_copy_stays_while_sound_ones_would(
    observatory: Observatory, context: TransferContext, why: str
) -> None:
    package_id = staged(observatory)
    copies = observatory.copies(package_id)
    find_bad(observatory, copies[STAGED].id)
    observatory.keep(STAGED, days=0)
    match why:
        case "unverified":
            change(observatory, COPY, {"id": copies[ARCHIVE].id}, verified_at=None)
        case "asked for":
            observatory.request_staging([package_id])
        case _:
            say(observatory, "pause", "--location", STAGED, "--because", "it is looked into")
    assert tend(context) == 0
    remove(observatory, copies[STAGED].id)
    assert status_of(observatory, copies[STAGED].id) is CORRUPT
    assert len(files(observatory, STAGED)) == 2


def test_what_is_asked_for_while_damaged_files_are_removed_waits_and_is_staged_then(
    observatory: Observatory, context: TransferContext
) -> None:
    package_id = staged(observatory)
    copy = observatory.copies(package_id)[STAGED]
    find_bad(observatory, copy.id)
    observatory.keep(STAGED, days=0)
    assert tend(context) == 1
    [job_id] = observatory.request_staging([package_id])
    observatory.do(Operation.STAGING)
    job = observatory.one(models.StagingJob, id=job_id)
    assert (job.status, "corrupt, and being removed" in (job.failure or "")) == (Status.PENDING, True)
    change(observatory, COPY, {"id": copy.id}, lease_until=None)
    observatory.do_all()
    assert observatory.copies(package_id)[STAGED].status is PhysicalCopyStatus.STAGED
    remove(observatory, copy.id)
    assert len(files(observatory, STAGED)) == 2


def test_a_damaged_product_goes_where_it_was_made_only_if_it_does_not_count_and_an_archive_has_it(
    reductions: Reductions, context: TransferContext
) -> None:
    observatory = reductions.observatory
    run_id = reductions.make({"science/map.fits": b"m" * 1000})
    reductions.archive()
    [copy] = reductions.copies(run_id, STAGED).values()
    [kept] = reductions.copies(run_id, ARCHIVE).values()
    find_bad(observatory, copy.id)
    with observatory.engine.begin() as connection:
        connection.execute(sa.update(models.ReductionStepRevision).values(retention_days=0))
    tend(context)
    remove(observatory, copy.id)
    assert status_of(observatory, copy.id) is CORRUPT, "it is brought back"
    with transaction(observatory.engine) as session:
        ids = session.scalars(sa.select(models.DataProduct.id)).all()
        advance(session, models.DataProduct, ids, to=ProductState.SUPERSEDED, because="a test", by="a test")
        session.execute(sa.update(COPY).where(COPY.id == kept.id).values(verified_at=None))
    tend(context)
    remove(observatory, copy.id)
    assert status_of(observatory, copy.id) is CORRUPT, "nobody knows whether another is sound"
    change(observatory, COPY, {"id": kept.id}, verified_at=sa.func.now())
    assert tend(context) == 1
    remove(observatory, copy.id)
    assert status_of(observatory, copy.id) is DELETED
    assert not (observatory.directory(STAGED) / copy.path).exists()


def test_damaged_products_that_no_archive_is_to_have_go_when_sound_ones_would(
    reductions: Reductions, context: TransferContext
) -> None:
    observatory = reductions.observatory
    reductions.define(archive=False)
    run_id = reductions.make({"science/map.fits": b"m" * 1000})
    [copy] = reductions.copies(run_id, STAGED).values()
    (observatory.directory(STAGED) / copy.path).chmod(0o600)
    (observatory.directory(STAGED) / copy.path).write_bytes(b"rot")
    find_bad(observatory, copy.id)
    with observatory.engine.begin() as connection:
        connection.execute(sa.update(models.ReductionStepRevision).values(retention_days=0))
    tend(context)
    remove(observatory, copy.id)
    assert status_of(observatory, copy.id) is CORRUPT, "it counts"
    with transaction(observatory.engine) as session:
        ids = session.scalars(sa.select(models.DataProduct.id)).all()
        advance(session, models.DataProduct, ids, to=ProductState.SUPERSEDED, because="a test", by="a test")
    assert tend(context) == 1
    remove(observatory, copy.id)
    assert status_of(observatory, copy.id) is DELETED
    assert not (observatory.directory(STAGED) / copy.path).exists()


@pytest.mark.parametrize("many", [0, 10], ids=["of all", "each"])
def test_many_that_are_alike_are_told_of_together_however_they_are_looked_up(
    observatory: Observatory, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(retention_queries, "_FEW", 1)
    monkeypatch.setattr(retention_queries, "_MANY", many)
    packages = [observatory.observe({f"{number}.fits": b"a" * 100}) for number in range(3)]
    observatory.do_all()
    observatory.request_staging(packages)
    observatory.do_all()
    for package_id in packages:
        find_bad(observatory, observatory.copies(package_id)[STAGED].id)
    plan = json.loads(say(observatory, "retention", "plan", "--json"))["rows"]
    assert [one["copies"] for one in plan if one["what"] == "damaged staged"] == [3]
