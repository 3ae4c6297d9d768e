"""Which jobs are handed in together."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from datetime import timedelta
from typing import Final

from ccat_workflow_manager.hpc.base import JobSpec

_OWN: Final = frozenset(
    {"name", "command", "environment", "directory", "working_directory", "stdout", "stderr", "priority"}
)
"""What jobs of a bundle need not have in common."""


def in_bundles(jobs: Sequence[tuple[int, JobSpec]], *, most: int, longest: timedelta) -> list[list[str]]:
    """Names of jobs by the bundles that they make: of one step, asking for the same, two at least; others are left out.

    So are those with a longer time limit. `jobs` come with the id of the revision of their step.
    """
    alike = defaultdict[Hashable, list[str]](list)
    for step, job in ((step, job) for step, job in jobs if job.time_limit <= longest):
        alike[step, *_asks_for(job)].append(job.name)
    cut = (names[start : start + most] for names in alike.values() for start in range(0, len(names), most))
    return [names for names in cut if len(names) > 1]


def _asks_for(job: JobSpec) -> tuple[Hashable, ...]:
    return tuple(value for name, value in sorted(vars(job).items()) if name not in _OWN)
