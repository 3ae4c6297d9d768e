"""Whether what was made is what the story asks for: values in, sentences out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

from ccat.demo.instruments import INSTRUMENT_OF, INSTRUMENTS
from ccat.demo.story import CHECK, ExpectedRun, ExpectedWait
from ccat_ops_db.states import RunStatus


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as `ccat runs` lists it; its subject is what the story calls its sub-group."""

    id: int
    instrument: str
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


@dataclass(frozen=True, kw_only=True)
class Wait:
    """A sub-group that waits for something, as `ccat gap` tells it."""

    pipeline: str
    step: str
    subject: str
    because: str

    def __str__(self) -> str:
        return f"{INSTRUMENT_OF[self.pipeline]} {self.step} of {self.subject} {self.because}"


def subject_of(sub_group_key: str, names: Mapping[str, str]) -> str:
    """What the story calls a sub-group: by a value of its dimensions, or else by a dimension, that `names` knows."""
    dimensions = [dimension.partition("=") for dimension in sub_group_key.split(",")]
    words = [*(unquote(value) for _, _, value in dimensions), *(name for name, _, _ in dimensions)]
    return next((names[word] for word in words if word in names), sub_group_key)


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
"""Step with its instrument, and all that is compared of a run, as text."""


def _told(run: ExpectedRun) -> _Told:
    return f"{run.instrument} {run.step}", f"{run.subject} ({run.version}, {run.reason})"


def _made(run: Run) -> _Told:
    state = "" if run.is_completed else f" {run.status}{f' ({run.failure})' if run.failure else ''}"
    return f"{run.instrument} {run.step}", f"{run.subject} ({run.version}, {run.reason}){state}"


def _of(counts: Counter[_Told], step: str) -> Counter[str]:
    return Counter({text: number for (of, text), number in counts.items() if of == step})


def _number(counts: Counter[_Told], step: str) -> str:
    number = _of(counts, step).total()
    return f"{number} run{'' if number == 1 else 's'}"


def _difference(step: str, wanted: Counter[_Told], made: Counter[_Told]) -> str:
    parts = [("not made", _of(wanted, step) - _of(made, step)), ("not expected", _of(made, step) - _of(wanted, step))]
    return "".join(f", {what}: {', '.join(sorted(texts.elements()))}" for what, texts in parts if texts)


def wait_deviations(expected: Sequence[ExpectedWait], found: Sequence[Wait]) -> list[str]:
    """A sentence for whatever does not wait as it should, or waits and should not."""
    missing = [one for one in expected if not any(_is_it(one, wait) for wait in found)]
    excess = [wait for wait in found if not any(_is_it(one, wait) for one in expected)]
    return [
        *(
            f"{INSTRUMENT_OF[one.pipeline]} {one.step} of {one.subject} {one.because}…: expected, not found"
            for one in missing
        ),
        *(f"{wait}: found, not expected" for wait in excess),
    ]


def _is_it(expected: ExpectedWait, found: Wait) -> bool:
    place = (expected.pipeline, expected.step, expected.subject)
    return place == (found.pipeline, found.step, found.subject) and found.because.startswith(expected.because)


@dataclass(frozen=True, kw_only=True)
class Value:
    """A science value of a map, with the band that it must be in."""

    instrument: str
    subject: str
    name: str
    value: float
    low: float
    high: float

    @property
    def ok(self) -> bool:
        """Whether it is in its band; not a number is in none."""
        return self.low <= self.value <= self.high


def science_values(runs: Iterable[Run]) -> list[Value]:
    """What the newest check of each map found; its quality metrics hold `x`, `x_low` and `x_high` for each value."""
    newest = {(run.instrument, run.subject): run.metrics or {} for run in runs if run.step == CHECK}
    return [
        Value(
            instrument=instrument,
            subject=subject,
            name=name,
            value=newest[instrument, subject][name],
            low=newest[instrument, subject][f"{name}_low"],
            high=newest[instrument, subject][f"{name}_high"],
        )
        for instrument, subject in sorted(newest)
        for name in _with_band(newest[instrument, subject])
    ]


def _with_band(metrics: Mapping[str, float]) -> list[str]:
    return [name for name in metrics if f"{name}_low" in metrics and f"{name}_high" in metrics]


def science_deviations(expected: Iterable[ExpectedRun], values: Sequence[Value]) -> list[str]:
    """A sentence for every science value of the checked maps that is absent or outside of its band."""
    figures = {one.name: one.figures for one in INSTRUMENTS}
    found = {(one.instrument, one.subject, one.name) for one in values}
    absent = [
        f"{run.instrument} {run.subject}, {name}: expected a value, found none"
        for run in expected
        if run.step == CHECK
        for name in figures[run.instrument]
        if (run.instrument, run.subject, name) not in found
    ]
    outside = [
        f"{one.instrument} {one.subject}, {one.name}: expected {one.low:g} … {one.high:g}, found {one.value:.4g}"
        for one in values
        if not one.ok
    ]
    return absent + outside


def repeated_products(products: Iterable[Mapping[str, object]]) -> list[str]:
    """A sentence for every product that is registered more than once as the current one."""
    seen = Counter((f"{one['pipeline']}/{one['step']}", str(one["sub_group"]), one["path"]) for one in products)
    return [f"{step}: expected one current {path} of {of}, found {n}" for (step, of, path), n in seen.items() if n > 1]


def absent_maps(values: Iterable[Value], found: Iterable[tuple[str, str]]) -> list[str]:
    """A sentence for every map that was checked, by instrument and subject, and is not among the current products."""
    checked = {(one.instrument, one.subject) for one in values}
    return [
        f"{instrument} {subject}: expected a current map, found none"
        for instrument, subject in sorted(checked - set(found))
    ]


def lineage_deviations(lineage: Mapping[str, Any], raw: Mapping[str, str], *, of: str) -> list[str]:
    """A sentence for every raw file, name → checksum, to which the lineage of a map does not lead, or should not."""
    packages = lineage["packages"].values()
    reached = {(PurePath(file["path"]).name, file["checksum"]) for package in packages for file in package["files"]}
    wanted = set(raw.items())
    return [
        f"lineage of {of}: expected the raw file {name} with {checksum}, found none"
        for name, checksum in sorted(wanted - reached)
    ] + [
        f"lineage of {of}: expected nothing else, found the raw file {name} with {checksum}"
        for name, checksum in sorted(reached - wanted)
    ]
