"""What came of the story in the end: products, lineage, and how quickly runs began."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from ccat.demo.checks import Run, Value, absent_maps, lineage_deviations, repeated_products, science_values
from ccat.demo.instruments import INSTRUMENTS
from ccat.demo.stage import Stage
from ccat.demo.story import ALL_SCANS

_FINAL_MAPS: Final = frozenset((one.name, *one.final_map) for one in INSTRUMENTS)
_FIRST_STEPS: Final = frozenset((one.name, one.first_step) for one in INSTRUMENTS)


@dataclass(frozen=True, kw_only=True)
class FinalMap:
    """A map as it is in the end, and what it was made of."""

    instrument: str
    subject: str
    lineage: Mapping[str, Any]
    lineage_tree: str

    def __str__(self) -> str:
        return f"the {self.instrument} map of {self.subject}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything that is shown in the end."""

    runs: Sequence[Run]
    values: Sequence[Value]
    products: Sequence[Mapping[str, Any]]
    """Current products, the oldest first."""
    packages: Sequence[Mapping[str, Any]]
    """Raw packages, the oldest first."""
    maps: Sequence[FinalMap]
    latencies: Sequence[timedelta]
    """From "package archived" to "run submitted", of each run of the first step."""
    deviations: Sequence[str]


def look_back(stage: Stage, runs: Sequence[Run]) -> Outcome:
    """Ask the system about what it made."""
    makers = {run.id: run for run in runs}
    with ThreadPoolExecutor() as side_by_side:
        packages = side_by_side.submit(stage.ccat.ask, "packages", "--limit", "1000")
        products = stage.ccat.ask("products", "--limit", "1000")[::-1]
        final = [one for one in products if _final(one, makers[one["run"]]) in _FINAL_MAPS]
        maps = list(side_by_side.map(lambda one: _map(stage, one["id"], makers[one["run"]]), final))
    values = science_values(runs)
    return Outcome(
        runs=runs,
        values=values,
        products=products,
        packages=packages.result()[::-1],
        maps=sorted(maps, key=str),
        latencies=_latencies(runs, maps, packages.result()),
        deviations=[
            *repeated_products(products),
            *absent_maps(values, ((one.instrument, one.subject) for one in maps)),
            *(line for one in maps for line in lineage_deviations(one.lineage, _raw(stage, one), of=str(one))),
        ],
    )


def _final(product: Mapping[str, Any], run: Run) -> tuple[str, str, str]:
    return run.instrument, run.step, product["path"]


def _map(stage: Stage, product: int, run: Run) -> FinalMap:
    return FinalMap(
        instrument=run.instrument,
        subject=run.subject,
        lineage=stage.ccat.ask("lineage", str(product)),
        lineage_tree=stage.ccat.show("lineage", str(product)),
    )


def _raw(stage: Stage, one: FinalMap) -> Mapping[str, str]:
    """Name → checksum of the raw files that a map is to be made of, which are also those of the planet of its night."""
    return {
        scan.file.name: scan.checksum
        for scan in stage.scans.values()
        if scan.instrument.name == one.instrument and one.subject in {ALL_SCANS, stage.names[scan.night]}
    }


def _latencies(runs: Sequence[Run], maps: Sequence[FinalMap], packages: Sequence[Mapping[str, Any]]) -> list[timedelta]:
    archived = {one["id"]: datetime.fromisoformat(one["archived_at"]) for one in packages}
    known = {int(number): run for one in maps for number, run in one.lineage["runs"].items()}
    return [
        run.submitted_at - max(archived[number] for number in known[run.id]["package_ids"])
        for run in runs
        if (run.instrument, run.step) in _FIRST_STEPS and run.submitted_at
    ]
