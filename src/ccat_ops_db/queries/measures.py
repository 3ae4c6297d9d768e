"""What the attempts of each step used, beside what the step asks for, and what it should ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db.lookup import PIPELINE, require
from ccat_ops_db.plan.advice import Advice, Asked, Measured, Used, advise

RUNS: Final = 1_000
"""Of each version of a step so many runs are looked at, the last that were begun."""
VERSIONS: Final = 3
"""So many versions of a step are looked at, those that were begun last."""


@dataclass(frozen=True, kw_only=True)
class StepUse:
    """A step with one version of its software: what it asks for, what its attempts used, what it should ask for."""

    pipeline: str
    step: str
    version: str | None
    """None where no run of the step was begun."""
    is_newest: bool
    """Whether no other version was begun later; for others nothing is proposed."""
    asked: Asked
    measured: Measured
    advice: Advice


def step_uses(session: Session, pipeline: str | None = None) -> Sequence[StepUse]:
    """Every step as it is defined now, of one pipeline or of all, and each version that it ran with lately.

    Trials do not count. Raises UnknownName.
    """
    if pipeline is not None:
        require(session, PIPELINE, pipeline)
    values = {"pipeline": pipeline, "runs": RUNS, "versions": VERSIONS}
    return [_use(dict(row)) for row in session.execute(_statement(), values).mappings()]


def _use(row: Mapping[str, Any]) -> StepUse:
    asked, measured, is_newest = _asked(row["resources"]), _measured(row), row["place"] in {None, 1}
    return StepUse(
        pipeline=row["pipeline"],
        step=row["step"],
        version=row["version"],
        is_newest=is_newest,
        asked=asked,
        measured=measured,
        advice=advise(asked, measured) if is_newest else Advice({}, "another version was begun since"),
    )


def _asked(resources: Mapping[str, Any]) -> Asked:
    return Asked(
        cpu=resources["cpu"],
        memory_gb=resources["memory_gb"],
        time_hours=resources["time_hours"],
        max_memory_gb=resources.get("max_memory_gb"),
        max_time_hours=resources.get("max_time_hours"),
        ntasks=resources.get("ntasks", 1),
        nodes=resources.get("nodes", 1),
    )


def _measured(row: Mapping[str, Any]) -> Measured:
    if row["version"] is None:
        return Measured()
    return Measured(
        attempts=row["attempts"],
        memory=_used(row, "memory", ran_out=row["memory_ran_out"], ran_out_at=row["memory_ran_out_at"]),
        time=_used(row, "time", ran_out=row["time_ran_out"], ran_out_at=row["time_ran_out_at"]),
        cpu=_used(row, "cpu"),
        cpu_efficiency=row["cpu_efficiency"],
    )


def _used(row: Mapping[str, Any], what: str, *, ran_out: int = 0, ran_out_at: float | None = None) -> Used:
    return Used(
        known=row[f"{what}_known"],
        usual=row[f"{what}_usual"],
        most=row[f"{what}_most"],
        ran_out=ran_out,
        ran_out_at=ran_out_at,
    )


@cache
def _statement() -> sa.TextClause:
    text = (files(__package__) / "sql" / "measures.sql").read_text()
    return sa.text(text).bindparams(
        sa.bindparam("pipeline", type_=sa.Text()),
        sa.bindparam("runs", type_=sa.BigInteger()),
        sa.bindparam("versions", type_=sa.BigInteger()),
    )
