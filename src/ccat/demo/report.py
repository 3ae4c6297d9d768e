"""What the demo shows at its end, for people and for programs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ccat.demo.checks import Run
from ccat.demo.crossing import ARCHIVED_AT, PACKED_AT, RECEIVED_AT, STAGED_AT
from ccat.demo.instruments import INSTRUMENTS
from ccat.demo.outcome import Outcome
from ccat.demo.stage import Stage

_TARGET: Final = timedelta(seconds=2)
"""From "package archived" to "run submitted"."""


def show(outcome: Outcome, console: Console) -> None:
    """Print what was made, the science values, the lineage of the final maps, and how quickly it went."""
    of = {run.id: (run.instrument, run.step, run.subject) for run in outcome.runs}
    _table(
        console,
        "Runs",
        columns=["id", "instrument", "step", "of", "version", "reason", "seconds"],
        rows=map(_run_cells, outcome.runs),
    )
    rows = [
        (one["id"], *of[one["run"]], one["type"], one["path"], f"{one['size_bytes'] / 1e6:.1f}")
        for one in outcome.products
    ]
    _table(console, "Current products", columns=["id", "instrument", "step", "of", "type", "path", "MB"], rows=rows)
    checked = [
        (
            *(one.instrument, one.subject, one.name),
            *(f"{one.value:.4g}", f"{one.low:g}", f"{one.high:g}", "ok" if one.ok else "OUT OF BAND"),
        )
        for one in outcome.values
    ]
    columns = ["instrument", "of", "value", "found", "low", "high", ""]
    _table(console, "The final maps against the truth", columns=columns, rows=checked)
    for one in outcome.maps:
        console.print(f"\n[bold]Lineage of {one}[/bold]", highlight=False)
        console.print(Text(one.lineage_tree.rstrip()), soft_wrap=True)
    console.print(f"\n{latency_sentence(outcome.latencies)}", highlight=False, soft_wrap=True)


def show_places(stage: Stage, console: Console) -> None:
    """Say where everything lies."""
    directory = stage.directory
    places = {
        **{f"raw files of {one.name}": directory.disk_of(one.disk) for one in INSTRUMENTS},
        "raw packages, where they were packed": directory.disk_of(PACKED_AT),
        "raw packages, once they had crossed": directory.disk_of(RECEIVED_AT),
        "long-term archive": directory.disk_of(ARCHIVED_AT),
        "products, run by run": directory.disk_of(STAGED_AT),
        "definitions that were applied": directory.definitions,
        "logs of all processes": directory.stack.logs,
        "this report, for programs": directory.report,
    }
    _table(console, "Where everything lies", columns=["what", "where"], rows=places.items())


def latency_sentence(latencies: Sequence[timedelta]) -> str:
    """How soon after the archiving of a package its first run was submitted."""
    seconds = [one.total_seconds() for one in latencies]
    return (
        f'From "package archived" to "run submitted": median {median(seconds):.2f} s, longest {max(seconds):.2f} s '
        f"of {len(seconds)} runs without a cooldown (target: under {_TARGET.total_seconds():g} s)."
    )


def as_json(outcome: Outcome, *, seconds: float) -> str:
    """Everything, for programs."""
    document = {
        "seconds": round(seconds, 1),
        "runs": [asdict(run) for run in outcome.runs],
        "packages": outcome.packages,
        "products": outcome.products,
        "science": [{**asdict(value), "ok": value.ok} for value in outcome.values],
        "latency_seconds": [latency.total_seconds() for latency in outcome.latencies],
        "maps": [
            {"instrument": one.instrument, "subject": one.subject, "lineage": one.lineage} for one in outcome.maps
        ],
    }
    return json.dumps(document, indent=1, default=datetime.isoformat) + "\n"


def _run_cells(run: Run) -> tuple[object, ...]:
    seconds = f"{(run.finished_at - run.created_at).total_seconds():.1f}" if run.finished_at else ""
    return run.id, run.instrument, run.step, run.subject, run.version, run.reason, seconds


def _table(console: Console, title: str, *, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in {"seconds", "MB", "found"} else "left")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)
