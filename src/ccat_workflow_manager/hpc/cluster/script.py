"""What a host of the cluster is given to run: shell text in which nothing of a job is ever read as shell text."""

import shlex
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from ccat_workflow_manager.hpc.base import JOB_VARIABLE, JobSpec


def run_script(spec: JobSpec, *, wrapper: Path, grace: timedelta, passed: Sequence[str] = ()) -> str:
    """Return the script that runs a job whose id at the cluster is its one argument.

    The job gets its own environment and, of its host's, what is `passed`.
    """
    environment = {**spec.environment, JOB_VARIABLE: str(spec.directory)}
    given = [f"{name}={value}" for name, value in environment.items()]
    before = [
        *("/bin/sh", str(wrapper), str(spec.directory), str(spec.working_directory), str(spec.stdout)),
        *(str(spec.stderr), f"{spec.time_limit.total_seconds():.3f}", f"{grace.total_seconds():.3f}"),
    ]
    words = [
        *("exec /usr/bin/env -i", *(_if_set(name) for name in passed), shlex.join(given)),
        *(shlex.join(before), '"$1"', shlex.join(spec.command)),
    ]
    return "#!/bin/sh\n" + " ".join(words) + "\n"


def _if_set(name: str) -> str:
    return f'${{{name}+"{name}=${name}"}}'
