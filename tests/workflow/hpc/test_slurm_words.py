"""What Slurm is told and what it says, without a cluster: recorded lines, and what is made of them."""

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccat_ops_db.errors import CcatError
from ccat_workflow_manager.hpc.base import BackendUnavailable, JobSpec, JobState, Placement
from ccat_workflow_manager.hpc.cluster.conclusion import ABSENT, Heard, Phase, conclude
from ccat_workflow_manager.hpc.cluster.marks import ExitMark, JobRecord, Marks, StartMark
from ccat_workflow_manager.hpc.cluster.script import run_script
from ccat_workflow_manager.hpc.slurm import commands
from ccat_workflow_manager.hpc.slurm.asking import NoAccounting, Slurm, SlurmRefuses, trouble_of
from ccat_workflow_manager.hpc.slurm.backend import SlurmBackend
from ccat_workflow_manager.hpc.slurm.commands import Cluster
from ccat_workflow_manager.hpc.slurm.hearing import hear
from ccat_workflow_manager.hpc.slurm.parsing import (
    Row,
    parse_duration,
    parse_sacct,
    parse_sbatch,
    parse_sinfo,
    parse_size,
    parse_squeue,
)

NAME = "ccat-00000000-1-1"
NOW = datetime(2026, 4, 5, 12, tzinfo=UTC)
SPEC = JobSpec(
    name=NAME,
    command=("reduce", "two words", "$(id)"),
    environment={"PATH": "/usr/bin:/bin", "GREETING": 'it\'s "quoted"\nnext line $HOME'},
    directory=Path("/base/run 1/attempt-1"),
    working_directory=Path("/base/run 1/attempt-1/workspace"),
    stdout=Path("/base/run 1/attempt-1/logs/stdout.log"),
    stderr=Path("/base/run 1/attempt-1/logs/stderr.log"),
    cpu=4,
    memory_gb=16,
    time_limit=timedelta(hours=2),
)

SQUEUE = """\
CLUSTER: ramses
12|ccat-00000000-1-1|PENDING|N/A|N/A|n/a|Resources
13|ccat-00000000-2-1|RUNNING|2026-04-05T10:00:00|2026-04-05T12:02:00|node7|None
14_0|ccat-00000000-bundle-1|COMPLETING|2026-04-05T10:00:00|2026-04-05T10:00:09|node7|None
14_1|ccat-00000000-bundle-1|PENDING|N/A|N/A|n/a|ReqNodeNotAvail, UnavailableNodes:node[1-3]
15|ccat-00000000-3-1|FAILED|2026-04-05T10:00:00|2026-04-05T10:00:09|node7|NonZeroExitCode
"""
SACCT = """\
13|ccat-00000000-2-1|CANCELLED by 1000|0:0|2026-04-05T10:00:00|2026-04-05T10:30:00|node7|00:01.500||00:00:00
13.batch|batch|CANCELLED|0:15|2026-04-05T10:00:00|2026-04-05T10:30:00|node7|00:01.500|1.50M|00:00:00
13.extern|extern|COMPLETED|0:0|2026-04-05T10:00:00|2026-04-05T10:30:00|node7|00:00:00|0|00:00:00
15|ccat-00000000-3-1|OUT_OF_ME+|0:125|2026-04-05T10:00:00|Unknown|node7|1-02:03:04||00:05:00
15.batch|batch|OUT_OF_ME+|0:125|2026-04-05T10:00:00|Unknown|node7|1-02:03:04|206648K|00:00:00
14_[2-9]|ccat-00000000-bundle-1|PENDING|0:0|Unknown|Unknown|None assigned|00:00:00||00:00:00
a line that is none
"""


def marks(*, start: str | None = "13", code: int | None = None, cancelled: datetime | None = None) -> Marks:
    begun, ended = NOW - timedelta(minutes=5), NOW - timedelta(minutes=1)
    return Marks(
        has_start=start is not None,
        start=StartMark(id=start, host="node7", at=begun.timestamp()) if start is not None else None,
        exit=None if code is None else ExitMark(exit_code=code, at=ended.timestamp(), cpu_ticks=150),
        cancelled_at=cancelled,
    )


FORESTALLED = Marks(has_start=True, start=StartMark(id=None), exit=None, cancelled_at=None)
RECORD = JobRecord.of(SPEC, bundle=None, task=None, place=None)
IN_TURN = JobRecord.of(SPEC, bundle="bundle", task=0, place=1)


# Telling


def test_a_job_is_handed_in_with_all_that_it_asks_for() -> None:
    asked = Placement(partition="long", account="ccat", qos="high", constraint="gold&fast")
    default = Cluster("ramses", Placement(partition="short", account="others"))
    spec = JobSpec(**{**vars(SPEC), "gpus": 2, "nodes": 3, "ntasks": 6, "placement": asked})
    told = commands.sbatch(spec, cluster=default, grace=timedelta(seconds=30), name=NAME, output=Path("/dev/null"))
    assert told == [
        *("sbatch", "--parsable", "--no-requeue", "--export=ALL", "--clusters=ramses", f"--job-name={NAME}"),
        *("--nodes=3", "--ntasks=6", "--cpus-per-task=4", "--mem=15259M", "--gpus-per-node=2", "--time=122"),
        *("--partition=long", "--account=ccat", "--qos=high", "--constraint=gold&fast", "--chdir=/base/run 1"),
        *("--output=/dev/null", "--error=/dev/null"),
    ]


def test_an_array_has_the_time_of_all_jobs_of_a_task_and_no_more_than_its_tasks() -> None:
    told = commands.sbatch(
        SPEC,
        cluster=Cluster(placement=Placement(qos="low")),
        grace=timedelta(),
        name="bundle",
        output=Path("/dev/null"),
        tasks=3,
        jobs_per_task=4,
    )
    assert {"--array=0-2", "--time=481", "--qos=low", "--job-name=bundle"} <= set(told)


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_no_shell_reads_what_a_job_is_given(text: str) -> None:
    spec = JobSpec(**{**vars(SPEC), "command": ("reduce", text), "environment": {"A": text}})
    script = run_script(spec, wrapper=Path("/base/job.sh"), grace=timedelta(seconds=1), passed=["SLURM_NTASKS"])
    words = shlex.split(script.removeprefix("#!/bin/sh\n"))
    assert words[:3] == ["exec", "/usr/bin/env", "-i"]
    assert f"A={text}" in words
    assert words[-3:] == ["$1", "reduce", text]


def test_what_a_host_has_is_passed_on_only_where_it_is_set(tmp_path: Path) -> None:
    spec = JobSpec(**{**vars(SPEC), "environment": {}, "command": ()})
    wrapper = tmp_path / "wrapper.sh"
    wrapper.write_text("env\n")
    script = run_script(spec, wrapper=wrapper, grace=timedelta(), passed=["GIVEN", "NOT_GIVEN"])
    done = subprocess.run(["/bin/sh", "-c", script, "sh", "7"], env={"GIVEN": "a b"}, capture_output=True, check=True)
    names = {line.partition(b"=")[0] for line in done.stdout.splitlines()}
    assert names - {b"PWD", b"_", b"SHLVL", b"OLDPWD"} == {b"GIVEN", b"CCAT_JOB_DIRECTORY"}


# Hearing


def test_lines_of_squeue_are_read() -> None:
    found = parse_squeue(SQUEUE)
    assert list(found) == ["12", "13", "14_0", "14_1", "15"]
    assert found["12"] == Row(job_id="12", name=NAME, state="PENDING", reason="Resources", host=None)
    assert found["13"].started_at == datetime(2026, 4, 5, 10, tzinfo=UTC)
    assert found["14_1"].reason == "ReqNodeNotAvail, UnavailableNodes:node[1-3]"


def test_lines_of_sacct_are_read() -> None:
    found = parse_sacct(SACCT)
    assert found["13"].state == "CANCELLED"
    assert found["13"].reason == "CANCELLED by 1000"
    assert found["13"].peak_memory_bytes == int(1.5 * 2**20)
    assert (found["15"].signal, found["15"].exit_code, found["15"].ended_at) == (125, 0, None)
    assert found["15"].cpu_time == timedelta(days=1, hours=2, minutes=3, seconds=4)
    assert found["15"].peak_memory_bytes == 206648 * 2**10
    assert (found["13"].suspended, found["15"].suspended) == (timedelta(), timedelta(minutes=5))


@pytest.mark.parametrize(
    ("text", "number"),
    [("12\n", "12"), ("12;ramses\n", "12"), ("sbatch: be patient\n12\n", "12"), ("", None), ("Submitted", None)],
)
def test_the_number_of_a_job_is_read(text: str, number: str | None) -> None:
    assert parse_sbatch(text) == number


def test_cpus_are_read_of_all_lines() -> None:
    assert parse_sinfo("CLUSTER: ramses\n10/6/0/16\n0/8/8/16\n") == (24, 14)
    assert parse_sinfo("nothing") is None


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("12K", 12288), ("1.5G", 1610612736), ("3T", 3 * 2**40), ("", None), ("16?", None)]
)
def test_sizes_are_read(text: str, size: int | None) -> None:
    assert parse_size(text) == size


def test_durations_are_read() -> None:
    assert parse_duration("02:03.250") == timedelta(minutes=2, seconds=3.25)
    assert parse_duration("UNLIMITED") is None


@given(st.text(max_size=200))
def test_nothing_that_slurm_may_print_is_an_error(text: str) -> None:
    parse_squeue(text), parse_sacct(text), parse_sbatch(text), parse_sinfo(text)


def row(state: str, *, name: str = NAME) -> Row:
    return Row(job_id="13", name=name, state=state)


@pytest.mark.parametrize(
    ("queued", "accounted", "phase"),
    [
        (row("PENDING"), None, Phase.PENDING),
        (row("REQUEUE_HOLD"), row("NODE_FAIL"), Phase.PENDING),
        (row("COMPLETING"), row("COMPLETED"), Phase.RUNNING),
        (row("SUSPENDED"), None, Phase.RUNNING),
        (row("A_STATE_OF_TOMORROW"), None, Phase.RUNNING),
        (row("FAILED"), None, Phase.ENDED),
        (None, row("COMPLETED"), Phase.ENDED),
        (None, row("RUNNING"), Phase.ABSENT),
        (None, None, Phase.ABSENT),
        (row("RUNNING", name="of somebody else"), None, Phase.ABSENT),
        (None, row("COMPLETED", name="of somebody else"), Phase.ABSENT),
        (None, row("COMPLETED", name="allocation"), Phase.ABSENT),
    ],
)
def test_the_controller_knows_who_lives_and_the_accounting_how_they_ended(
    queued: Row | None, accounted: Row | None, phase: Phase
) -> None:
    assert hear(queued, accounted, name=NAME).phase is phase


def test_an_end_that_the_accounting_has_not_written_down_whole_tells_no_exit_code() -> None:
    begun = replace(row("FAILED", name="allocation"), exit_code=0)
    for queued, accounted in ((row("FAILED"), begun), (row("FAILED"), replace(begun, name=NAME)), (None, begun)):
        assert hear(queued, accounted, name=NAME).exit_code is None
    assert hear(None, replace(begun, name=NAME), name=NAME).exit_code is None
    ended = replace(begun, name=NAME, exit_code=3, ended_at=NOW)
    assert hear(row("FAILED"), ended, name=NAME).exit_code == 3
    assert hear(row("COMPLETED"), replace(ended, state="COMPLETED", exit_code=0), name=NAME).exit_code == 0


def test_the_accounting_tells_measures_before_it_has_heard_the_name_of_a_job() -> None:
    told = replace(row("COMPLETED", name="allocation"), peak_memory_bytes=7)
    assert hear(row("COMPLETED"), told, name=NAME).peak_memory_bytes == 7
    assert hear(row("COMPLETING"), told, name=NAME).peak_memory_bytes == 7
    for other in (replace(told, name="of somebody else"), replace(told, started_at=NOW)):
        assert hear(row("COMPLETED"), other, name=NAME).peak_memory_bytes is None


@pytest.mark.parametrize(
    ("state", "reason"),
    [("PREEMPTED", "it was preempted"), ("NODE_FAIL", "its node failed"), ("BOOT_FAIL", "its node")],
)
def test_what_the_cluster_takes_away_is_lost_with_the_reason_whatever_the_exit_mark_says(
    state: str, reason: str
) -> None:
    heard = hear(row(state), None, name=NAME)
    seen = conclude(RECORD, marks(code=143), heard, now=NOW)
    assert seen.state is JobState.LOST
    assert (seen.trouble or "").startswith(reason)
    assert conclude(RECORD, marks(code=0), heard, now=NOW).exit_code == 0


@pytest.mark.parametrize("code", [1, 143])
def test_who_shares_a_task_and_fails_as_it_is_taken_away_is_lost_with_it(code: int) -> None:
    """Its task may be seen as running for a moment after it."""
    ended = NOW - timedelta(minutes=1)
    asked = ExitMark(exit_code=code, at=ended.timestamp(), cpu_ticks=150, was_asked=True)
    for later, lives in ((9, JobState.RUNNING), (10, JobState.FINISHED)):
        now = ended + timedelta(seconds=later)
        found = replace(marks(), exit=asked)
        assert conclude(IN_TURN, found, Heard(phase=Phase.RUNNING), now=now).state is lives
    taken = replace(hear(row("PREEMPTED"), None, name=NAME), ended_at=ended + timedelta(seconds=2))
    seen = conclude(IN_TURN, marks(code=code), taken, now=NOW)
    assert (seen.state, seen.trouble) == (JobState.LOST, "it was preempted by a job that goes first")
    long_before = replace(taken, ended_at=NOW)
    assert conclude(IN_TURN, marks(code=code), long_before, now=NOW).exit_code == code
    assert conclude(IN_TURN, marks(code=0), taken, now=NOW).exit_code == 0


def test_a_job_whose_time_passed_while_it_was_suspended_is_lost_and_did_not_take_too_long() -> None:
    record = RECORD.model_copy(update={"time_limit": timedelta(minutes=3)})  # it took four
    held_up = Heard(phase=Phase.ENDED, suspended=timedelta(seconds=61))
    seen = conclude(record, marks(code=124), held_up, now=NOW)
    assert (seen.state, seen.timed_out) == (JobState.LOST, False)
    assert seen.trouble == "the cluster suspended it for 61 s, and its time limit passed meanwhile"
    for suspended in (None, timedelta(), timedelta(seconds=60)):
        found = conclude(record, marks(code=124), replace(held_up, suspended=suspended), now=NOW)
        assert (found.state, found.timed_out) == (JobState.FINISHED, True)
    assert conclude(record, marks(code=3), held_up, now=NOW).exit_code == 3


# Concluding


@pytest.mark.parametrize("heard", [Heard(phase=Phase.ENDED, exit_code=1), ABSENT])
def test_the_exit_mark_tells_how_the_software_ended(heard: Heard) -> None:
    seen = conclude(RECORD, marks(code=3), heard, now=NOW)
    assert (seen.state, seen.exit_code, seen.wall_time) == (JobState.FINISHED, 3, timedelta(minutes=4))


@pytest.mark.parametrize("found", [marks(), marks(start=None)])
def test_a_job_of_which_nobody_knows_anything_is_unknown_and_never_over(found: Marks) -> None:
    assert conclude(RECORD, found, ABSENT, now=NOW + timedelta(days=100)).state is JobState.UNKNOWN


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.PENDING])
@pytest.mark.parametrize("record", [RECORD, IN_TURN])
def test_the_exit_mark_is_believed_whatever_a_controller_that_died_says_of_the_job(
    record: JobRecord, phase: Phase
) -> None:
    """It has forgotten its last seconds: the end of the job, or even its start."""
    at_once = NOW - timedelta(minutes=1)
    seen = conclude(record, marks(code=0), Heard(phase=phase, reason="Resources", peak_memory_bytes=7), now=at_once)
    assert (seen.state, seen.exit_code, seen.trouble) == (JobState.FINISHED, 0, None)
    asked = marks(code=143, cancelled=NOW - timedelta(minutes=2))
    seen = conclude(record, asked, Heard(phase=phase), now=at_once)
    assert (seen.state, seen.cancelled) == (JobState.FINISHED, True)


@pytest.mark.parametrize("code", [1, 143])
def test_why_a_job_failed_the_cluster_may_say_for_a_minute_before_the_exit_mark_alone_is_believed(code: int) -> None:
    lives, ended = Heard(phase=Phase.RUNNING, peak_memory_bytes=7), NOW - timedelta(minutes=1)
    assert conclude(RECORD, marks(code=code), lives, now=ended + timedelta(seconds=59)).state is JobState.RUNNING
    seen = conclude(RECORD, marks(code=code), lives, now=ended + timedelta(seconds=60))
    assert (seen.state, seen.exit_code, seen.peak_memory_bytes) == (JobState.FINISHED, code, 7)


def test_an_exit_mark_is_waited_for_and_then_the_cluster_is_believed() -> None:
    heard = Heard(phase=Phase.ENDED, exit_code=3, ended_at=NOW - timedelta(seconds=5))
    assert conclude(RECORD, marks(), heard, now=NOW).state is JobState.RUNNING
    later = conclude(RECORD, marks(), heard, now=NOW + timedelta(minutes=1))
    assert (later.state, later.exit_code) == (JobState.FINISHED, 3)


def test_a_job_that_ended_before_its_software_started_is_lost() -> None:
    heard = Heard(phase=Phase.ENDED, exit_code=1, ended_at=NOW - timedelta(minutes=5))
    seen = conclude(RECORD, marks(start=None), heard, now=NOW)
    assert (seen.state, seen.trouble) == (JobState.LOST, "it ended before its software started: exit code 1")


def test_a_killed_job_that_used_more_than_it_asked_for_ran_out_of_memory() -> None:
    heard = Heard(phase=Phase.ENDED, peak_memory_bytes=17 * 10**9, ended_at=NOW)
    seen = conclude(RECORD, marks(), heard, now=NOW)
    assert (seen.out_of_memory, seen.exit_code) == (True, 137)
    less = Heard(phase=Phase.ENDED, peak_memory_bytes=15 * 10**9, ended_at=NOW - timedelta(hours=1))
    assert conclude(RECORD, marks(), less, now=NOW).state is JobState.LOST


@pytest.mark.parametrize(
    ("found", "heard", "state"),
    [
        (marks(start=None), Heard(phase=Phase.RUNNING), JobState.PENDING),
        (marks(), Heard(phase=Phase.RUNNING), JobState.RUNNING),
        (marks(code=0), Heard(phase=Phase.RUNNING), JobState.FINISHED),
        (marks(start=None), Heard(phase=Phase.ENDED, cancelled=True), JobState.LOST),
        (FORESTALLED, Heard(phase=Phase.RUNNING), JobState.LOST),
        (FORESTALLED, ABSENT, JobState.LOST),
    ],
)
def test_of_a_task_with_several_jobs_each_is_told_by_its_own_marks(found: Marks, heard: Heard, state: JobState) -> None:
    assert conclude(IN_TURN, found, heard, now=NOW).state is state


def test_a_job_that_the_cluster_cancels_between_giving_it_to_a_host_and_its_start_is_lost_and_no_wish() -> None:
    taken_back = Heard(phase=Phase.ENDED, cancelled=True, started_at=NOW, ended_at=NOW, host="node7")
    seen = conclude(RECORD, marks(start=None), taken_back, now=NOW)
    assert (seen.state, seen.cancelled) == (JobState.LOST, False)
    assert seen.trouble == "the cluster gave it to a host, and cancelled it before it started there"
    for wished in (replace(taken_back, host=None), taken_back):
        by_us = marks(start=None, cancelled=NOW if wished.host else None)
        assert conclude(RECORD, by_us, wished, now=NOW).cancelled
    assert conclude(RECORD, marks(), taken_back, now=NOW).cancelled  # somebody's who saw it run


def test_who_is_cancelled_before_its_turn_has_ended_and_only_who_asked_is_told_so() -> None:
    asked = Marks(has_start=True, start=StartMark(id=None), exit=None, cancelled_at=NOW)
    seen = conclude(IN_TURN, asked, Heard(phase=Phase.RUNNING), now=NOW)
    assert (seen.state, seen.cancelled, seen.exit_code) == (JobState.FINISHED, True, None)
    ended = Heard(phase=Phase.ENDED, cancelled=True, ended_at=NOW)
    assert not conclude(IN_TURN, marks(code=143), ended, now=NOW).cancelled  # it was over when its task was ended
    just_before = Heard(phase=Phase.ENDED, cancelled=True, ended_at=NOW - timedelta(minutes=1, seconds=1))
    assert conclude(IN_TURN, marks(code=143), just_before, now=NOW).cancelled


def test_a_job_that_a_signal_ended_is_not_judged_before_it_is_seen_whether_its_task_ends_too() -> None:
    at_once, later = NOW - timedelta(seconds=59), NOW
    assert conclude(IN_TURN, marks(code=143), Heard(phase=Phase.RUNNING), now=at_once).state is JobState.RUNNING
    seen = conclude(IN_TURN, marks(code=143), Heard(phase=Phase.RUNNING), now=later)
    assert (seen.state, seen.exit_code, seen.cancelled) == (JobState.FINISHED, 143, False)


# Numbers


class Recorded(Slurm):
    """Slurm, whose answers are given or fail to come, and what it was told to end."""

    def __init__(self, *rows: str) -> None:
        super().__init__()
        self.answers = {"sbatch": "12\n", "squeue": "".join(f"{row}\n" for row in rows)}
        self.ended: list[str] = []
        self.silent: set[str] = set()

    def run(self, command: Sequence[str], *, given: str = "") -> str:
        del given
        if command[0] in self.silent:
            raise BackendUnavailable("slurm", f"`{command[0]}` did not answer")
        if command[0] == "scancel":
            self.ended.append(command[-1])
        return self.answers.get(command[0], "")


def handed_in(backend: SlurmBackend, base: Path, name: str) -> str:
    """A job of this name; its id."""
    directory = base / name
    directory.mkdir()
    return backend.submit(JobSpec(**{**vars(SPEC), "name": name, "directory": directory}))


def test_of_a_number_that_slurm_gives_again_each_job_keeps_its_own(tmp_path: Path) -> None:
    """Slurm gives it again where its controller died before it had saved what it took."""
    slurm = Recorded("12|second|RUNNING|2026-04-05T10:00:00|N/A|node7|None")
    backend = SlurmBackend(tmp_path, slurm=slurm, patience=timedelta())
    first, second = (handed_in(backend, tmp_path, name) for name in ("first", "second"))
    assert (first, second) == ("12", "12:2")
    assert backend.find(["first", "second"]) == {"first": first, "second": second}
    states = [(backend.observe([first])[first].state, backend.observe([second])[second].state) for _ in range(2)]
    assert states == [(JobState.UNKNOWN, JobState.RUNNING), (JobState.LOST, JobState.RUNNING)]


def test_a_job_that_never_started_is_forgotten_only_where_the_accounting_does_not_know_it_either(
    tmp_path: Path,
) -> None:
    slurm = Recorded()
    backend = SlurmBackend(tmp_path, slurm=slurm, patience=timedelta())
    job = handed_in(backend, tmp_path, "first")
    slurm.silent.add("sacct")
    assert [backend.observe([job])[job].state for _ in range(3)] == [JobState.UNKNOWN] * 3
    slurm.silent.clear()
    assert [backend.observe([job])[job].state for _ in range(2)] == [JobState.UNKNOWN, JobState.LOST]


def test_whoever_is_cancelled_takes_no_other_job_along_that_has_its_number(tmp_path: Path) -> None:
    slurm = Recorded("12|second|PENDING|N/A|N/A|n/a|Resources")
    backend = SlurmBackend(tmp_path, slurm=slurm)
    first, second = (handed_in(backend, tmp_path, name) for name in ("first", "second"))
    backend.cancel([first])
    assert slurm.ended == []
    backend.cancel([second])
    assert slurm.ended == ["12"]


# Errors


@pytest.mark.parametrize(
    ("program", "said", "kind"),
    [
        ("sbatch", "sbatch: error: Batch job submission failed: Invalid qos specification", SlurmRefuses),
        ("sbatch", "sbatch: error: invalid partition specified: nowhere", SlurmRefuses),
        (
            "sbatch",
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            BackendUnavailable,
        ),
        (
            "sbatch",
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
            BackendUnavailable,
        ),
        ("squeue", "squeue: error: Invalid qos: 7", BackendUnavailable),
        ("sacct", "Slurm accounting storage is disabled", NoAccounting),
        ("sacct", "", BackendUnavailable),
    ],
)
def test_an_error_is_for_ever_only_where_slurm_would_say_it_again(
    program: str, said: str, kind: type[CcatError]
) -> None:
    found = trouble_of(program, said, code=1)
    assert type(found) is kind
    assert "\n" not in str(found)
