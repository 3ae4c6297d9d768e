"""What benchmarks share: how time and memory are taken, and how figures are told to people and programs."""

import json
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from ccat.stack.programs import postgresql_programs

_TIMES: Final = 3


class NotMeasurable(Exception):
    """This machine lacks something that is measured; the text says how to get it."""


@dataclass(frozen=True)
class Figure:
    """Something that was measured; its key ends in its unit."""

    key: str
    value: float
    at_most: float | None = None
    """What it should stay below."""
    at_least: float | None = None
    """What it should reach."""

    def target(self) -> str:
        """What it should be, for people."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"

    def verdict(self) -> str:
        """Whether it is, where it should."""
        if not self.target():
            return ""
        low, high = self.at_least, self.at_most
        is_met = (low is None or self.value >= low) and (high is None or self.value <= high)
        return "met" if is_met else "missed"


def seconds(work: Callable[[], object], *, before: Callable[[], object] = lambda: None, warm_up: int = 1) -> float:
    """Median duration of a piece of work, which is done to warm up first; of what is done `before` each time, none."""
    durations = []
    for _ in range(warm_up + _TIMES):
        before()
        durations.append(once(work))
    return statistics.median(durations[warm_up:])


def once(work: Callable[[], object]) -> float:
    """Duration of a piece of work that is long."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory_mb() -> float:
    """The most memory that this process has had so far, without its children."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def tell(bench: str, figures: Iterable[Figure]) -> None:
    """Print a table, and as the last line one JSON object."""
    found = list(figures)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("figure", "measured", "target", ""):
        table.add_column(column, justify="left" if column in {"figure", ""} else "right")
    for one in found:
        table.add_row(one.key, f"{one.value:.4g}", one.target(), one.verdict())
    Console().print(table)
    print(json.dumps({"bench": bench, **_machine(), "figures": {one.key: round(one.value, 4) for one in found}}))


def _machine() -> dict[str, Any]:
    said = subprocess.run([postgresql_programs() / "postgres", "--version"], check=True, capture_output=True, text=True)
    return {"cpu": _cpu(), "python": platform.python_version(), "postgresql": said.stdout.split()[-1]}


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"
