import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import claims
from ccat_ops_db.claims import claim, expire, is_free, release, renew
from ccat_ops_db.models import StagingJob
from ccat_ops_db.session import transaction
from tests.ops_db.rows import World, a_package

LEASE = timedelta(minutes=1)
OVER = timedelta(seconds=-1)
"""A lease that has run out as soon as it is given."""


@pytest.fixture
def jobs(shared_engine: sa.Engine, world: World) -> Iterator[list[int]]:
    """Ten jobs, the later ones tried more often; gone after the test."""
    with transaction(shared_engine) as session:
        packages = [
            a_package(scan=world.scan, module=world.module, name=f"claimed-{part}", part=part) for part in range(2, 12)
        ]
        session.add_all(packages)
        session.flush()
        jobs = [
            StagingJob(raw_data_package_id=package.id, data_location_id=world.processing, retry_count=package.part)
            for package in packages
        ]
        session.add_all(jobs)
        session.flush()
        ids = [job.id for job in jobs]
    yield ids
    with transaction(shared_engine) as session:
        for job in jobs:
            session.delete(job)
        session.flush()
        for package in packages:
            session.delete(package)


def claim_jobs(session: Session, *, by: str, limit: int = 10, lease: timedelta = LEASE, **options: Any) -> list[int]:
    return claim(session, StagingJob, where=sa.true(), by=by, lease=lease, limit=limit, **options)


def holders(session: Session, jobs: Sequence[int]) -> list[str | None]:
    return [session.get_one(StagingJob, job, populate_existing=True).claimed_by for job in jobs]


def test_two_open_transactions_never_claim_the_same_row(shared_engine: sa.Engine, jobs: list[int]) -> None:
    with transaction(shared_engine) as first, transaction(shared_engine) as second:
        assert claim_jobs(first, by="first", limit=4) == jobs[:4]
        assert claim_jobs(second, by="second", limit=10) == jobs[4:]
        assert claim_jobs(second, by="second") == []


def test_many_that_claim_at_once_share_the_rows_out(shared_engine: sa.Engine, jobs: list[int]) -> None:
    start = threading.Barrier(4)

    def claim_all(number: int) -> list[int]:
        claimed: list[int] = []
        start.wait(10)
        while True:
            with transaction(shared_engine) as session:
                batch = claim_jobs(session, by=f"manager {number}", limit=1)
            if not batch:
                return claimed
            claimed += batch

    with ThreadPoolExecutor(4) as pool:
        claimed = [job for batch in pool.map(claim_all, range(4)) for job in batch]
    assert sorted(claimed) == jobs


def test_a_claimed_row_is_claimed_again_only_when_its_lease_is_over(shared_engine: sa.Engine, jobs: list[int]) -> None:
    with transaction(shared_engine) as session:
        claim_jobs(session, by="slow", limit=3, lease=OVER)
        claim_jobs(session, by="alive", limit=10, lease=LEASE)
        assert holders(session, jobs) == ["alive"] * 10
        assert claim_jobs(session, by="third") == []


def test_a_claim_that_is_rolled_back_was_never_made(shared_engine: sa.Engine, jobs: list[int]) -> None:
    with Session(shared_engine) as session:
        claim_jobs(session, by="crashed")
        session.rollback()
    with transaction(shared_engine) as session:
        assert claim_jobs(session, by="next") == jobs


def test_the_first_in_the_given_order_are_claimed_first(shared_engine: sa.Engine, jobs: list[int]) -> None:
    with transaction(shared_engine) as session:
        assert claim_jobs(session, by="it", limit=3, order_by=[StagingJob.retry_count.desc()]) == jobs[-3:]
        assert claim_jobs(session, by="it", limit=3) == jobs[:3]


def test_only_rows_that_fit_the_condition_are_claimed(shared_engine: sa.Engine, jobs: list[int]) -> None:
    with transaction(shared_engine) as session:
        claimed = claim(session, StagingJob, where=StagingJob.retry_count > 9, by="it", lease=LEASE, limit=10)
    assert claimed == jobs[-2:]


def test_renewing_says_who_is_still_held_and_so_who_was_lost(shared_engine: sa.Engine, jobs: list[int]) -> None:
    with transaction(shared_engine) as session:
        claim_jobs(session, by="slow", limit=4, lease=OVER)
        claim_jobs(session, by="quick", limit=2)
        assert renew(session, StagingJob, jobs[:5], by="slow", lease=LEASE) == jobs[2:4]
        assert holders(session, jobs[:5]) == ["quick", "quick", "slow", "slow", None]
        free = set(session.scalars(sa.select(StagingJob.id).where(is_free(StagingJob))))
        assert free == set(jobs[4:])


def test_a_released_row_can_be_claimed_at_once(shared_engine: sa.Engine, jobs: list[int]) -> None:
    with transaction(shared_engine) as session:
        claim_jobs(session, by="first")
        release(session, StagingJob, jobs[:2], by="first")
        assert claim_jobs(session, by="second") == jobs[:2]


def test_nobody_releases_what_somebody_else_claimed_meanwhile(shared_engine: sa.Engine, jobs: list[int]) -> None:
    with transaction(shared_engine) as session:
        claim_jobs(session, by="slow", limit=2, lease=OVER)
        claim_jobs(session, by="quick", limit=1)
        release(session, StagingJob, jobs[:2], by="slow")
        assert holders(session, jobs[:2]) == ["quick", None]


def test_a_lease_is_given_back_for_whoever_holds_it_where_nobody_is_named(
    shared_engine: sa.Engine, jobs: list[int]
) -> None:
    with transaction(shared_engine) as session:
        claim_jobs(session, by="first", limit=2)
        release(session, StagingJob, jobs)
        assert holders(session, jobs) == [None] * 10


def test_the_leases_of_who_is_gone_end_at_once_and_those_of_others_do_not(
    shared_engine: sa.Engine, jobs: list[int]
) -> None:
    with transaction(shared_engine) as session:
        claim_jobs(session, by="long over", limit=1, lease=OVER)
        claim(session, StagingJob, where=StagingJob.id == jobs[1], by="gone", lease=LEASE, limit=1)
        claim(session, StagingJob, where=StagingJob.id == jobs[2], by="alive", lease=LEASE, limit=1)
        assert sorted(claims.holders(session, StagingJob)) == ["alive", "gone"]
        assert expire(session, StagingJob, of=["gone", "long over"]) == [jobs[1]]
        assert claim_jobs(session, by="next") == [jobs[0], jobs[1], *jobs[3:]]
