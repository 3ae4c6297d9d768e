"""Two trigger-managers on one database, as two hosts would run them: nothing is made twice, and nothing is missed."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat.stack.redis import RedisAddress
from ccat_ops_db import models
from ccat_ops_db.states import RunStatus
from tests.workflow.verbs.works import Works, eventually

CHANGES = sa.select(sa.func.count()).select_from(models.PendingChange)


class TriggerManager:
    """A real process, with its log."""

    def __init__(self, works: Works, redis: RedisAddress, *, log: Path) -> None:
        self._log = log
        variables = {
            "CCAT_OPS_DB_URL": works.engine.url.render_as_string(hide_password=False),
            "CCAT_WORKFLOW_MANAGER_REDIS_HOST": redis.host,
            "CCAT_WORKFLOW_MANAGER_REDIS_PORT": str(redis.port),
            "CCAT_WORKFLOW_MANAGER_REDIS_PASSWORD": redis.password,
            "CCAT_WORKFLOW_MANAGER_PIPELINE_BASE_DIR": str(works.base),
            "CCAT_WORKFLOW_MANAGER_PROCESSING_LOCATION_ID": str(works.location_id),
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("CCAT_")}
        command = [sys.executable, "-m", "ccat", "trigger-manager"]
        with log.open("w") as output:
            self._process = subprocess.Popen(
                command, env=inherited | variables, stdout=output, stderr=output, cwd=log.parent
            )

    def has_started(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        return "manager started" in self._log.read_text()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(10) == 0, self._log.read_text()


@pytest.fixture
def managers(works: Works, redis_address: RedisAddress, tmp_path: Path) -> Iterator[tuple[TriggerManager, ...]]:
    """Two of them; who is left stops at the end."""
    both = tuple(TriggerManager(works, redis_address, log=tmp_path / f"manager-{number}") for number in range(2))
    for manager in both:
        eventually(manager.has_started)
    yield both
    both[-1].stop()


def test_each_sub_group_gets_one_run_while_packages_arrive_and_a_manager_dies(
    works: Works, managers: tuple[TriggerManager, ...]
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
