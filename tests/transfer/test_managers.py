import json
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer import managers
from ccat_data_transfer.managers import TransferContext, due, tick
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.outcomes import TRIES
from ccat_data_transfer.verbs.planning import unpacked_files
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, Named, find
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, PackageState, PhysicalCopyStatus, Status
from ccat_service.servers import RedisSettings
from ccat_service.tasks import make_celery_app
from tests.transfer.processes import Process, settings_of
from tests.transfer.support import Observatory, eventually, say

SITE = Named("site", sa.select(models.Site), models.Site.short_name)
A_MOMENT = timedelta(milliseconds=20)
PROGRAM = Path(__file__).parent / "programs/transfer.py"


def messages(redis_settings: RedisSettings) -> dict[str, int]:
    with redis_settings.client("tests") as client:
        return {str(key, "ascii"): int(client.llen(key)) for key in client.scan_iter("transfer.*")}


def status(observatory: Observatory) -> Status:
    return observatory.one(models.LongTermArchiveTransfer).status


def test_a_complete_scan_is_planned_and_sent_to_the_packers_of_its_source(
    observatory: Observatory, context: TransferContext, redis_settings: RedisSettings
) -> None:
    scan_id = observatory.start_scan()
    observatory.write(scan_id, {"a.fits": b"a"})
    assert tick(context) == 0
    observatory.finish_scan(scan_id, expected_files=1)

    assert tick(context) == 2
    assert messages(redis_settings) == {"transfer.ccat_chai_raw_data_packing": 1}
    assert status(observatory) is Status.SCHEDULED


def test_an_incomplete_scan_is_packed_after_the_quiet_period_which_the_manager_knows_in_advance(
    observatory: Observatory, redis_settings: RedisSettings
) -> None:
    context = TransferContext(
        engine=observatory.engine,
        app=make_celery_app(redis_settings, name="tests"),
        name="manager",
        quiet_period=timedelta(seconds=3),
    )
    scan_id = observatory.start_scan()
    observatory.write(scan_id, {"a.fits": b"a"})

    assert tick(context) == 0
    expected = due(context)
    assert expected is not None
    assert abs(expected - datetime.now(UTC)) <= timedelta(seconds=3)
    assert eventually(lambda: tick(context)) == 2


def test_a_lost_message_is_sent_again_when_its_lease_is_over(
    observatory: Observatory, context: TransferContext, redis_settings: RedisSettings
) -> None:
    observatory.observe({"a.fits": b"a"})
    tick(context)
    with redis_settings.client("tests") as client:
        client.flushdb()

    eventually(lambda: tick(context))
    assert messages(redis_settings) == {"transfer.ccat_chai_raw_data_packing": 1}
    assert observatory.one(models.LongTermArchiveTransfer).retry_count == 0


def test_no_more_than_so_many_transfers_are_under_way_at_one_location(
    observatory: Observatory, redis_settings: RedisSettings
) -> None:
    for number in range(4):
        observatory.observe({f"{number}.fits": b"a"})
    app = make_celery_app(redis_settings, name="tests")
    context = TransferContext(engine=observatory.engine, app=app, name="manager", outstanding=3)

    assert tick(context) == 3
    assert tick(context) == 0
    assert messages(redis_settings) == {"transfer.ccat_chai_raw_data_packing": 3}


def test_two_managers_at_once_send_each_transfer_once(observatory: Observatory, redis_settings: RedisSettings) -> None:
    for number in range(6):
        scan_id = observatory.start_scan()
        observatory.write(scan_id, {f"{number}.fits": b"a"})
        observatory.finish_scan(scan_id, expected_files=1)
    app = make_celery_app(redis_settings, name="tests")
    contexts = [TransferContext(engine=observatory.engine, app=app, name=f"manager {number}") for number in range(2)]
    with ThreadPoolExecutor() as both:
        list(both.map(tick, contexts))
    tick(contexts[0])

    assert messages(redis_settings) == {"transfer.ccat_chai_raw_data_packing": 6}
    with transaction(observatory.engine) as session:
        assert len(session.scalars(sa.select(models.RawDataPackage)).all()) == 6


def test_a_transfer_whose_workers_are_lost_again_and_again_is_given_up(observatory: Observatory) -> None:
    package_id = observatory.observe({"a.fits": b"a"})
    for tries in range(TRIES):
        assert observatory.one(models.LongTermArchiveTransfer).retry_count == tries
        scheduled = observatory.schedule(Operation.PACKING)
        with transaction(observatory.engine) as session:
            noun = models.LongTermArchiveTransfer
            advance(
                session, noun, scheduled, to=Status.IN_PROGRESS, because="taken", by="a worker killed for its memory"
            )
            session.execute(sa.update(noun).values(lease_until=sa.func.clock_timestamp() - A_MOMENT))
        observatory.recover()

    assert status(observatory) is Status.FAILED
    assert "ended unexpectedly 10 times" in (observatory.package(package_id).failure or "")


def test_trouble_with_one_scan_does_not_keep_another_waiting(
    observatory: Observatory, context: TransferContext
) -> None:
    with transaction(observatory.engine) as session:
        cologne = find(session, SITE, "cologne")
        path = observatory.root / "cologne/without_buffer"
        location = models.DiskDataLocation(site=cologne, name="without_buffer", path=str(path))
        location.location_type = LocationType.SOURCE
        session.add(location)
    for source in ("ccat/chai_raw_data", "cologne/without_buffer", "ccat/chai_raw_data", "ccat/chai_raw_data"):
        scan_id = observatory.start_scan()
        observatory.write(scan_id, {"a.fits": b"a"}, location=source)
        observatory.finish_scan(scan_id, expected_files=1)

    tick(context)
    with transaction(observatory.engine) as session:
        assert session.scalars(sa.select(models.RawDataPackage.state)).all() == [PackageState.WAITING] * 3
        assert len(unpacked_files(session).groups) == 1


@pytest.fixture
def processes(observatory: Observatory, redis_settings: RedisSettings, tmp_path: Path) -> Iterator[None]:
    """A transfer-manager and a worker."""
    variables = settings_of(observatory.engine.url.render_as_string(hide_password=False), redis_settings)
    both = [
        Process([sys.executable, PROGRAM, role], variables, log=tmp_path / role)
        for role in ("transfer-manager", "transfer-worker")
    ]
    for process in both:
        eventually(process.has_started, within=30)
    with redis_settings.client("tests") as client:
        eventually(lambda: any(one["cmd"] == "brpop" for one in client.client_list()))
    yield
    for process in both:
        process.stop()


@pytest.mark.usefixtures("processes")
def test_a_manager_and_a_worker_bring_each_scan_to_where_it_is_kept_and_reduced_and_delete_its_source_when_told(
    observatory: Observatory,
) -> None:
    for _ in range(2):
        scan_id = observatory.start_scan()
        files = {f"{scan_id}.fits": os.urandom(5_000_000)}
        observatory.write(scan_id, files)
        observatory.finish_scan(scan_id, expected_files=1)
        (package_id,) = eventually(partial(_archived, observatory, scan_id))
        (job_id,) = observatory.request_staging([package_id])
        eventually(partial(_completed, observatory, job_id))

        staged = observatory.directory("cologne/ramses") / observatory.copies(package_id)["cologne/ramses"].path
        assert {file.name: file.read_bytes() for file in staged.iterdir()} == files
    assert observatory.leftovers() == []

    source = observatory.directory("ccat/chai_raw_data")
    assert len(list(source.iterdir())) == 2
    observatory.keep("ccat/chai_raw_data", days=0)
    eventually(lambda: not list(source.iterdir()))
    eventually(partial(_are_deleted, observatory, "ccat/chai_raw_data"))
    observatory.check_that_rows_tell_what_is_there()


def _archived(observatory: Observatory, scan_id: uuid.UUID) -> Sequence[int]:
    with transaction(observatory.engine) as session:
        found = sa.select(models.RawDataPackage.id).filter_by(executed_obs_unit_id=scan_id, state=PackageState.ARCHIVED)
        return session.scalars(found).all()


def _are_deleted(observatory: Observatory, location: str) -> bool:
    copies = sa.select(models.PhysicalCopy.status).filter_by(data_location_id=observatory.location_id(location))
    with transaction(observatory.engine) as session:
        return set(session.scalars(copies)) == {PhysicalCopyStatus.DELETED}


def _completed(observatory: Observatory, job_id: int) -> bool:
    return observatory.one(models.StagingJob, id=job_id).status is Status.COMPLETED


def test_why_raw_files_get_into_no_package_is_told_until_they_do(
    observatory: Observatory, context: TransferContext
) -> None:
    with transaction(observatory.engine) as session:
        buffer = find(session, LOCATION, "ccat/buffer")
        buffer.active = False
    for number in range(2):
        scan_id = observatory.start_scan()
        observatory.write(scan_id, {f"{number}.fits": bytes(1000)})
        observatory.finish_scan(scan_id, expected_files=1)
    tick(context)
    tick(context)
    [held] = json.loads(say(observatory, "transfer", "status", "--json"))["unplanned"]
    assert (held["scans"], held["files"], held["size_bytes"]) == (2, 2, 2000)
    assert held["failure"].startswith("There is no active buffer location at site ccat")
    assert "2 registered files that cannot be put into packages" in say(observatory, "transfer", "status")
    late = datetime.now(UTC) - timedelta(days=1)
    with transaction(observatory.engine) as session:
        sentences = [one.sentence for one in conditions(session, late=late) if one.key.startswith("raw files: ")]
    assert len(sentences) == 1
    assert sentences[0].startswith("2 raw files get into no package, of 2 scans, and so into no archive: There is no ")
    with transaction(observatory.engine) as session:
        find(session, LOCATION, "ccat/buffer").active = True
    tick(context)
    with transaction(observatory.engine) as session:
        assert list(conditions(session, late=late)) == []
        assert session.scalars(sa.select(models.PlanningTrouble)).all() == []


def test_a_defect_in_one_part_of_a_round_keeps_no_transfer_waiting(
    observatory: Observatory, context: TransferContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> int:
        raise LookupError("a row that nobody foresaw")

    for part in ("cancel_unwanted", "readdress", "ship", "aim", "repair", "tell_unserved", "recover_lost"):
        monkeypatch.setattr(managers, part, broken)
    package_id = observatory.observe({"a.fits": b"a"})
    tick(context)
    assert observatory.package(package_id).state is PackageState.WAITING
    assert [one.status for one in observatory.transfers()] == [Status.SCHEDULED]


def test_what_is_in_no_archive_yet_comes_before_further_copies(observatory: Observatory) -> None:
    old = observatory.observe({"old.fits": b"a"})
    observatory.do_all()
    new = observatory.observe({"new.fits": b"b"})
    observatory.do(Operation.PACKING)
    with transaction(observatory.engine) as session:
        [way] = session.scalars(sa.select(models.LongTermArchiveTransfer).filter_by(raw_data_package_id=new))
        further = models.LongTermArchiveTransfer(
            id=0, raw_data_package_id=old, origin_id=way.origin_id, destination_id=way.destination_id
        )
        session.add(further)
    assert observatory.schedule(Operation.ARCHIVING) == [way.id, 0]
