"""Runs on a real Slurm cluster whose controller dies in the middle of them."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ccat_ops_db import models
from ccat_ops_db.states import RunStatus
from ccat_workflow_manager.hpc.slurm.backend import SlurmBackend
from ccat_workflow_manager.verbs.describing import run_directory
from tests.slurm_cluster import SlurmCluster, slurm_cluster
from tests.workflow.verbs.conftest import OpenWorks
from tests.workflow.verbs.works import Works, eventually

pytestmark = pytest.mark.timeout(400)
RUNS = 50
SCRIPT = """
    run=$WORKFLOW_LOG_DIR/../..
    exec 9>>"$run/alone"
    flock -n 9 || echo overlap >>"$run/marks"
    echo start >>"$run/marks"
    sleep 0.5
    cat $(find -L "$WORKFLOW_INPUT_DIR" -type f) >"$WORKFLOW_OUTPUT_DIR/out.txt"
    echo end >>"$run/marks"
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as directory, slurm_cluster(Path(directory)) as found:
        yield found


@pytest.fixture
def works(
    open_works: OpenWorks, cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Works]:
    """An installation whose jobs the cluster runs."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    with open_works(tmp_path) as found:
        backend = SlurmBackend(found.base, grace=timedelta(seconds=1), bundle_size=5, jobs_per_task=3)
        found.workplace = replace(found.workplace, backends={found.location_id: backend})
        yield found


def count(works: Works) -> Counter[RunStatus]:
    return Counter(run.status for run in works.runs())


def marks(works: Works, run: models.ExecutedReductionStep) -> list[str]:
    """What the jobs of a run have written down."""
    return (run_directory(run, works.base).directory / "marks").read_text().split()


def test_nothing_is_lost_or_done_twice_while_the_controller_is_killed_and_comes_back(
    works: Works, cluster: SlurmCluster
) -> None:
    works.define(
        {"key": "reduce", "group_by": ["executed_obs_unit"], "resources": {"memory_gb": 0.4, "time_hours": 0.1}},
        scripts={"reduce": SCRIPT},
    )
    for number in range(RUNS):
        works.observe(f"scan {number}\n")
    eventually(lambda: works.round() >= 0 and count(works)[RunStatus.COMPLETED] >= RUNS // 5, within=120)

    cluster.kill("slurmctld")
    for _ in range(3):
        works.round()
    assert set(count(works)) <= {RunStatus.SUBMITTED, RunStatus.RUNNING, RunStatus.COMPLETED}
    waiting = {run.waiting_for for run in works.runs() if run.status is not RunStatus.COMPLETED}
    assert any(why and "`squeue` says" in why for why in waiting)
    cluster.restart_controller()

    works.settle(within=240)
    assert count(works) == {RunStatus.COMPLETED: RUNS}
    runs = works.runs()
    assert [marks(works, run) for run in runs] == [["start", "end"]] * RUNS
    assert [len(run.attempts) for run in runs] == [1] * RUNS
    assert sorted(works.text(run.products[0]) for run in runs) == sorted(f"scan {number}\n" for number in range(RUNS))
    bundles = works.all(models.JobBundle)
    assert bundles
    assert all(one.submitted_at and 2 <= one.size <= 5 for one in bundles)
