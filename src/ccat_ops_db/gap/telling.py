from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.statements import find_auxiliary_words, find_words
from ccat_ops_db.gap.steps import StepNow
from ccat_ops_db.plan.sentences import NONE, Auxiliary, Lacking, Names, Packages, Scan, Told, Wanted, sentence
from ccat_ops_db.states import RunReason, Verdict

_Group, _Member = models.SubGroup, models.SubGroupPackage
_STEP: Final = sa.bindparam("step", type_=sa.BigInteger())
_FIRST: Final = Told(verdict=Verdict.WANTED, reason=RunReason.MISSING)
_PLAIN: Final = sa.select(_Group.id).where(
    _Group.reduction_step_id == _STEP,
    _Group.id == sa.any_(sa.bindparam("ids", type_=sa.ARRAY(sa.BigInteger))),
    _Group.verdict == _FIRST.verdict,
    _Group.reason == _FIRST.reason,
    sa.not_(sa.exists().where(_Member.reduction_step_id == _STEP, _Member.left_out.is_not(None))),
)
"""Those that are run for the first time, with all that they have: there may be very many, and nothing more is said."""


def tell(session: Session, step: StepNow, ids: Collection[int]) -> Mapping[int, str]:
    """Why some sub-groups of a step are as they were last evaluated, each in a sentence; by id."""
    version = step.version
    wanted = Wanted(
        step.software,
        step.policy,
        version.version if version else None,
        version.series if version else None,
        step.waits.min_fraction,
        step.withdrawn_config,
    )
    plain = frozenset(session.scalars(_PLAIN, {"step": step.id, "ids": sorted(ids)}))
    others = set(ids) - plain
    auxiliary = _auxiliary(step, find_auxiliary_words(session, step, others))
    return dict.fromkeys(plain, sentence(_FIRST, wanted)) | {
        row["id"]: sentence(_told(row, auxiliary.get(row["id"], Auxiliary())), wanted)
        for row in find_words(session, step, others)
    }


def _auxiliary(step: StepNow, rows: Iterable[sa.RowMapping]) -> Mapping[int, Auxiliary]:
    """What is told about auxiliary inputs, by sub-group."""
    rules = {rule.name: rule for rule in step.auxiliary}
    found: defaultdict[int, dict[str, Names]] = defaultdict(dict)
    for row in rows:
        found[row["sub_group_id"]][row["rule"] or row["kind"]] = Names(row["names"], row["number"])
    return {
        number: Auxiliary(
            tuple(Lacking(one.name, one.place, one.max_age, told[name]) for name, one in rules.items() if name in told),
            better=told.get("better", NONE),
            lost=told.get("lost", NONE),
        )
        for number, told in found.items()
    }


def lacks_of_its_scan(session: Session, step: StepNow, sub_group_id: int) -> bool:
    """Whether a sub-group waits for something that its scan recorded, or still records."""
    [row] = find_words(session, step, [sub_group_id])
    scan = _scan(row) if row["scan_id"] else None
    return scan is not None and bool(scan.goes_on or scan.lacking or scan.unpacked or scan.pending.number)


def _told(row: sa.RowMapping, auxiliary: Auxiliary) -> Told:
    return Told(
        verdict=Verdict(row["verdict"]),
        reason=RunReason(row["reason"]) if row["reason"] else None,
        due_at=row["due_at"],
        last_run_id=row["last_run_id"],
        version=row["version"],
        series=row["series"],
        new=Names(row["new"] or (), row["new_number"]),
        excluded=Names(row["excluded"] or (), row["excluded_number"]),
        pixels=Names(row["pixels"] or (), row["pixels_number"]),
        newer=Names(row["newer"] or (), row["newer_number"]),
        damaged=Names(row["damaged"] or (), row["damaged_number"]),
        withdrawn_because=row["withdrawn_because"],
        waits=Names(row["waits"] or (), row["waits_number"]),
        packages=Packages(row["taken"] or 0, row["left_out"] or 0, row["in_time"] or 0, row["in_time_ready"] or 0),
        auxiliary=auxiliary,
        is_given_up=row["is_given_up"],
        scan=_scan(row) if row["scan_id"] else None,
        abandoned_id=row["abandoned_id"],
        failure=row["failure"],
    )


def _scan(row: sa.RowMapping) -> Scan:
    pending = Names(row["pending"] or (), row["pending_number"])
    return Scan(
        row["scan_id"],
        row["goes_on"],
        row["lacking"],
        unpacked=row["unpacked"],
        pending=pending,
        has_failed=row["has_failed"],
    )
