"""The inbox: rows say what changed, and go in the transaction that takes it into account."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.grouping.reach import packages_of
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.sets import is_given

_Change = models.PendingChange
_PACKAGE: Final = models.RawDataPackage.__tablename__
_STEP: Final = models.ReductionStep.__tablename__
_PIPELINE: Final = models.Pipeline.__tablename__
_VERSION: Final = models.ReductionSoftwareVersion.__tablename__
_CONFIG: Final = models.ReductionStepConfigRevision.__tablename__
_HAND_ON: Final = sa.text("""
    INSERT INTO pending_change (pipeline_id, noun, object_id)
    SELECT p.id, :noun, listed.id FROM pipeline p CROSS JOIN unnest(:numbers) listed (id) WHERE p.enabled
""").bindparams(sa.bindparam("noun", type_=sa.Text()), sa.bindparam("numbers", type_=sa.ARRAY(sa.Text)))
_HAND_TO_TAKERS: Final = sa.text("""
    INSERT INTO pending_change (pipeline_id, noun, object_id, sub_group_key)
    SELECT DISTINCT taker.id, :noun, made.step_id::text, made.key
    FROM unnest(:steps, :keys) AS made (step_id, key)
    JOIN reduction_step giver ON giver.id = made.step_id
    JOIN auxiliary_rule rule ON rule.from_step_id = made.step_id
    JOIN reduction_step_revision step ON step.id = rule.step_revision_id
    JOIN pipeline_revision revision ON revision.id = step.pipeline_revision_id
    JOIN pipeline taker ON taker.id = revision.pipeline_id AND taker.enabled AND taker.id <> giver.pipeline_id
""").bindparams(
    sa.bindparam("noun", type_=sa.Text()),
    sa.bindparam("steps", type_=sa.ARRAY(sa.BigInteger)),
    sa.bindparam("keys", type_=sa.ARRAY(sa.Text)),
)
"""The other pipelines that choose auxiliary inputs among what a step makes are told."""
_PLAN_ANEW: Final = sa.text("SET LOCAL plan_cache_mode = 'force_custom_plan'")
"""What is planned for whatever changes would compare each of them with each that is there."""
_CLAIMED: Final = sa.select(
    sa.func.count(sa.delete(_Change).where(is_given(_Change.id, "ids")).returning(_Change.id).cte("claimed").c.id),
    # Whoever evaluates the others looks before this is committed, and has to look again.
    sa.func.pg_notify(CHANNEL, f"{_Change.__tablename__}:handed_out"),
)
_FEW: Final = 1_000
"""Changes that are found without a plan of their own."""
_PAGE: Final = 10_000
"""Changes that are handed out by one statement."""
_MANY: Final = 100_000
"""Changes of a pipeline beyond which it is looked at as a whole: that takes no longer, and no more memory."""
_TAKEN: Final = sa.text(f"""
    WITH taken AS (DELETE FROM pending_change WHERE pipeline_id = :pipeline RETURNING noun, object_id, sub_group_key)
    SELECT noun, object_id, sub_group_key FROM taken LIMIT {_MANY + 1}
""")  # noqa: S608 - our own number
_PLACED: Final = sa.text("""
    SELECT g.reduction_step_id, g.key, g.id
    FROM unnest(:steps, :keys) AS named (step_id, key)
    JOIN sub_group g ON g.reduction_step_id = named.step_id AND g.key = named.key
""").bindparams(sa.bindparam("steps", type_=sa.ARRAY(sa.BigInteger)), sa.bindparam("keys", type_=sa.ARRAY(sa.Text)))


@dataclass(frozen=True)
class Changes:
    """What happened to a pipeline's data, runs and definition since it was last evaluated."""

    packages: frozenset[int]
    places: Mapping[int, frozenset[str]]
    """Step id → keys of the sub-groups whose runs or products changed."""
    is_everything: bool
    """Whether there may be more than what is named."""


def hand_out(session: Session, *, waits: bool = False) -> int:
    """Give what changed to every enabled pipeline, and return how many changes that were.

    What somebody else is handing out is left to him; with `waits` it is waited for, by a caller that has no lock yet.
    A pipeline that is defined or enabled meanwhile misses nothing: it is looked at as a whole first.
    """
    number = last = 0
    while taken := session.execute(_unclaimed(skips=not waits), {"last": last}).all():
        if len(taken) > _FEW:
            session.execute(_PLAN_ANEW)
        session.execute(_CLAIMED, {"ids": [row.id for row in taken]})
        _hand_to_all(session, taken)
        number, last = number + len(taken), max(row.id for row in taken)
        if len(taken) < _PAGE:
            break
    return number


def _hand_to_all(session: Session, taken: Iterable[sa.Row[int, str, str, str | None]]) -> None:
    by_noun: defaultdict[str, set[str]] = defaultdict(set)
    made: set[tuple[int, str]] = set()
    for _, noun, number, key in taken:
        if noun == _STEP and key is not None:
            made.add((int(number), key))
        else:
            by_noun[noun].add(number)
    if made:
        session.execute(_HAND_TO_TAKERS, {"noun": _STEP, **_columns(made)})
    for noun, numbers in by_noun.items():
        _hand_to_pipelines(session, noun, numbers)


@cache
def _unclaimed(*, skips: bool) -> sa.Select[int, str, str, str | None]:
    """Locks what is not handed out yet after the `last` one; what somebody else is at is waited for, or skipped.

    It is deleted by a statement of its own: of a table that was empty when the database looked at it last, joined with
    itself, the database expects one row, and compares each with each.
    """
    is_next = sa.and_(_Change.pipeline_id.is_(None), _Change.id > sa.bindparam("last", type_=sa.BigInteger()))
    columns = sa.select(_Change.id, _Change.noun, _Change.object_id, _Change.sub_group_key)
    return columns.where(is_next).order_by(_Change.id).limit(_PAGE).with_for_update(skip_locked=skips)


def _hand_to_pipelines(session: Session, noun: str, numbers: Iterable[str]) -> None:
    if noun in {_PACKAGE, _VERSION, _CONFIG}:
        session.execute(_HAND_ON, {"noun": noun, "numbers": sorted(numbers)})
        return
    found = packages_of(noun, numbers).subquery()
    changed = sa.select(sa.literal(_PACKAGE).label("noun"), sa.cast(found.c.id, sa.Text).label("id")).subquery()
    handed = sa.select(models.Pipeline.id, changed.c.noun, changed.c.id).where(models.Pipeline.enabled)
    crossed = handed.join_from(models.Pipeline, changed, sa.true())
    session.execute(sa.insert(_Change).from_select(["pipeline_id", "noun", "object_id"], crossed))


def _columns(places: Iterable[tuple[int, str]]) -> dict[str, list[Any]]:
    """Steps and keys of sub-groups as two arrays."""
    listed = sorted(places)
    return {"steps": [step_id for step_id, _ in listed], "keys": [key for _, key in listed]}


def take(session: Session, pipeline_id: int) -> Changes:
    """Everything that happened to a pipeline; its rows go with the caller's transaction, in which it is evaluated."""
    rows = session.execute(_TAKEN, {"pipeline": pipeline_id}).all()
    if len(rows) > _MANY:
        return Changes(frozenset(), {}, is_everything=True)
    places: defaultdict[int, set[str]] = defaultdict(set)
    for noun, number, key in rows:
        if noun == _STEP and key is not None:
            places[int(number)].add(key)
    return Changes(
        packages=frozenset(int(number) for noun, number, _ in rows if noun == _PACKAGE),
        places={step_id: frozenset(keys) for step_id, keys in places.items()},
        is_everything=any(noun == _PIPELINE for noun, *_ in rows),
    )


def find_places(session: Session, places: Mapping[int, Collection[str]]) -> Mapping[int, Mapping[str, int]]:
    """The sub-groups that have these keys, by step: key → id."""
    found: defaultdict[int, dict[str, int]] = defaultdict(dict)
    named = [(step_id, key) for step_id, keys in places.items() for key in keys]
    for step_id, key, number in session.execute(_PLACED, _columns(named)) if named else ():
        found[step_id][key] = number
    return found
