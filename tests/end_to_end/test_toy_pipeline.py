"""The whole system on software of one line each: what goes well, what fails, and what is killed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.installation import Installation
from tests.end_to_end.toy import COPY, install, write_definitions
from tests.transfer.support import eventually

FAILING = {
    "ends-with-1": "echo 'toy: no lines were found' >&2; exit 1",
    "ends-with-65": "echo 'toy: scan.dat: checksum of HDU 1 differs' >&2; exit 65",
    "writes-nothing": "true",
    "hangs": "sleep 600",
}
SERVICES = 8


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the toy's environment and definitions; one raw file lies there too."""
    folder = tmp_path_factory.mktemp("toy")
    install(folder / "toy-env")
    (folder / "scan.dat").write_bytes(b"counts" * 1000)
    write_definitions(
        folder / "good.yaml",
        {"copy": COPY},
        [
            {"key": "reduce", "group_by": ["executed_obs_unit"], "software": "copy"},
            {"key": "combine", "group_by": ["source"], "software": "copy", "depends_on": ["reduce"], "archive": True},
        ],
        pipeline="good",
    )
    write_definitions(
        folder / "bad.yaml",
        FAILING,
        [
            {
                "key": name,
                "group_by": ["executed_obs_unit"],
                "software": name,
                "max_retries": 0,
                "resources": {"time_hours": 0.0006, "max_time_hours": 0.0006},
            }
            for name in FAILING
        ],
        pipeline="bad",
    )
    return folder


def observe(installation: Installation, toy: Path, *, day: int, hour: int = 2) -> None:
    times = {"started_at": f"2026-04-{day:02}T{hour:02}:00:00Z", "ended_at": f"2026-04-{day:02}T{hour:02}:05:00Z"}
    installation.observe("orion", [toy / "scan.dat"], **times)


def test_a_scan_becomes_products_and_says_why(installation: Installation, toy: Path) -> None:
    installation.ccat("apply", "-f", toy / "good.yaml")
    observe(installation, toy, day=1)
    installation.ccat("wait", "--timeout", 60)
    runs = {run["step"]: run for run in installation.json("runs")}
    assert {step: run["status"] for step, run in runs.items()} == {"reduce": "completed", "combine": "completed"}
    told = installation.json("run", "why", runs["combine"]["id"])
    assert [move["to"] for move in told["history"]][-1] == "completed"
    assert told["reason"] == "missing"
    said = installation.ccat("run", "why", runs["combine"]["id"])
    assert "why it was made: no run has completed yet (missing)" in said
    assert "what comes next: nothing: it is done" in said


def test_what_a_step_says_is_archived_is_in_the_archive_soon(installation: Installation) -> None:
    def places(step: str) -> list[list[str]]:
        found = installation.json("products", "--step", step)
        return [[copy["location"] for copy in one["copies"] if copy["status"] == "present"] for one in found]

    assert eventually(lambda: all("cologne/lta" in one for one in places("combine")))
    assert not any("cologne/lta" in one for one in places("reduce"))


def test_applying_the_same_again_changes_nothing(installation: Installation, toy: Path) -> None:
    changes = installation.json("apply", "-f", toy / "good.yaml")["changes"]
    assert {change["action"] for change in changes} == {"unchanged"}


@pytest.fixture(scope="module")
def failed(installation: Installation, toy: Path) -> dict[str, dict[str, Any]]:
    """What became of the failing steps, by step."""
    installation.ccat("apply", "-f", toy / "bad.yaml")
    installation.ccat("wait", "--timeout", 90)
    runs = installation.json("runs", "--pipeline", "bad")
    return {run["step"]: installation.json("run", "show", run["id"]) for run in runs}


@pytest.mark.parametrize(
    ("step", "kind", "cause"),
    [
        ("ends-with-1", "payload", "toy: no lines were found"),
        ("ends-with-65", "data", "toy: scan.dat: checksum of HDU 1 differs"),
        (
            "writes-nothing",
            "payload",
            "the software ended with exit code 0 but did not write any product; it wrote nothing",
        ),
        ("hangs", "resources", "time limit reached after 2 s"),
    ],
)
def test_a_failing_step_says_what_was_wrong(
    failed: dict[str, dict[str, Any]], step: str, kind: str, cause: str
) -> None:
    run = failed[step]
    assert run["status"] == "failed"
    assert cause in run["failure"]
    [attempt] = run["attempts"]
    assert attempt["failure_class"] == kind
    assert run["products"] == []


def test_whatever_is_killed_everything_is_made_once(installation: Installation, toy: Path) -> None:
    services = installation.json("status")["services"]
    assert len(services) == SERVICES
    for day, service in enumerate(services, start=2):
        os.kill(service["pid"], signal.SIGKILL)
        for hour in (2, 3):
            observe(installation, toy, day=day, hour=hour)
    installation.ccat("wait", "--timeout", 140)
    scans = 1 + 2 * len(services)
    runs = installation.json("runs", "--pipeline", "good", "--limit", 1000)
    reduced = [run for run in runs if run["step"] == "reduce"]
    assert len({run["sub_group_key"] for run in reduced}) == len(reduced) == scans
    assert {run["status"] for run in reduced} == {"completed"}
    products = installation.json("products", "--pipeline", "good", "--limit", 1000)
    assert Counter(one["step"] for one in products) == {"reduce": scans, "combine": 1}
    for product in products:
        digest = hashlib.sha256(installation.path_of(product).read_bytes()).hexdigest()
        assert product["checksum"] == f"sha256:{digest}"
    [combined] = [one for one in products if one["step"] == "combine"]
    lineage = installation.json("lineage", combined["id"])
    assert len(lineage["packages"]) == len(lineage["runs"]) - 1 == scans
    assert all(service["state"] == "running" for service in installation.json("status")["services"])
    assert {service["restarts"] for service in installation.json("status")["services"]} == {1}


def test_an_unreachable_database_is_told_with_what_to_do(installation: Installation) -> None:
    done = installation.run("runs", CCAT_OPS_DB_URL="postgresql://ccat:secret@127.0.0.1:1/ccat")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: The operations database postgresql+psycopg://ccat:***@127.0.0.1:1/ccat")
    assert "Is it running? `ccat status` shows the embedded stack" in done.stderr
    assert "secret" not in done.stderr


def test_a_grouping_is_explained_in_a_sentence_and_in_sql(installation: Installation) -> None:
    explained = installation.json("grouping", "explain", "chai")
    assert explained["selects"] == "Archived packages for which Instrument.name is `CHAI`."
    assert explained["packages"] == len(installation.json("packages", "--state", "archived", "--limit", 1000))
    assert explained["sql"].startswith("SELECT raw_data_package.id")
    assert explained["selects"] in installation.ccat("grouping", "explain", "chai")


@pytest.fixture
def stray(installation: Installation) -> Iterator[subprocess.Popen[str]]:
    """One more worker of the installation, which looks for Redis where it is not."""
    settings = {"CCAT_CONFIG": str(installation.directory / "ccat.toml"), "CCAT_WORKFLOW_MANAGER_REDIS_PORT": "1"}
    command, pipe = [sys.executable, "-m", "ccat", "celery-worker"], subprocess.PIPE
    with subprocess.Popen(
        command, env=os.environ | settings, stdout=pipe, stderr=subprocess.STDOUT, text=True
    ) as worker:
        yield worker
        worker.kill()


def test_a_worker_without_redis_says_so_goes_on_trying_and_ends_when_it_is_told_to(
    stray: subprocess.Popen[str],
) -> None:
    assert stray.stdout
    said = next(line for line in map(json.loads, stray.stdout) if line["event"].startswith("Redis does not answer"))
    assert said["event"] == "Redis does not answer, trying again"
    assert said["error"] == "Error 111 connecting to 127.0.0.1:1. Connection refused."
    stray.terminate()
    assert stray.wait(10) == 0
