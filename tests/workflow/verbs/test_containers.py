"""Runs whose software is in an image: real Apptainer, on the local backend."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from ccat_ops_db import models
from ccat_ops_db.states import FailureClass, RunStatus
from ccat_workflow_manager.hpc.images import cache as caching
from ccat_workflow_manager.hpc.images.cache import SifCache
from ccat_workflow_manager.hpc.images.containers import Containers
from ccat_workflow_manager.hpc.images.fetching import Image, fetch
from ccat_workflow_manager.verbs.describing import run_directory
from tests.apptainer import OPTIONS
from tests.workflow.verbs.conftest import OpenWorks, Say
from tests.workflow.verbs.works import MERGE, Works, eventually

STEP = {"key": "reduce", "group_by": ["executed_obs_unit"], "max_retries": 0}


@pytest.fixture
def works(open_works: OpenWorks, small_image: Path, tmp_path: Path) -> Iterator[Works]:
    """An installation that runs images, of which there is a small one."""
    with open_works(tmp_path / 'of "ours": a, b') as found:
        cache = SifCache(tmp_path / "cache", most_bytes=10**9, patience=timedelta(minutes=1))
        containers = {found.location_id: Containers(cache, options=OPTIONS)}
        found.workplace = replace(found.workplace, containers=containers)
        shutil.copy(small_image, tmp_path / "software.sif")
        yield found


def cache_of(works: Works) -> SifCache:
    return works.workplace.containers[works.location_id].cache


def image_of(tmp_path: Path) -> Path:
    return tmp_path / "software.sif"


def in_image(image: Path, *command: str, version: str = "1.0", digest: str | None = None) -> dict[str, Any]:
    """A version that runs a command in an image."""
    found = digest or f"sha256:{hashlib.sha256(image.read_bytes()).hexdigest()}"
    return {
        "version": version,
        "series": "1",
        "runtime": "apptainer",
        "command": list(command),
        "image": f"../{image.name}",  # seen from where the definitions lie
        "image_digest": found,
    }


def define(works: Works, version: dict[str, Any], *steps: dict[str, Any], **config: Any) -> None:
    steps = steps or (STEP,)
    works.apply(
        {
            "software": [{"name": "software", "versions": [version]}],
            "configs": [{"name": "config", **config}],
            "groupings": [{"name": "everything", "rules": []}],
            "pipelines": [
                {
                    "name": "toy",
                    "grouping": "everything",
                    "location": "cologne/ramses",
                    "steps": [{"software": "software", "config": "config", **step} for step in steps],
                }
            ],
        }
    )


def sh(image: Path, script: str) -> dict[str, Any]:
    return in_image(image, "/bin/sh", "-c", script)


def products(works: Works, run: models.ExecutedReductionStep) -> dict[str, str]:
    return {one.relative_path: works.text(one) for one in run.products}


LOOK = """
    cd "$WORKFLOW_OUTPUT_DIR"
    env >env.txt
    cat "$WORKFLOW_MANIFEST" >manifest.txt
    pwd -P >/workflow/workspace/pwd.txt
    for place in /workflow/input/x /workflow/config/x "$(readlink -f /workflow/input/raw/*)/x" /etc/x /usr/x /x; do
        (echo x >"$place") 2>/dev/null && echo "$place" >>written.txt
    done
    for place in /workflow/workspace /workflow/output /workflow/logs /tmp /var/tmp "$HOME" "$TMPDIR"; do
        echo x >"$place/x" || echo "$place" >>forbidden.txt
    done
    rm /workflow/output/x
    ls / /home /root >root.txt 2>&1
"""


def test_software_in_an_image_sees_what_the_contract_says_and_writes_nowhere_else(works: Works, tmp_path: Path) -> None:
    odd = {"ODD": "$(id) `id` \"two  words\" \\n 'one' ü", "LINES": "one\ntwo"}
    define(works, sh(image_of(tmp_path), LOOK), environment=odd, parameters={"opacity": 0.1})
    works.observe("counts")
    works.settle(within=60)
    run = works.run()
    assert run.status is RunStatus.COMPLETED, run.failure
    found = products(works, run)
    assert sorted(found) == ["env.txt", "manifest.txt", "root.txt"]
    seen = found["env.txt"]
    assert f"ODD={odd['ODD']}\n" in seen
    assert "LINES=one\ntwo\n" in seen
    assert "WORKFLOW_OUTPUT_DIR=/workflow/output\n" in seen
    assert "HOME=/workflow/workspace/.home\n" in seen
    assert not {"POSTGRES", "REDIS", "VIRTUAL_ENV"} & set(seen.replace("=", " ").split())
    names = {line.partition("=")[0] for line in seen.splitlines() if "=" in line}
    ours = {name for name in names if name.startswith(("WORKFLOW_", "APPTAINER_", "SINGULARITY_")) or "_NUM_" in name}
    known = {"ODD", "LINES", "CCAT_JOB_DIRECTORY", "PATH", "HOME", "TMPDIR", "LANG", "PWD", "OLDPWD", "TERM", "PS1"}
    assert names - ours - known <= {"PROMPT_COMMAND", "LD_LIBRARY_PATH"}
    manifest = json.loads(found["manifest.txt"])
    assert manifest["software"]["image_ref"] == str(image_of(tmp_path))
    assert manifest["software"]["image_digest"] == run_digest(works, run)
    assert manifest["output"] == {"dir": "/workflow/output"}
    [raw] = manifest["inputs"]["raw"]
    assert raw["path"].startswith("raw/")
    attempt = run_directory(run, works.base).attempt(1)
    assert (attempt.workspace / "pwd.txt").read_text() == "/workflow/output\n"
    assert "tests" not in found["root.txt"]


def run_digest(works: Works, run: models.ExecutedReductionStep) -> str:
    [version] = works.all(models.ReductionSoftwareVersion, id=run.software_version_id)
    return version.content_digest


def test_steps_in_images_take_what_others_made(works: Works, tmp_path: Path) -> None:
    define(
        works,
        sh(image_of(tmp_path), MERGE),
        {"key": "reduce", "group_by": ["executed_obs_unit"]},
        {"key": "map", "group_by": ["source"], "depends_on": ["reduce"]},
    )
    works.observe("one\n")
    works.observe("two\n")
    works.settle(within=60)
    newest = next(run for run in reversed(works.runs()) if run.reduction_step.key == "map")
    assert newest.status is RunStatus.COMPLETED, newest.failure
    assert sorted(works.text(newest.products[0]).split()) == ["one", "two"]


@pytest.mark.parametrize(
    ("script", "kind", "cause"),
    [
        ("echo 'no lines: error' >&2; exit 65", FailureClass.DATA, "no lines: error"),
        ("echo 'FATAL: mine' >&2; echo more >&2; exit 255", FailureClass.PAYLOAD, "FATAL: mine"),
        ("exit 3", FailureClass.PAYLOAD, "exit code 3, and its log is empty"),
        ("kill -9 $$", FailureClass.PAYLOAD, "killed by SIGKILL"),
    ],
)
def test_the_end_of_the_software_is_its_own_in_an_image_too(
    works: Works, tmp_path: Path, script: str, kind: FailureClass, cause: str
) -> None:
    define(works, sh(image_of(tmp_path), script))
    works.observe("counts")
    run = works.until(RunStatus.FAILED)
    assert run.failure_class is kind
    assert cause in str(run.failure)


@pytest.mark.parametrize("command", ["chai", "/opt/chai", "/etc/passwd", "/usr"])
def test_a_command_that_the_image_does_not_have_is_a_failure_of_configuration(
    works: Works, tmp_path: Path, command: str
) -> None:
    define(works, in_image(image_of(tmp_path), command))
    works.observe("counts")
    run = works.until(RunStatus.FAILED)
    assert run.failure_class is FailureClass.CONFIGURATION
    assert str(run.failure).startswith("Apptainer could not start the software: ")
    assert "mend the version's `command`, or its image" in str(run.failure)


def test_an_image_that_is_missing_is_a_failure_of_configuration_until_it_is_there(
    works: Works, say: Say, tmp_path: Path
) -> None:
    define(works, sh(image_of(tmp_path), MERGE))
    aside = image_of(tmp_path).rename(tmp_path / "aside.sif")
    works.observe("counts")
    run = works.until(RunStatus.FAILED)
    assert run.failure_class is FailureClass.CONFIGURATION
    assert run.retry_at is None
    assert str(run.failure).startswith(f"the image {image_of(tmp_path)} cannot be used: No such file or directory")
    assert run.attempts[0].job_id is None
    aside.rename(image_of(tmp_path))
    assert say("run", "retry", run.id).exit_code == 0
    assert works.until(RunStatus.COMPLETED).id == run.id


def test_an_image_that_is_not_what_was_released_is_never_run(works: Works, tmp_path: Path) -> None:
    define(works, in_image(image_of(tmp_path), "id", digest="sha256:" + "0" * 64))
    works.observe("counts")
    run = works.until(RunStatus.FAILED)
    assert run.failure_class is FailureClass.CONFIGURATION
    assert "was released; put back what was, or release a new version" in str(run.failure)


def test_an_image_that_nobody_can_open_any_more_when_the_job_starts_is_told_so(works: Works, tmp_path: Path) -> None:
    define(works, sh(image_of(tmp_path), MERGE))
    works.observe("counts")
    digest = f"sha256:{hashlib.sha256(image_of(tmp_path).read_bytes()).hexdigest()}"
    cache_of(works).require(Image(str(image_of(tmp_path)), digest))
    cache_of(works).place(digest).unlink()
    cache_of(works).place(digest).symlink_to(tmp_path / "nowhere")
    cache_of(works).require = lambda image: cache_of(works).place(image.digest)  # type: ignore[method-assign] # as if it had been there
    run = works.until(RunStatus.FAILED)
    assert run.failure_class is FailureClass.INFRASTRUCTURE  # it was there just before
    assert "cannot be opened where the job ran" in str(run.failure)


def test_a_run_waits_for_its_image_and_says_so(works: Works, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = tmp_path / "gate"

    def slowly(image: Image, to: Path, *, held: Any) -> None:
        eventually(gate.exists, within=60)
        fetch(image, to, held=held)

    monkeypatch.setattr(caching, "fetch", slowly)
    cache = SifCache(tmp_path / "cache", most_bytes=10**9, patience=timedelta())
    works.workplace = replace(works.workplace, containers={works.location_id: Containers(cache, options=OPTIONS)})
    define(works, sh(image_of(tmp_path), MERGE))
    works.observe("counts")
    eventually(lambda: works.round() >= 0 and works.runs() and works.runs()[-1].waiting_for)
    run = works.run()
    assert run.status is RunStatus.STAGING_DATA
    assert run.waiting_for == f"its image {image_of(tmp_path)} is being fetched"
    gate.touch()
    eventually(lambda: not cache_of(works)._fetches)
    works.let_leases_end()
    works.settle(within=60)
    run = works.run()
    assert (run.status, len(run.attempts)) == (RunStatus.COMPLETED, 1)


def test_a_location_that_runs_no_images_says_what_to_do(works: Works, tmp_path: Path) -> None:
    works.workplace = replace(works.workplace, containers={})
    define(works, sh(image_of(tmp_path), MERGE))
    works.observe("counts")
    run = works.until(RunStatus.FAILED)
    assert run.failure_class is FailureClass.CONFIGURATION
    assert "software 1.0 is in an image, and location ramses runs none" in str(run.failure)


def of_run(works: Works) -> list[psutil.Process]:
    directory = str(run_directory(works.run(), works.base).directory)
    found = []
    for process in psutil.process_iter():
        try:
            if directory in process.environ().get("CCAT_JOB_DIRECTORY", "") and process.pid != os.getpid():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return found


def test_a_cancelled_run_asks_its_software_to_end_and_leaves_no_process(works: Works, say: Say, tmp_path: Path) -> None:
    script = """
        trap 'cat /etc/passwd >/dev/null && echo asked >>"$WORKFLOW_LOG_DIR/asked"; exit 0' TERM
        touch "$WORKFLOW_LOG_DIR/up"
        while :; do sleep 0.05; done
    """
    define(works, sh(image_of(tmp_path), script))
    works.observe("counts")
    works.until(RunStatus.RUNNING)
    logs = run_directory(works.run(), works.base).attempt(1).logs
    eventually((logs / "up").exists)
    processes = of_run(works)
    assert any("sleep" in one.name() or one.name() == "sh" for one in processes)
    assert say("run", "cancel", works.run().id, "--because", "clouds").exit_code == 0
    works.settle(within=30)
    assert works.run().status is RunStatus.CANCELLED
    assert (logs / "asked").read_text() == "asked\n"
    eventually(lambda: not of_run(works))


def test_time_and_memory_of_software_in_an_image_are_measured_and_limited(works: Works, tmp_path: Path) -> None:
    greedy = "dd if=/dev/zero of=/dev/null bs=300M count=1000"
    step = {**STEP, "resources": {"memory_gb": 0.1, "max_memory_gb": 0.1}}
    define(works, sh(image_of(tmp_path), greedy), step)
    works.observe("counts")
    run = works.until(RunStatus.FAILED)
    assert run.failure_class is FailureClass.RESOURCES
    assert "out of memory" in str(run.failure)
    assert (run.attempts[0].peak_memory_bytes or 0) > 10**8
