"""What a benchmark prints, at a size at which its figures say nothing."""

import json
import platform
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.chaos.killing import FLUSH, POSTMASTER, REDIS, WRAPPER, Kill
from tests.chaos.play import Outcome
from tests.needs import give_up
from tests.slurm_cluster import what_is_missing

ROOT = Path(__file__).parents[2]


def bench(*words: str, within: float = 120) -> subprocess.CompletedProcess[str]:
    return python("-m", "bench", *words, within=within)


def python(*words: str, within: float = 120) -> subprocess.CompletedProcess[str]:
    """A process of its own: benchmarks of whole systems adopt and reap whatever descends from theirs."""
    command = [sys.executable, *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            told, errors = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it takes what it started with it
            told, errors = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, told, errors)


def figures(name: str, done: subprocess.CompletedProcess[str]) -> set[str]:
    """Keys of the last line, which is JSON, and whose figures the table above tells people."""
    assert done.returncode == 0, done.stderr
    *told, last = done.stdout.splitlines()
    found = json.loads(last)
    assert list(found) == ["bench", "cpu", "python", "postgresql", "figures"]
    assert (found["bench"], found["python"]) == (name, platform.python_version())
    assert all(value > 0 for value in found["figures"].values())
    assert found["figures"].keys() <= {line.partition(" ")[0] for line in told}
    return set(found["figures"])


@pytest.mark.parametrize(
    ("name", "size", "wanted"),
    [
        ("rules", 2000, {"preview_1m_ms", "preview_exact_s", "cone_ms"}),
        ("gaps", 100, {"gap_1m_s", "gap_1m_ratio", "gap_1m_3steps_s", "gap_1m_rebuild_s", "slope", "rss_mb"}),
        ("lineage", 20_000, {"lineage_ms", "ancestors_ms", "descendants_ms", "rss_mb"}),
        ("incremental", 2000, {"changed_1_ms", "changed_1000_ms", "rss_mb"}),
        ("plan", 100, {"plan_100k_s", "create_100k_s", "rss_mb"}),
        ("collect", 20, {"products_per_s", "large_run_products_per_s", "inputs_per_s"}),
    ],
)
def test_the_last_line_of_a_benchmark_is_json_with_its_figures(name: str, size: int, wanted: set[str]) -> None:
    assert wanted <= figures(name, bench(name, "--size", str(size)))


LATENCY = """
from itertools import islice
from bench.figures import tell
from bench.latency import measure

tell("latency", islice(measure(size=2), 3))  # before the fourth is asked for, nothing is killed
"""


@pytest.mark.timeout(400)
def test_the_benchmark_of_whole_lives_tells_the_rate_and_the_cost_of_runs_beside_those_of_celery_alone() -> None:
    wanted = {"runs_per_s", "celery_ratio", "local_steps_per_s", "cpu_ms_per_step"}
    assert wanted <= figures("lifecycle", bench("lifecycle", "--size", "30", "--local", "10", within=300))


@pytest.mark.timeout(400)
def test_the_benchmark_of_transfers_tells_what_they_cost_beside_plain_programs() -> None:
    wanted = {"transfer_ratio", "crossing_costs", "rss_mb", "package_100k_s"}
    done = bench("transfer", "--size", "20", "--files", "100", within=300)
    assert done.returncode == 0, done.stderr
    assert wanted <= set(json.loads(done.stdout.splitlines()[-1])["figures"])


def test_the_benchmark_of_slurm_tells_what_arrays_are_worth_and_what_a_round_costs() -> None:
    if missing := what_is_missing():
        give_up(missing)
    wanted = {"array_ratio", "calls_per_round", "detect_p50_s"}
    assert wanted <= figures("slurm", bench("slurm", "--size", "4", within=100))


def test_what_cannot_be_measured_here_is_said_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/nothing")
    done = bench("slurm")
    assert (done.returncode, done.stdout) == (77, "")
    assert "apt-get install slurm-wlm" in done.stderr


@pytest.mark.timeout(400)
def test_the_benchmark_of_waiting_tells_how_long_a_step_waits_before_anything_is_killed() -> None:
    told = figures("latency", python("-c", LATENCY, within=300))
    assert told == {"handover_p50_ms", "handover_p95_ms", "chain_p50_ms"}


def test_the_recovery_that_is_told_is_the_longest_after_a_kill_that_nothing_disturbed() -> None:
    at = datetime(2026, 4, 5, tzinfo=UTC)

    def kill(kind: str, seconds: float | None, *, was_disturbed: bool = False) -> Kill:
        recovered = None if seconds is None else timedelta(seconds=seconds)
        return Kill(kind, 1, at, was_disturbed=was_disturbed, recovered_after=recovered)

    kills = [kill(REDIS, 2.5), kill(POSTMASTER, 4.25), kill(FLUSH, None)]
    others = [kill(WRAPPER, 60), kill(REDIS, 50, was_disturbed=True)]
    assert Outcome([], [*kills, *others]).recovery_s == 4.25
    assert Outcome([], [kill(WRAPPER, 60)]).recovery_s == 0


def test_a_benchmark_that_does_not_exist_is_refused() -> None:
    done = bench("rulse")
    assert done.returncode == 2
    assert "No such command 'rulse'" in done.stderr
