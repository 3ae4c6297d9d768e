"""What the Slurm backend does where one job, its files or its host are in trouble: none of it is that of others."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ccat_ops_db.errors import CcatError
from ccat_ops_db.states import FailureClass
from ccat_workflow_manager.hpc.base import BackendUnavailable, JobSpec, JobState
from ccat_workflow_manager.hpc.cluster import files
from ccat_workflow_manager.hpc.cluster.conclusion import ABSENT, Heard, Phase, conclude
from ccat_workflow_manager.hpc.cluster.files import ClusterFiles
from ccat_workflow_manager.hpc.cluster.marks import ExitMark
from ccat_workflow_manager.hpc.failures import failure_class, one_line_cause
from ccat_workflow_manager.hpc.slurm import commands
from ccat_workflow_manager.hpc.slurm.asking import Slurm, SlurmRefuses, trouble_of
from ccat_workflow_manager.hpc.slurm.backend import SlurmBackend
from ccat_workflow_manager.hpc.slurm.commands import Cluster
from ccat_workflow_manager.hpc.slurm.hearing import hear
from ccat_workflow_manager.hpc.slurm.parsing import Row
from tests.workflow.hpc.test_slurm_words import (
    FORESTALLED,
    IN_TURN,
    NAME,
    NOW,
    RECORD,
    SPEC,
    Recorded,
    handed_in,
    marks,
    row,
)

RUNS = "2026-04-05T10:00:00|N/A|node7|None"
WRAPPER = Path(files.__file__).with_name("job.sh")


def spec_of(base: Path, name: str) -> JobSpec:
    directory = base / name
    directory.mkdir(exist_ok=True)
    return JobSpec(**{**vars(SPEC), "name": name, "directory": directory})


class Ending(Recorded):
    """Slurm, and all jobs that it was told to end."""

    def __init__(self, *rows: str) -> None:
        super().__init__(*rows)
        self.named: list[str] = []

    def run(self, command: Sequence[str], *, given: str = "") -> str:
        if command[0] == "scancel":
            self.named += [word for word in command if word.isdecimal()]
        return super().run(command, given=given)


class Accounting(Recorded):
    """Slurm, whose controller knows no job, and whose accounting says of each that it is asked for how it ended."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.asked: list[int] = []

    def run(self, command: Sequence[str], *, given: str = "") -> str:
        if command[0] != "sacct":
            return super().run(command, given=given)
        given_for = "--jobs=" if any(word.startswith("--jobs=") for word in command) else "--name="
        [words] = [word.removeprefix(given_for).split(",") for word in command if word.startswith(given_for)]
        self.asked.append(len(words))
        return "".join(
            f"{one}|{self.name}|FAILED|0:9|2026-04-05T10:00:00|2026-04-05T10:30:00|node7|00:00||\n" for one in words
        )


# Who looked before somebody else did something


def test_a_worker_that_looked_for_a_job_before_another_handed_it_in_with_others_follows_it_there(
    tmp_path: Path,
) -> None:
    """It remembered the job as one by itself, which Slurm seemed to have forgotten, and kept it from ever starting."""
    slurm = Recorded("12_0|bundle|PENDING|N/A|N/A|n/a|Resources")
    slurm.silent.add("sbatch")
    watching, other = (SlurmBackend(tmp_path, slurm=slurm, patience=timedelta()) for _ in range(2))
    job = spec_of(tmp_path, "first")
    with pytest.raises(BackendUnavailable):
        watching.submit(job)
    assert watching.find(["first"]) == {}
    slurm.silent.clear()
    ids = other.submit_bundle("bundle", [job])
    assert [watching.observe(ids.values())[ids["first"]].state for _ in range(2)] == [JobState.PENDING] * 2


# Files


def test_a_job_whose_files_cannot_be_read_is_unknown_and_hides_no_other(tmp_path: Path) -> None:
    slurm = Recorded()
    backend = SlurmBackend(tmp_path / "disk", slurm=slurm)
    (tmp_path / "disk").mkdir()
    damaged = handed_in(backend, tmp_path / "disk", "damaged")
    slurm.answers |= {"sbatch": "13\n", "squeue": f"13|whole|RUNNING|{RUNS}\n"}
    whole = handed_in(backend, tmp_path / "disk", "whole")
    (tmp_path / "disk/damaged/job.exit").mkdir()
    seen = backend.observe([damaged, whole])
    assert (seen[damaged].state, seen[whole].state) == (JobState.UNKNOWN, JobState.RUNNING)
    assert "its files cannot be read: [Errno 21] Is a directory" in (seen[damaged].trouble or "")
    backend.cancel([damaged, whole])
    assert slurm.ended == ["13"]
    (tmp_path / "disk").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError, match="its disk is away, mount it"):
        backend.observe([damaged, whole])
    with pytest.raises(FileNotFoundError, match="its disk is away, mount it"):
        backend.find(["damaged", "whole"])  # else they would count as never handed in


def test_jobs_end_also_where_that_cannot_be_written_down(tmp_path: Path) -> None:
    """As on a disk without room, which they may be filling."""
    slurm = Ending(f"12|removed|RUNNING|{RUNS}", f"13|whole|RUNNING|{RUNS}")
    backend = SlurmBackend(tmp_path, slurm=slurm)
    removed = handed_in(backend, tmp_path, "removed")
    slurm.answers["sbatch"] = "13\n"
    whole = handed_in(backend, tmp_path, "whole")
    shutil.rmtree(tmp_path / "removed")
    backend.cancel([removed, whole])
    assert sorted(slurm.named) == ["12", "13"]


def test_a_forgotten_job_whose_directory_is_away_hides_no_other(tmp_path: Path) -> None:
    slurm = Recorded(f"13|whole|RUNNING|{RUNS}")
    backend = SlurmBackend(tmp_path, slurm=slurm, patience=timedelta())
    removed = handed_in(backend, tmp_path, "removed")
    slurm.answers["sbatch"] = "13\n"
    whole = handed_in(backend, tmp_path, "whole")
    shutil.rmtree(tmp_path / "removed")
    seen = backend.observe([removed, whole])
    assert (seen[removed].state, seen[whole].state) == (JobState.UNKNOWN, JobState.RUNNING)
    assert seen[removed].trouble == "the cluster does not know it any more, and it has left no word of its end"


def test_nothing_of_old_jobs_is_kept(tmp_path: Path) -> None:
    backend = SlurmBackend(tmp_path, slurm=Recorded())
    handed_in(backend, tmp_path, "first")
    for path in (tmp_path / "cluster-jobs").rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    backend.observe([])
    left = {path.name for path in (tmp_path / "cluster-jobs").rglob("*")}
    assert {name for name in left if not name.endswith(".sh")} == {"ids", ".pruned"}


@pytest.mark.parametrize(
    ("missing", "says"), [("workspace", "/workspace"), ("logs/stdout.log", "/logs/stdout.log"), ("logs", None)]
)
def test_a_job_whose_directories_its_host_does_not_see_says_so_at_once_and_its_software_is_not_blamed(
    tmp_path: Path, missing: str, says: str | None
) -> None:
    for name in ("workspace", "logs"):
        (tmp_path / name).mkdir()
    if missing == "logs/stdout.log":
        (tmp_path / missing).mkdir()  # nothing can be written there
    else:
        shutil.rmtree(tmp_path / missing)
    stdout, stderr = tmp_path / "logs/stdout.log", tmp_path / "logs/stderr.log"
    words = (tmp_path, tmp_path / "workspace", stdout, stderr, "60", "1", "12", "true")
    done = subprocess.run(["/bin/sh", WRAPPER, *words], capture_output=True, check=False)
    record = RECORD.model_copy(update={"directory": tmp_path})
    seen = conclude(record, ClusterFiles(tmp_path, grace=timedelta()).marks(record), ABSENT, now=NOW)
    assert (done.returncode, seen.exit_code, failure_class(seen)) == (75, 75, FailureClass.INFRASTRUCTURE)
    log = stderr.read_text() if stderr.exists() else ""
    assert says is None or says in one_line_cause(log, seen, memory_gb=1)


# More at once than one command names


def written_down(base: Path, names: Sequence[str], *, bundle: str) -> list[str]:
    """Jobs that were handed in some time ago, each as a task of an array; their ids."""
    kept = ClusterFiles(base, grace=timedelta())
    (base / "cluster-jobs/ids").mkdir(parents=True)
    for task, name in enumerate(names):
        record = IN_TURN.model_copy(update={"name": name, "cluster_name": bundle, "task": task, "directory": base})
        (base / f"cluster-jobs/{name}.json").write_text(record.model_dump_json())
    return [kept.know(name, f"12_{task}:0") for task, name in enumerate(names)]


def test_of_more_jobs_than_the_accounting_is_asked_about_at_a_time_the_others_are_judged_a_round_later(
    tmp_path: Path,
) -> None:
    slurm = Accounting("bundle")
    backend = SlurmBackend(tmp_path, slurm=slurm, patience=timedelta())
    ids = written_down(tmp_path, [f"job-{number}" for number in range(1002)], bundle="bundle")
    first = backend.observe(ids)
    later = [job_id for job_id, seen in first.items() if seen.state is JobState.UNKNOWN]
    assert (slurm.asked, len(later)) == ([1000], 2)
    assert all("about this one in a moment" in (first[job_id].trouble or "") for job_id in later)
    assert {seen.state for job_id, seen in first.items() if job_id not in later} == {JobState.LOST}
    assert [seen.state for seen in backend.observe(later).values()] == [JobState.LOST] * 2


def test_more_names_than_a_command_line_takes_are_looked_for_in_several(tmp_path: Path) -> None:
    slurm = Accounting("others")
    backend = SlurmBackend(tmp_path, slurm=slurm)
    (tmp_path / "cluster-jobs").mkdir()
    names = [f"job-{number}" for number in range(1001)]
    for name in names:
        record = RECORD.model_copy(update={"name": name, "cluster_name": name, "directory": tmp_path})
        (tmp_path / f"cluster-jobs/{name}.json").write_text(record.model_dump_json())
    assert backend.find(names) == {}
    assert slurm.asked == [1000, 1]


# Tasks of several jobs


A_MINUTE_AGO = Heard(phase=Phase.ENDED, ended_at=NOW - timedelta(minutes=1))
FAILED_NODE = "its node failed"


@pytest.mark.parametrize(
    ("code", "ended", "means"),
    [
        (
            143,
            replace(A_MINUTE_AGO, is_lost=True, reason=FAILED_NODE),
            {"state": JobState.LOST, "trouble": FAILED_NODE},
        ),
        (143, replace(A_MINUTE_AGO, timed_out=True), {"timed_out": True, "exit_code": 143}),
        (143, replace(A_MINUTE_AGO, cancelled=True), {"cancelled": True}),
        (137, replace(A_MINUTE_AGO, out_of_memory=True), {"out_of_memory": True, "exit_code": 137}),
        (1, replace(A_MINUTE_AGO, out_of_memory=True), {"out_of_memory": False, "exit_code": 1}),
        (0, replace(A_MINUTE_AGO, is_lost=True, cancelled=True), {"state": JobState.FINISHED, "cancelled": False}),
    ],
)
def test_what_ended_a_task_ended_the_job_that_it_ran_and_none_that_was_over(
    code: int, ended: Heard, means: dict[str, object]
) -> None:
    seen = conclude(IN_TURN, marks(code=code), ended, now=NOW)
    assert vars(seen) | means == vars(seen)
    before = conclude(IN_TURN, marks(code=code), replace(ended, ended_at=NOW), now=NOW)
    assert (before.state, before.timed_out, before.cancelled) == (JobState.FINISHED, False, False)


def test_a_job_that_its_task_ran_is_not_lost_before_its_marks_may_be_seen() -> None:
    """Hosts keep for a minute that a file was not there."""
    ended = Heard(phase=Phase.ENDED, exit_code=0, ended_at=NOW - timedelta(seconds=60))
    seen = conclude(IN_TURN, marks(start=None), ended, now=NOW)
    assert (seen.state, seen.queue_reason) == (JobState.PENDING, "its array task has ended, maybe before its turn")
    assert conclude(IN_TURN, marks(start=None), ended, now=NOW + timedelta(seconds=5)).state is JobState.LOST


def test_a_job_that_was_given_up_before_it_started_has_no_exit_code_of_its_software() -> None:
    refused = Heard(phase=Phase.ENDED, exit_code=1, ended_at=NOW - timedelta(hours=1))
    seen = conclude(RECORD, FORESTALLED, refused, now=NOW)
    assert (seen.state, seen.exit_code) == (JobState.LOST, None)


def test_a_job_that_was_asked_to_end_is_not_judged_before_it_is_seen_whether_its_task_ends_too() -> None:
    end = ExitMark(exit_code=3, at=NOW.timestamp(), cpu_ticks=1, was_asked=True)
    runs, found = Heard(phase=Phase.RUNNING), replace(marks(), exit=end)
    assert conclude(IN_TURN, found, runs, now=NOW + timedelta(seconds=9)).state is JobState.RUNNING
    assert conclude(IN_TURN, found, runs, now=NOW + timedelta(seconds=10)).exit_code == 3
    by_itself = replace(marks(), exit=end.model_copy(update={"was_asked": False}))
    assert conclude(IN_TURN, by_itself, runs, now=NOW).exit_code == 3


def test_while_hosts_clear_up_after_a_task_that_ends_it_is_waited_for_longer_how_it_ended() -> None:
    end = ExitMark(exit_code=3, at=NOW.timestamp(), cpu_ticks=1, was_asked=True)
    ending = hear(Row(job_id="13", name=IN_TURN.cluster_name, state="COMPLETING"), None, name=IN_TURN.cluster_name)
    found = replace(marks(), exit=end)
    assert conclude(IN_TURN, found, ending, now=NOW + timedelta(seconds=59)).state is JobState.RUNNING
    assert conclude(IN_TURN, found, ending, now=NOW + timedelta(seconds=60)).exit_code == 3
    asked_before_it_heard = replace(marks(), exit=end.model_copy(update={"was_asked": False}))
    assert conclude(IN_TURN, asked_before_it_heard, ending, now=NOW).state is JobState.RUNNING
    assert conclude(IN_TURN, marks(code=0), ending, now=NOW).exit_code == 0


def test_a_job_that_is_killed_while_its_task_goes_on_ran_out_of_memory() -> None:
    runs = Heard(phase=Phase.RUNNING, host="node7")
    seen = conclude(IN_TURN, marks(code=137), runs, now=NOW)
    assert (seen.out_of_memory, failure_class(seen)) == (True, FailureClass.RESOURCES)
    cancelled = conclude(IN_TURN, marks(code=137, cancelled=NOW - timedelta(minutes=2)), runs, now=NOW)
    assert (cancelled.out_of_memory, cancelled.cancelled) == (False, True)


@pytest.mark.parametrize(("ago", "ended"), [(timedelta(seconds=50), []), (timedelta(minutes=2), ["12_0"])])
def test_a_task_is_not_ended_for_one_of_its_jobs_before_its_host_has_seen_the_wish(
    tmp_path: Path, ago: timedelta, ended: list[str]
) -> None:
    """A file that is made here may be seen there half a minute later."""
    slurm = Recorded(f"12_0|bundle|RUNNING|{RUNS}")
    backend = SlurmBackend(tmp_path, slurm=slurm, grace=timedelta(seconds=1))
    job = spec_of(tmp_path, "first")
    [job_id] = backend.submit_bundle("bundle", [job]).values()
    (job.directory / "job.start").write_text(f'{{"id": "{job_id}", "host": "node7", "at": 1}}')
    backend.cancel([job_id])
    asked = (job.directory / "job.cancel").stat().st_mtime - ago.total_seconds()
    os.utime(job.directory / "job.cancel", (asked, asked))
    backend.cancel([job_id])
    assert slurm.ended == ended


# Words


def test_slurm_is_told_nothing_by_the_environment_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these changes what a command does or prints."""
    for name in ("SBATCH_PARTITION", "SBATCH_REQUEUE", "SQUEUE_FORMAT", "SQUEUE_STATES", "SACCT_FORMAT"):
        monkeypatch.setenv(name, "of the worker")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SLURM_CONF", "/etc/elsewhere/slurm.conf")
    told = dict(line.split("=", 1) for line in Slurm().run(["env"]).splitlines())
    slurms = {name: value for name, value in told.items() if name.startswith(("S", "TZ", "LC_"))}
    assert slurms == {
        "LC_ALL": "C",
        "TZ": "UTC0",
        "SLURM_TIME_FORMAT": "standard",
        "SLURM_CONF": "/etc/elsewhere/slurm.conf",
    }


def test_what_is_no_text_is_read_as_far_as_it_is() -> None:
    assert Slurm().run(["printf", "12|na\\377me"]) == "12|na\N{REPLACEMENT CHARACTER}me"


def test_a_directory_may_have_a_name_in_which_slurm_would_read_a_pattern() -> None:
    told = commands.sbatch(SPEC, cluster=Cluster(), grace=timedelta(), name=NAME, output=Path("/base/10 %j/job.slurm"))
    assert told[-2:] == ["--output=/base/10 %%j/job.slurm", "--error=/base/10 %%j/job.slurm"]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("No partition specified or system default partition", SlurmRefuses),
        ("Requested GRES option unsupported by configured SelectType plugin", SlurmRefuses),
        ("Socket timed out on send/recv operation", BackendUnavailable),
        ("Required partition not available (inactive or drain)", BackendUnavailable),
    ],
)
def test_what_a_cluster_says_to_everybody_is_no_refusal(said: str, kind: type[CcatError]) -> None:
    """A job whose submission timed out may have been taken, and must be looked for."""
    lines = f"sbatch: error: new: an invalid account is told so\nsbatch: error: Batch job submission failed: {said}"
    assert type(trouble_of("sbatch", lines, code=1)) is kind


def test_why_a_job_could_not_be_launched_is_told() -> None:
    ended = replace(row("FAILED"), signal=53, exit_code=0, ended_at=NOW - timedelta(hours=1))
    seen = conclude(RECORD, marks(start=None), hear(None, ended, name=NAME), now=NOW)
    assert seen.trouble == "it ended before its software started: its host could not launch it"


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("PartitionTimeLimit", "or the `jobs_per_task` of its location"),
        ("QOSMaxWallDurationPerJobLimit", "or name another `qos`"),
        ("AssocGrpCPUMinutesLimit", "ask the cluster for more"),
        ("InvalidAccount", "name another `account`"),
        ("ReasonOfTomorrow", "ReasonOfTomorrow"),
    ],
)
def test_what_helps_a_job_that_would_wait_for_ever_is_told(reason: str, advice: str) -> None:
    heard = hear(replace(row("PENDING"), reason=reason), None, name=NAME)
    assert advice in (heard.reason or "")
    assert reason in (heard.reason or "")


def test_of_a_job_that_is_unknown_as_the_accounting_is_away_both_are_told(tmp_path: Path) -> None:
    slurm = Recorded()
    backend = SlurmBackend(tmp_path, slurm=slurm)
    job = handed_in(backend, tmp_path, "first")
    slurm.silent.add("sacct")
    trouble = backend.observe([job])[job].trouble or ""
    assert "has left no word of its end; the slurm backend cannot be used at the moment: `sacct` did not" in trouble
