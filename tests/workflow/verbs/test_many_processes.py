"""Two of each manager and four workers over two locations, as real processes: everything is made once."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat.stack.redis import RedisAddress
from ccat_ops_db import models
from ccat_ops_db.states import AlertKind, RunStatus
from ccat_workflow_manager.hpc.local.killing import kill_jobs
from tests.workflow.verbs.fleet import Member, fleet
from tests.workflow.verbs.works import Works, eventually

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
GRID = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}
SCANS = 6


@pytest.fixture
def second(works: Works) -> Iterator[int]:
    """A second processing location; its id."""
    yield works.add_location("second", backend_settings={"pipeline_base_dir": "its/runs", "cpus": 2})
    kill_jobs(works.root / "cologne/second/its/runs")


def members(works: Works, redis: RedisAddress, second: int, *, logs: Path) -> list[Member]:
    """Both instances serve both locations; of the workers two serve one of them only."""
    both, first = f"{works.location_id},{second}", str(works.location_id)
    served = {
        **{f"{name}-{number}": both for name in ("trigger", "workflow", "result") for number in range(2)},
        **{f"worker-{number}": one for number, one in enumerate((both, both, first, str(second)))},
    }
    variables = {
        **{key: value for key, value in os.environ.items() if not key.startswith("CCAT_")},
        "CCAT_OPS_DB_URL": works.engine.url.render_as_string(hide_password=False),
        "CCAT_WORKFLOW_MANAGER_ALERT_COMMAND": f"dd of={logs}/told status=none",
        "CCAT_WORKFLOW_MANAGER_REDIS_HOST": redis.host,
        "CCAT_WORKFLOW_MANAGER_REDIS_PORT": str(redis.port),
        "CCAT_WORKFLOW_MANAGER_REDIS_PASSWORD": redis.password,
    }
    return [
        Member(
            name="celery-worker" if name.startswith("worker") else f"{name.partition('-')[0]}-manager",
            environment={**variables, "CCAT_WORKFLOW_MANAGER_PROCESSING_LOCATION_ID": locations},
            log=str(logs / f"{name}.log"),
        )
        for name, locations in served.items()
    ]


def test_two_of_each_manager_and_four_workers_over_two_locations_make_everything_once(
    works: Works, second: int, redis_address: RedisAddress, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    job = "; ".join(
        [
            f'echo "start $WORKFLOW_RUN_ID" >>{marks}',
            'echo x >"$WORKFLOW_OUTPUT_DIR/out.txt"',
            f'echo "end $WORKFLOW_RUN_ID" >>{marks}',
        ]
    )
    places = {"here": "cologne/ramses", "there": "cologne/second"}
    for name, location in places.items():
        works.define(CALIBRATE, GRID, name=name, location=location, scripts=dict.fromkeys(("calibrate", "grid"), job))
    processes = members(works, redis_address, second, logs=tmp_path)
    works.session(lambda session: session.add(models.Alert(kind=AlertKind.BACKLOG, key="x", sentence="it was late")))
    with fleet(processes):
        for number in range(SCANS):
            works.observe(str(number))
        for one in processes:
            eventually(one.has_started)
        eventually(lambda: not works.transfer() and works.activity().is_over and works.runs(), within=120)
    runs = works.runs()
    assert {run.status for run in runs} == {RunStatus.COMPLETED}
    assert {len(run.products) for run in runs} == {1}
    assert [(run.id, one.failure_class, one.cause) for run in runs for one in run.attempts[:-1]] == []
    names = {one.id: one.name for one in works.all(models.Pipeline)}
    made = Counter((names[run.pipeline_id], run.reduction_step.key, run.sub_group_key) for run in runs)
    assert Counter(key[:2] for key in made if key[1] == "calibrate") == dict.fromkeys(
        ((name, "calibrate") for name in places), SCANS
    )
    assert max(made[key] for key in made if key[1] == "calibrate") == 1
    lines = marks.read_text().splitlines()
    assert Counter(lines) == Counter(f"{mark} {run.id}" for run in runs for mark in ("start", "end"))
    assert all(lines.index(f"start {run.id}") < lines.index(f"end {run.id}") for run in runs)
    for run in runs:
        [product] = run.products
        [copy] = works.all(models.PhysicalCopy, data_product_id=product.id)
        assert copy.data_location_id == run.data_location_id
        file = works.root / places[names[run.pipeline_id]] / copy.path
        assert file.read_text() == "x\n"
        assert ("its/runs" in copy.path) == (run.data_location_id == second)
    assert "over: backlog: it was late" in (tmp_path / "told").read_text()
    free = sa.select(models.DataLocation.free_bytes).where(models.DataLocation.backend.is_not(None))
    assert all(works.all_of(free))
