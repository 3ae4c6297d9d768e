"""What became of one observing night: observed, archived, reduced, and what is in the way of the rest."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload

from ccat_ops_db import models
from ccat_ops_db.gap.steps import current_revisions, pipeline_now
from ccat_ops_db.gap.telling import tell
from ccat_ops_db.plan.nights import Hindrance, Night, Observed, Place, StepNight
from ccat_ops_db.queries.lost_packages import CALLED_GONE, LOST_SENTENCE, NO_COPY_LEFT, lost_packages
from ccat_ops_db.queries.pauses import stopped
from ccat_ops_db.queries.short_scans import short_scans
from ccat_ops_db.states import PackageState, TriggerType

_TYPES: Final[Mapping[str, Any]] = {
    "night": sa.Date(),
    "lost": sa.ARRAY(sa.BigInteger),
    "steps": sa.ARRAY(sa.BigInteger),
    "revisions": sa.ARRAY(sa.BigInteger),
}
_PLAIN: Final = {
    Place.RUNNING: "is under way",
    Place.WAITING: "is about to start",
    Place.WANTED: "its run is about to be created",
    Place.COOLING: "rests, as more data may come",
    Place.FAILED: "given up: an input is missing",
    Place.CANCELLED: "was cancelled",
}
"""What is said of a sub-group where its run says nothing."""


@dataclass(frozen=True)
class _Step:
    """A step of an enabled pipeline."""

    id: int
    revision_id: int
    pipeline_id: int
    pipeline: str
    key: str
    runs_by_itself: bool


def last_night(session: Session) -> date | None:
    """The newest night in which something was observed; None where nothing ever was."""
    return session.scalar(sa.select(sa.func.max(models.ExecutedObsUnit.observing_night)))


def look_up_night(session: Session, night: date | None) -> Night:
    """What became of a night, named by the date of its evening; the last one where none is named."""
    night = night or last_night(session)
    if night is None:
        return Night(night=None)
    steps = _steps(session)
    ours = {"night": night, "steps": [one.id for one in steps], "revisions": [one.revision_id for one in steps]}
    ours["lost"] = list(lost_packages(session))
    by_itself = {**ours, "steps": [one.id for one in steps if one.runs_by_itself]}
    scans = _rows(session, "night_scans", by_itself)[0]
    packages, groups = _rows(session, "night_packages", ours), _rows(session, "night_steps", ours)
    lost = list(_of_lost_files(session, night))
    hindrances = [*lost, *_of_scans(session, night), *_of_packages(packages), *_of_sub_groups(session, steps, groups)]
    return Night(
        night=night,
        **scans,
        lost=sum(one.number for one in lost),
        observed=[Observed(**row) for row in _rows(session, "night_observed", ours)],
        packages=_added((row["state"], row["number"]) for row in packages),
        steps=list(_counted(steps, groups)),
        hindrances=sorted(hindrances, key=lambda one: -one.number),
    )


def _steps(session: Session) -> Sequence[_Step]:
    """Steps of enabled pipelines in the order in which they run."""
    revision = models.PipelineRevision
    found = session.scalars(
        current_revisions()
        .join(revision.pipeline)
        .where(models.Pipeline.enabled)
        .options(joinedload(revision.pipeline))
        .order_by(models.Pipeline.name)
    ).all()
    return [
        _Step(
            step.reduction_step_id,
            step.id,
            one.pipeline_id,
            one.pipeline.name,
            step.reduction_step.key,
            one.trigger_type is not TriggerType.MANUAL,
        )
        for one in found
        for step in sorted(one.steps, key=lambda step: step.position)
    ]


def _of_scans(session: Session, night: date) -> Iterator[Hindrance]:
    for one in short_scans(session, models.ExecutedObsUnit.observing_night == night):
        yield Hindrance(where="scans", place="lacks files", number=1, sentence=one.sentence)


def _of_lost_files(session: Session, night: date) -> Iterator[Hindrance]:
    """Raw files that a person said are lost, by package and reason."""
    file, package, scan = models.RawDataFile, models.RawDataPackage, models.ExecutedObsUnit
    rows = session.execute(
        sa.select(package.name, file.lost_because, sa.func.min(file.relative_path), sa.func.count())
        .join(package, package.id == file.lost_from_id)
        .join(scan, scan.id == file.executed_obs_unit_id)
        .where(scan.observing_night == night)
        .group_by(package.name, file.lost_because)
        .order_by(package.name)
    )
    for name, because, path, number in rows:
        yield Hindrance(where="raw files", place="lost", number=number, sentence=f"{path} of {name}: {because}")


def _of_packages(rows: Iterable[Mapping[str, Any]]) -> Iterator[Hindrance]:
    for row in rows:
        if row["state"] == PackageState.FAILED:
            told = row["failure"] or "it failed"
            yield Hindrance(where="raw packages", place="failed", number=row["number"], sentence=told)
        elif row["state"] == NO_COPY_LEFT:
            yield Hindrance(where="raw packages", place="lost", number=row["number"], sentence=LOST_SENTENCE)
        elif row["state"] == CALLED_GONE:
            yield Hindrance(where="raw packages", place=CALLED_GONE, number=row["number"], sentence=row["failure"])


def _of_sub_groups(session: Session, steps: Iterable[_Step], rows: Sequence[Mapping[str, Any]]) -> Iterator[Hindrance]:
    held = stopped(session)
    for step in steps:
        for row in rows:
            place = Place(row["place"])
            if row["reduction_step_id"] != step.id or place is Place.REDUCED:
                continue
            for sentence, number in _sentences(session, step, row, held=held.get(step.pipeline_id)).items():
                yield Hindrance(where=f"{step.pipeline}/{step.key}", place=place, number=number, sentence=sentence)


def _sentences(session: Session, step: _Step, row: Mapping[str, Any], *, held: str | None) -> Mapping[str, int]:
    """What is said of sub-groups that are alike so far; of how many."""
    place = Place(row["place"])
    if place is Place.WANTED and (held or not step.runs_by_itself):
        return {held or "its run is created when somebody asks for it, by `ccat trigger`": row["number"]}
    if place is Place.BLOCKED and row["because"] is None:
        return _asked(session, step, row)
    return {row["because"] or _PLAIN[place]: row["number"]}


def _asked(session: Session, step: _Step, row: Mapping[str, Any]) -> Mapping[str, int]:
    """Of sub-groups that wait for nothing upstream, for what the first of them wait; the others wait as the most do."""
    [now] = [one for one in pipeline_now(session, step.pipeline_id).steps if one.id == step.id]
    told = tell(session, now, row["ids"])
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for number in row["ids"]:
        alike[re.sub("[0-9a-f-]*[0-9][0-9a-f-]*", "#", told[number])].append(told[number])
    counted = Counter({sentences[0]: len(sentences) for sentences in alike.values()})
    counted[counted.most_common(1)[0][0]] += row["number"] - len(row["ids"])
    return counted


def _counted(steps: Iterable[_Step], rows: Sequence[Mapping[str, Any]]) -> Iterator[StepNight]:
    for step in steps:
        places = _added((Place(row["place"]), row["number"]) for row in rows if row["reduction_step_id"] == step.id)
        if places:
            number = sum(places.values())
            yield StepNight(pipeline=step.pipeline, step=step.key, sub_groups=number, places=places)


def _added(numbers: Iterable[tuple[Any, int]]) -> dict[Any, int]:
    """The sum of each."""
    added: Counter[Any] = Counter()
    for what, number in numbers:
        added[what] += number
    return dict(added)


def _rows(session: Session, name: str, values: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    statement, names = _statement(name)
    return [dict(row) for row in session.execute(statement, {key: values[key] for key in names}).mappings()]


@cache
def _statement(name: str) -> tuple[sa.TextClause, frozenset[str]]:
    text = (files(__package__) / "sql" / f"{name}.sql").read_text()
    names = frozenset(key for key in _TYPES if f":{key}" in text)
    return sa.text(text).bindparams(*(sa.bindparam(key, type_=_TYPES[key]) for key in names)), names
