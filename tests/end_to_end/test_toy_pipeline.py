"""The whole system on software of one line each: what goes well, what fails, and what is killed."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.installation import Installation
from tests.end_to_end.toy import COPY, install, write_definitions

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
            {"key": "combine", "group_by": ["source"], "software": "copy", "depends_on": ["reduce"]},
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
                "resources": {"time_hours": 0.0006},
            }
            for name in FAILING
        ],
        pipeline="bad",
    )
    return folder


def observe(installation: Installation, toy: Path, *, day: int) -> None:
    times = {"started_at": f"2026-04-{day:02}T02:00:00Z", "ended_at": f"2026-04-{day:02}T02:05:00Z"}
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
    assert "it was made because of missing: no run has completed yet" in installation.ccat(
        "run", "why", runs["combine"]["id"]
    )


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
    before = len(installation.json("runs", "--pipeline", "good", "--limit", 1000))
    services = installation.json("status")["services"]
    assert len(services) == SERVICES
    for day, service in enumerate(services, start=2):
        observe(installation, toy, day=day)
        os.kill(service["pid"], signal.SIGKILL)
        time.sleep(0.5)  # let some of the work be under way when the next one dies
    installation.ccat("wait", "--timeout", 140)
    runs = installation.json("runs", "--pipeline", "good", "--limit", 1000)
    assert len(runs) > before
    made = [run for run in runs if run["step"] == "reduce"]
    assert len({run["sub_group_key"] for run in made}) == len(made) == 1 + len(services)
    assert {run["status"] for run in made} == {"completed"}
    products = installation.json("products", "--pipeline", "good", "--limit", 1000)
    assert len([one for one in products if one["step"] == "reduce"]) == len(made)
    [combined] = [one for one in products if one["step"] == "combine"]
    packages = installation.json("lineage", combined["id"])["packages"]
    assert len(packages) == 1 + len(services)
    assert all(service["state"] == "running" for service in installation.json("status")["services"])


def test_an_unreachable_database_is_told_with_what_to_do(installation: Installation) -> None:
    done = installation.run("runs", CCAT_OPS_DB_URL="postgresql://ccat:secret@127.0.0.1:1/ccat")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: The operations database postgresql+psycopg://ccat:***@127.0.0.1:1/ccat")
    assert "Is it running? `ccat status` shows the embedded stack" in done.stderr
    assert "secret" not in done.stderr
