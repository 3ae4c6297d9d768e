import json
from pathlib import Path
from typing import Any

from ccat_workflow_manager.hpc.base import JobSpec
from tests.workflow.hpc.bench import Bench, until


def first_process(job: JobSpec) -> int:
    """The pid that a job wrote into its start mark."""
    mark = job.directory / "job.start"
    until(lambda: mark.exists() and mark.read_text())
    return int(json.loads(mark.read_text())["process"]["pid"])


def change(mark: Path, **values: object) -> None:
    mark.write_text(json.dumps(json.loads(mark.read_text()) | values))


def running(bench: Bench, script: str, **changes: Any) -> JobSpec:
    """A job that has done what the script says, and goes on."""
    job = bench.spec(f"{script}\necho here\nsleep 100", **changes)
    bench.backend.submit(job)
    bench.until_it_says(job, "here")
    return job
