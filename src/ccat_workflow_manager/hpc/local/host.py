"""What this host has for jobs."""

import os
import time
from pathlib import Path

from ccat_workflow_manager.hpc.base import GIGABYTE

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container finds how much memory it may use, in both versions of the kernel's control groups."""


def host_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def host_memory_gb() -> float:
    """Return how much memory this host, or this container of it, has."""
    limits = [int(text) for text in map(_text, _LIMITS) if text.isdecimal()]
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *limits]) / GIGABYTE


def uptime() -> float:
    """Return the seconds since the start of the host, as the kernel dates processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def oom_kills() -> int:
    """Return how often the kernel has killed a process as it ran out of memory; 0 where it does not count."""
    _, _, rest = _text(Path("/proc/vmstat")).partition("\noom_kill ")
    return int(rest.split(maxsplit=1)[0]) if rest else 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
