"""Two trigger-managers on one database, as two hosts would run them: nothing is made twice, and nothing is missed."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat.stack.redis import RedisAddress
from ccat_ops_db import models
from ccat_ops_db.states import RunStatus
from tests.workflow.verbs.manager_process import ManagerProcess
from tests.workflow.verbs.works import Works, eventually

CHANGES = sa.select(sa.func.count()).select_from(models.PendingChange)


@pytest.fixture
def managers(works: Works, redis_address: RedisAddress, tmp_path: Path) -> Iterator[tuple[ManagerProcess, ...]]:
    """Two of them; who is left stops at the end."""
    both = tuple(
        ManagerProcess("trigger-manager", works, redis_address, log=tmp_path / f"manager-{number}")
        for number in range(2)
    )
    for manager in both:
        eventually(manager.has_started)
    yield both
    both[-1].stop()


def test_each_sub_group_gets_one_run_while_packages_arrive_and_a_manager_dies(
    works: Works, managers: tuple[ManagerProcess, ...]
) -> None:
    works.define({"key": "calibrate", "group_by": ["executed_obs_unit"]}, {"key": "grid", "group_by": ["source"]})
    for number in range(20):
        works.archived(f"p{number}", source=["M17", "Saturn"][number % 2])
        if number == 10:
            managers[0].kill()
    eventually(lambda: not works.session(lambda session: session.scalar(CHANGES)))
    runs = Counter((run.reduction_step.key, run.sub_group_key) for run in works.runs(status=RunStatus.PENDING))
    assert set(runs.values()) == {1}
    assert Counter(step for step, _ in runs) == {"calibrate": 20, "grid": 2}
