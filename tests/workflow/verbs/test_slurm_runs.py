"""Runs on a real Slurm cluster that takes jobs away, and whose controller and accounting die in the middle of them."""

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

pytestmark = pytest.mark.timeout(300)
DONE, SAVED, FORGOTTEN, LATE = 5, 12, 5, 3
"""Scans whose jobs end before the controller dies, that it has saved, that it just took, and that come after."""
RUNS = 2 * (DONE + SAVED + FORGOTTEN + LATE)
"""Of each scan one in an array, and one by itself."""
SCRIPT = """
    run=$WORKFLOW_LOG_DIR/../..
    exec 8>>"$run/alone"
    flock -n 8 || echo overlap >>"$run/marks"
    echo start >>"$run/marks"
    until [ -e {go} ]; do sleep 0.1; done
    cat $(find -L "$WORKFLOW_INPUT_DIR" -type f) >"$WORKFLOW_OUTPUT_DIR/out.txt"
    echo end >>"$run/marks"
"""
_UNDER_WAY = {RunStatus.SUBMITTED, RunStatus.RUNNING, RunStatus.COMPLETED}


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as directory, slurm_cluster(Path(directory)) as found:
        yield found


@pytest.fixture
def works(
    open_works: OpenWorks, cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Works]:
    """An installation whose jobs the cluster runs: those of an hour by themselves, others in arrays."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    with open_works(tmp_path) as found:
        backend = SlurmBackend(
            found.base,
            grace=timedelta(seconds=1),
            patience=timedelta(seconds=8),
            bundle_size=5,
            jobs_per_task=3,
            longest_bundled=timedelta(minutes=30),
        )
        found.workplace = replace(found.workplace, backends={found.location_id: backend})
        yield found


def define(works: Works, go: Path) -> None:
    """Two pipelines over all scans, whose software waits for a file to be there."""
    for name, hours in (("together", 0.1), ("alone", 1)):
        resources = {"memory_gb": 0.4, "time_hours": hours}
        step = {"key": "reduce", "group_by": ["executed_obs_unit"], "resources": resources}
        works.define(step, name=name, scripts={"reduce": SCRIPT.format(go=go)})


def observe(works: Works, scans: int) -> None:
    for _ in range(scans):
        works.observe(f"scan {len(works.all(models.ExecutedObsUnit))}\n")


def count(works: Works) -> Counter[RunStatus]:
    return Counter(run.status for run in works.runs())


def are_handed_in(works: Works, runs: int) -> bool:
    """Go on; whether so many runs are there, and all of them as far as the cluster lets them."""
    works.round()
    found = count(works)
    return found.total() == runs and set(found) <= _UNDER_WAY


def marks(works: Works, run: models.ExecutedReductionStep) -> list[str]:
    """What the software of a run has written down, in all its attempts."""
    file = marks_file(works, run)
    return file.read_text().split() if file.exists() else []


def marks_file(works: Works, run: models.ExecutedReductionStep) -> Path:
    return run_directory(run, works.base).directory / "marks"


def held(works: Works) -> list[models.ExecutedReductionStep]:
    """Runs whose software waits until it may go on."""
    return [run for run in works.runs() if marks(works, run) == ["start"]]


def started_at(works: Works, runs: list[models.ExecutedReductionStep]) -> float:
    """When the last of them started."""
    return max(marks_file(works, run).stat().st_mtime for run in runs)


def is_all_over(works: Works, cluster: SlurmCluster) -> bool:
    """Go on, with the help of an administrator and as if hours had passed; whether nothing is under way any more."""
    cluster.resume()
    works.retry_now()
    return works.round() == 0 and works.activity().is_over


def test_runs_whose_jobs_are_preempted_are_tried_again_and_end_once(
    works: Works, cluster: SlurmCluster, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    define(works, go)
    observe(works, 2)
    eventually(lambda: works.round() >= 0 and len(held(works)) == cluster.cpus, within=60)
    taken = {run.id for run in held(works)}
    first = ["--partition=urgent", f"--cpus-per-task={cluster.cpus}", "--output=/dev/null", "--wrap=true"]
    cluster.run("sbatch", "--wait", *first)
    go.touch()
    eventually(lambda: is_all_over(works, cluster), within=60)
    for run in works.runs():
        causes = [attempt.cause for attempt in run.attempts]
        assert run.status is RunStatus.COMPLETED
        assert marks(works, run) == (["start", "start", "end"] if run.id in taken else ["start", "end"])
        assert [bool(cause and "it was preempted by a job that goes first" in cause) for cause in causes] == (
            [True, False] if run.id in taken else [False]
        )


def test_nothing_is_lost_or_done_twice_while_the_controller_is_killed_and_comes_back(
    works: Works, cluster: SlurmCluster, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    define(works, go)
    go.touch()
    observe(works, DONE)
    works.settle(within=60)
    assert count(works) == {RunStatus.COMPLETED: 2 * DONE}

    go.unlink()
    observe(works, SAVED)
    eventually(lambda: are_handed_in(works, 2 * (DONE + SAVED)), within=60)
    eventually(lambda: works.round() >= 0 and len(held(works)) == cluster.cpus, within=60)
    running = held(works)
    eventually(lambda: cluster.has_saved(since=started_at(works, running)), within=30)
    observe(works, FORGOTTEN)
    eventually(lambda: are_handed_in(works, RUNS - 2 * LATE), within=60)

    cluster.kill("slurmctld")
    cluster.kill("slurmdbd")
    go.touch()
    eventually(lambda: all(marks(works, run) == ["start", "end"] for run in running))
    works.round()
    assert set(count(works)) <= _UNDER_WAY
    waiting = {run.waiting_for for run in works.runs() if run.status is not RunStatus.COMPLETED}
    assert any(why and "`squeue` says" in why for why in waiting)
    observe(works, LATE)  # their jobs get numbers of those that it forgot

    cluster.restart_accounting()  # without it, a controller as young as this one refuses to start
    cluster.start("slurmctld")
    cluster.until_ready()
    eventually(lambda: is_all_over(works, cluster), within=150)
    runs = works.runs()
    assert count(works) == {RunStatus.COMPLETED: RUNS}
    assert [marks(works, run) for run in runs] == [["start", "end"]] * RUNS
    made = [works.text(product) for run in runs for product in run.products]
    assert sorted(made) == sorted(2 * [f"scan {number}\n" for number in range(RUNS // 2)])
    bundled = {one.id for one in works.all(models.JobBundle) if one.size > 1 and one.submitted_at}
    assert {run.attempts[-1].job_bundle_id in bundled for run in runs} == {True, False}
    eventually(lambda: cluster.run("squeue", "--noheader") == "", within=60)
