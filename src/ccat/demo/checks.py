"""Whether what was made is what the story asks for: values in, sentences out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

from ccat.demo.story import CHECK, FIGURES, ExpectedRun
from ccat_ops_db.states import RunStatus


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as `ccat runs` lists it; its subject is what the story calls its sub-group."""

    id: int
    step: str
    subject: str
    status: str
    reason: str
    because: str
    version: str
    failure: str | None = None
    metrics: Mapping[str, float] | None = None
    created_at: datetime
    submitted_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_completed(self) -> bool:
        """Whether it made what it should."""
        return self.status == RunStatus.COMPLETED


def subject_of(sub_group_key: str, names: Mapping[str, str]) -> str:
    """What the story calls a sub-group: the name of its last dimension's value, of which `names` knows some."""
    value = unquote(sub_group_key.rpartition("=")[2])
    dimension = sub_group_key.rpartition("=")[0].rpartition(",")[2]
    return names.get(value) or names.get(dimension) or sub_group_key


def run_deviations(expected: Iterable[ExpectedRun], found: Sequence[Run]) -> list[str]:
    """A sentence for every step that does not have exactly the expected runs; none where all is as it should be."""
    wanted, made = Counter(map(_told, expected)), Counter(map(_made, found))
    steps = dict.fromkeys(step for step, _ in [*wanted, *made])
    return [
        f"{step}: expected {_number(wanted, step)}, found {_number(made, step)}{_difference(step, wanted, made)}"
        for step in steps
        if _of(wanted, step) != _of(made, step)
    ]


_Told = tuple[str, str]
"""Step, and all that is compared of a run, as text."""


def _told(run: ExpectedRun) -> _Told:
    return run.step, f"{run.subject} ({run.version}, {run.reason})"


def _made(run: Run) -> _Told:
    state = "" if run.is_completed else f" {run.status}{f' ({run.failure})' if run.failure else ''}"
    return run.step, f"{run.subject} ({run.version}, {run.reason}){state}"


def _of(counts: Counter[_Told], step: str) -> Counter[str]:
    return Counter({text: number for (of, text), number in counts.items() if of == step})


def _number(counts: Counter[_Told], step: str) -> str:
    number = _of(counts, step).total()
    return f"{number} run{'' if number == 1 else 's'}"


def _difference(step: str, wanted: Counter[_Told], made: Counter[_Told]) -> str:
    parts = [("not made", _of(wanted, step) - _of(made, step)), ("not expected", _of(made, step) - _of(wanted, step))]
    return "".join(f", {what}: {', '.join(sorted(texts.elements()))}" for what, texts in parts if texts)


@dataclass(frozen=True)
class Value:
    """A science value with the band that it must be in."""

    name: str
    value: float
    low: float
    high: float

    @property
    def ok(self) -> bool:
        """Whether it is in its band; not a number is in none."""
        return self.low <= self.value <= self.high


def science_values(runs: Sequence[Run]) -> list[Value]:
    """What the last check among these runs found; its quality metrics hold `x`, `x_low` and `x_high` for each value."""
    metrics = next((run.metrics or {} for run in reversed(runs) if run.step == CHECK), {})
    return [
        Value(name, *(metrics[f"{name}{end}"] for end in ("", "_low", "_high")))
        for name in metrics
        if f"{name}_low" in metrics and f"{name}_high" in metrics
    ]


def science_deviations(values: Sequence[Value]) -> list[str]:
    """A sentence for every science value that is absent or outside of its band."""
    names = {one.name for one in values}
    absent = [f"{name}: expected a value, found none" for name in FIGURES if name not in names]
    outside = [
        f"{one.name}: expected {one.low:g} … {one.high:g}, found {one.value:.4g}" for one in values if not one.ok
    ]
    return absent + outside


def repeated_products(products: Iterable[Mapping[str, object]]) -> list[str]:
    """A sentence for every product that is registered more than once as the current one."""
    seen = Counter((one["step"], str(one["sub_group"]), one["path"]) for one in products)
    return [f"{step}: expected one current {path} of {of}, found {n}" for (step, of, path), n in seen.items() if n > 1]


def lineage_deviations(lineage: Mapping[str, Any], raw: Mapping[str, str]) -> list[str]:
    """A sentence for every raw file, name → checksum, that the lineage of the final map does not lead back to."""
    packages = lineage["packages"].values()
    reached = {(PurePath(file["path"]).name, file["checksum"]) for package in packages for file in package["files"]}
    return [
        f"lineage of the final map: expected the raw file {name} with {checksum}, found none"
        for name, checksum in raw.items()
        if (name, checksum) not in reached
    ]
