"""What came of the story in the end: products, lineage, and how quickly runs began."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from ccat.demo.checks import Run, Value, lineage_deviations, repeated_products
from ccat.demo.stage import Stage

_MAP: Final = ("grid", "science/moment0.fits")
"""Step and path of the final map."""
_FIRST_STEP: Final = "calibrate"
"""The step that takes raw data, and has no cooldown."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything that is shown in the end."""

    runs: Sequence[Run]
    values: Sequence[Value]
    products: Sequence[Mapping[str, Any]]
    """Current products, the oldest first."""
    lineage: Mapping[str, Any]
    lineage_tree: str
    latencies: Sequence[timedelta]
    """From "package archived" to "run submitted", of each run of the first step."""
    deviations: Sequence[str]


def look_back(stage: Stage, runs: Sequence[Run], values: Sequence[Value]) -> Outcome:
    """Ask the system about what it made."""
    ask = stage.ccat.ask
    with ThreadPoolExecutor(2) as side_by_side:
        packages = side_by_side.submit(ask, "packages", "--limit", "1000")
        products = ask("products", "--limit", "1000")[::-1]
        final_map = next(str(one["id"]) for one in products if (one["step"], one["path"]) == _MAP)
        tree = side_by_side.submit(stage.ccat.show, "lineage", final_map)
        lineage = ask("lineage", final_map)
    return Outcome(
        runs=runs,
        values=values,
        products=products,
        lineage=lineage,
        lineage_tree=tree.result(),
        latencies=_latencies(runs, lineage, packages.result()),
        deviations=[
            *repeated_products(products),
            *lineage_deviations(lineage, {scan.file.name: scan.checksum for scan in stage.scans.values()}),
        ],
    )


def _latencies(
    runs: Sequence[Run], lineage: Mapping[str, Any], packages: Sequence[Mapping[str, Any]]
) -> list[timedelta]:
    archived = {one["id"]: datetime.fromisoformat(one["archived_at"]) for one in packages}
    return [
        run.submitted_at - max(archived[number] for number in lineage["runs"][str(run.id)]["package_ids"])
        for run in runs
        if run.step == _FIRST_STEP and run.submitted_at
    ]
