"""What a host of the cluster is given to run: shell text in which nothing of a job is ever read as shell text."""

import shlex
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from ccat_workflow_manager.hpc.base import JobSpec


def run_script(spec: JobSpec, *, wrapper: Path, grace: timedelta, passed: Sequence[str] = ()) -> str:
    """Return the script that runs a job whose id at the cluster is its one argument.

    The job gets its own environment and, of its host's, what is `passed`.
    """
    environment = {**spec.environment, **spec.marks}
    given = [f"{name}={value}" for name, value in environment.items()]
    before = [
        *("/bin/sh", str(wrapper), str(spec.directory), str(spec.working_directory), str(spec.stdout)),
        *(str(spec.stderr), f"{spec.time_limit.total_seconds():.3f}", f"{grace.total_seconds():.3f}"),
    ]
    words = [
        *("exec /usr/bin/env -i", *_passed(spec, passed), shlex.join(given)),
        *(shlex.join(before), '"$1"', shlex.join(spec.command)),
    ]
    return "#!/bin/sh\n" + " ".join(words) + "\n"


def _passed(spec: JobSpec, names: Sequence[str]) -> Iterator[str]:
    """Words that give what the host has set, to the job and, where that is another, to its software."""
    for name in names:
        for prefix in dict.fromkeys(("", spec.inner_prefix)):
            yield f'${{{name}+"{prefix}{name}=${name}"}}'
