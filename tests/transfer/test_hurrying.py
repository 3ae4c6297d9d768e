"""What waits after trouble goes on as soon as that is over, and does not sit out a pause that grew long meanwhile."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.tasks import VERBS
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState, Status
from ccat_ops_db.verbs.spaces import record_space
from ccat_service.retries import Backoff
from tests.transfer.support import START, Observatory, say
from tests.transfer.test_places_away import away, let_a_minute_pass, look

ARCHIVE, BUFFER, SOURCE, STAGED = "cologne/lta", "ccat/buffer", "ccat/chai_raw_data", "cologne/ramses"
LONG = Backoff(first=timedelta(hours=1), ceiling=timedelta(hours=1))


def try_in_vain(observatory: Observatory, operation: Operation) -> None:
    """What waits for an operation is tried, and then rests for long."""
    patient = replace(observatory.worker, backoff=LONG)
    scheduled = observatory.schedule(operation)
    assert scheduled
    for number in scheduled:
        VERBS[operation](patient, number)
    assert observatory.do(operation) == 0


def seen(observatory: Observatory, _: int) -> None:
    look(observatory)


def retried(observatory: Observatory, package_id: int) -> None:
    assert "is tried again" in say(observatory, "package", "retry", str(package_id))


@pytest.mark.parametrize("mended", [seen, retried])
@pytest.mark.parametrize(
    ("place", "operation"), [(SOURCE, Operation.PACKING), (ARCHIVE, Operation.ARCHIVING), (ARCHIVE, Operation.STAGING)]
)
def test_what_waited_for_a_disk_goes_on_when_that_is_seen_again_or_a_person_says_so(
    observatory: Observatory, place: str, operation: Operation, mended: Callable[[Observatory, int], None]
) -> None:
    package_id = observatory.observe({"a.fits": b"a" * 1000})
    if operation is not Operation.PACKING:
        assert observatory.do(Operation.PACKING) == 1
    if operation is Operation.STAGING:
        observatory.do_all()
        observatory.request_staging([package_id])
    look(observatory)
    let_a_minute_pass(observatory)
    with away(observatory.directory(place)):
        try_in_vain(observatory, operation)
        look(observatory)
    assert observatory.do(operation) == 0
    mended(observatory, package_id)
    assert observatory.do(operation) == 1
    observatory.do_all()
    assert observatory.package(package_id).state is PackageState.ARCHIVED
    assert {one.status for one in observatory.transfers()} == {Status.COMPLETED}


def test_what_waits_for_another_place_waits_on(observatory: Observatory) -> None:
    package_id = observatory.observe({"a.fits": b"a" * 1000})
    assert observatory.do(Operation.PACKING) == 1
    look(observatory)
    let_a_minute_pass(observatory)
    with away(observatory.directory(ARCHIVE)):
        try_in_vain(observatory, Operation.ARCHIVING)
        with away(observatory.directory("ccat/primecam_raw_data")):
            look(observatory)
        look(observatory)
        assert observatory.do(Operation.ARCHIVING) == 0
    waits = observatory.one(models.LongTermArchiveTransfer, raw_data_package_id=package_id)
    assert waits.not_before is not None


def test_what_waits_for_another_reason_waits_on_though_it_needs_the_place_that_is_back(
    observatory: Observatory,
) -> None:
    package_id = observatory.observe({"a.fits": b"a" * 1000})
    assert observatory.do(Operation.PACKING) == 1
    look(observatory)
    with away(observatory.directory(ARCHIVE)):
        try_in_vain(observatory, Operation.ARCHIVING)
    let_a_minute_pass(observatory)
    with away(observatory.directory(BUFFER)):
        look(observatory)
    look(observatory)
    waits = observatory.one(models.LongTermArchiveTransfer, raw_data_package_id=package_id)
    assert waits.not_before is not None
    assert ARCHIVE in (waits.failure or "")


@pytest.mark.parametrize(("after", "number"), [(timedelta(seconds=15), 0), (timedelta(minutes=2), 1)])
def test_a_place_that_comes_and_goes_ends_no_pause_and_one_that_was_in_trouble_does(
    observatory: Observatory, after: timedelta, number: int
) -> None:
    """One of two workers cannot write there, and each looks four times a minute."""
    package_id = observatory.observe({"a.fits": b"a" * 1000})
    observatory.do_all()
    observatory.request_staging([package_id])
    with away(observatory.directory(STAGED)):
        try_in_vain(observatory, Operation.STAGING)
    place = observatory.location_id(STAGED)
    for trouble, moment in ((None, START), ("cannot be written", START + after / 2), (None, START + after)):
        with transaction(observatory.engine) as session:
            record_space(session, place, free=10**12, total=10**12, trouble=trouble, now=moment)
    assert observatory.do(Operation.STAGING) == number


def test_what_does_not_wait_is_not_retried(observatory: Observatory) -> None:
    package_id = observatory.observe({"a.fits": b"a"})
    refused = say(observatory, "package", "retry", str(package_id), code=1)
    assert "what can be retried is a failed package, one that waits after trouble, or" in " ".join(refused.split())
