"""What the system says of its runs and of what waits, in the words of the story."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ccat.demo.checks import Run, Wait, subject_of
from ccat.demo.crossing import Package, package_of
from ccat.demo.instruments import INSTRUMENT_OF
from ccat.demo.stage import Stage
from ccat_ops_db.states import Verdict


def runs_since(stage: Stage, last: int) -> list[Run]:
    """Runs that were created after one, the oldest first."""
    rows = stage.ccat.ask("runs", "--limit", "1000")
    return [_run(stage, row) for row in reversed(rows) if row["id"] > last]


def packages_since(stage: Stage, last: int) -> list[Package]:
    """Raw packages that were made after one, the oldest first."""
    rows = stage.ccat.ask("packages", "--limit", "1000")
    return [package_of(row) for row in reversed(rows) if row["id"] > last]


def waits_in(stage: Stage, pipelines: Iterable[str]) -> list[Wait]:
    """What waits for something in some pipelines."""
    return [
        _wait(stage, pipeline, row)
        for pipeline in pipelines
        for row in stage.ccat.ask("gap", pipeline, "--verdict", Verdict.BLOCKED)["sub_groups"]
    ]


def _run(stage: Stage, row: Mapping[str, Any]) -> Run:
    same = ("id", "step", "status", "reason", "because", "version", "failure", "metrics")
    return Run(
        **{name: row[name] for name in same},
        instrument=INSTRUMENT_OF[row["pipeline"]],
        subject=subject_of(row["sub_group_key"], stage.names),
        created_at=datetime.fromisoformat(row["created_at"]),
        submitted_at=_moment(row["submitted_at"]),
        finished_at=_moment(row["finished_at"]),
    )


def _wait(stage: Stage, pipeline: str, row: Mapping[str, Any]) -> Wait:
    return Wait(
        pipeline=pipeline,
        step=row["step"],
        subject=subject_of(row["key"], stage.names),
        because=row["because"],
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
