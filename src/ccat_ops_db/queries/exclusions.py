"""What was excluded, by whom and why, and what that means."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models

_CONCERNED: Final = """
    WITH concerned AS MATERIALIZED (
        SELECT DISTINCT found.id
        FROM exclusion e, packages_excluded(
            e.raw_data_package_id, e.instrument_id, e.instrument_module_id, e.begins_at, e.ends_at) found (id)
        WHERE e.id = ANY(:exclusions)
    )
"""
_NUMBERS: Final = f"""
    {_CONCERNED}
    SELECT count(*), coalesce(sum(p.size_bytes), 0)::bigint, count(*) FILTER (WHERE p.excluded_at IS NOT NULL)
    FROM concerned JOIN raw_data_package p ON p.id = concerned.id
"""  # noqa: S608 - our own text
_AFFECTED: Final = f"""
    {_CONCERNED}
    SELECT pipeline.name, step.key, count(*), count(*) FILTER (WHERE NOT EXISTS (
        SELECT FROM sub_group_package m JOIN raw_data_package p ON p.id = m.raw_data_package_id
        WHERE m.sub_group_id = place.sub_group_id AND NOT m.is_faded AND p.excluded_at IS NULL))
    FROM (SELECT DISTINCT m.reduction_step_id, m.sub_group_id
          FROM concerned JOIN sub_group_package m ON m.raw_data_package_id = concerned.id WHERE NOT m.is_faded) place
    JOIN reduction_step step ON step.id = place.reduction_step_id
    JOIN pipeline ON pipeline.id = step.pipeline_id
    GROUP BY pipeline.id, step.id ORDER BY pipeline.name, step.id
"""  # noqa: S608 - our own text


@dataclass(frozen=True)
class Concerned:
    """The packages that exclusions are of."""

    packages: int
    size_bytes: int
    out: int
    """How many of them are in no grouping now, for these exclusions or others."""


@dataclass(frozen=True)
class Affected:
    """Sub-groups of a step, as they were last evaluated, that have packages which exclusions are of."""

    pipeline: str
    step: str
    sub_groups: int
    emptied: int
    """How many of them are left with no package that is not excluded."""


@dataclass(frozen=True)
class ListedExclusion:
    """An exclusion as a list shows it."""

    id: int
    what: str
    begins_at: datetime | None
    ends_at: datetime | None
    pixels: Sequence[str] | None
    because: str
    by: str
    at: datetime
    packages: int
    """How many it is of now."""
    lifted_at: datetime | None
    lifted_by: str | None
    lifted_because: str | None


def list_exclusions(
    session: Session, *, everything: bool, limit: int, before: int | None = None
) -> Sequence[ListedExclusion]:
    """The newest exclusions that hold, or all; `before` is the id where the last page ended."""
    one = models.Exclusion
    objects = (one.raw_data_package_id, one.instrument_id, one.instrument_module_id)
    found = sa.func.packages_excluded(*objects, one.begins_at, one.ends_at).table_valued("id")
    packages = sa.select(sa.func.count()).select_from(found).correlate(one).scalar_subquery()
    columns = (one.id, one.what, one.begins_at, one.ends_at, one.pixels, one.because, one.by, one.created_at)
    query = (
        sa.select(*columns, packages)
        .add_columns(one.lifted_at, one.lifted_by, one.lifted_because)
        .where(
            *([] if everything else [one.lifted_at.is_(None)]),
            *([] if before is None else [one.id < before]),
        )
        .order_by(one.id.desc())
        .limit(limit)
    )
    return [ListedExclusion(*row) for row in session.execute(query)]


def concerned(session: Session, exclusions: Collection[int]) -> Concerned:
    """How many packages some exclusions are of."""
    return Concerned(*session.execute(_asking(_NUMBERS), {"exclusions": list(exclusions)}).one())


def affected(session: Session, exclusions: Collection[int]) -> Sequence[Affected]:
    """Which sub-groups have packages that some exclusions are of."""
    return [Affected(*row) for row in session.execute(_asking(_AFFECTED), {"exclusions": list(exclusions)})]


def _asking(text: str) -> sa.TextClause:
    return sa.text(text).bindparams(sa.bindparam("exclusions", type_=sa.ARRAY(sa.BigInteger)))
