"""What people should know about definitions that are allowed all the same."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.gap.steps import current_revisions
from ccat_ops_db.grouping.checking import check_rules
from ccat_ops_db.grouping.compile import select_packages
from ccat_ops_db.grouping.dimensions import is_finer
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.rules import parse_rules
from ccat_ops_db.lookup import CONFIG, GROUPING, LOCATION, PIPELINE, Named
from ccat_ops_db.verbs.changes import Change


def cautions(session: Session, changes: Sequence[Change], *, now: datetime) -> Sequence[str]:
    """A sentence for each thing about definitions that is probably not meant.

    A config, also one that stays as it is, whose newest revision is withdrawn. Of what is changed: a version whose
    image is a file that is not here; a grouping, also one that a changed pipeline uses, that selects nothing; a step
    that takes products which were made from more than its own packages; a rule that demands sameness in what runs of
    the other step mix; inputs that lie at another location.
    """
    changed = [(one.kind, one.name) for one in changes if one.action != "unchanged"]
    revisions = session.scalars(
        current_revisions()
        .join(models.PipelineRevision.pipeline)
        .where(models.Pipeline.name.in_(_names(changed, PIPELINE)))
    ).all()
    used = {one.data_grouping_revision.data_grouping.name for one in revisions}
    groupings = sorted({*_names(changed, GROUPING), *used})
    empty = [_empty(name) for name in groupings if not _selects(session, name, now=now)]
    told = ((*_not_finer(one), *_mixing(session, one), *_elsewhere(session, one)) for one in revisions)
    withdrawn = _withdrawn(session, [one.name for one in changes if one.kind == CONFIG.what])
    away = _images_away(session, {name for what, name in changed if what == "version"})
    return [*withdrawn, *away, *empty, *(caution for cautions in told for caution in cautions)]


def _withdrawn(session: Session, configs: Collection[str]) -> Iterator[str]:
    """Of configs those that nothing is made with."""
    config, revision = models.ReductionStepConfig, models.ReductionStepConfigRevision
    newer = aliased(revision)
    of_same = newer.reduction_step_config_id == revision.reduction_step_config_id
    found = (
        sa.select(config.name, revision.number, revision.withdrawn_because)
        .join(config, config.id == revision.reduction_step_config_id)
        .where(config.name.in_(configs), revision.withdrawn_at.is_not(None))
        .where(sa.not_(sa.exists().where(of_same, newer.number > revision.number)))
        .order_by(config.name)
    )
    for name, number, because in session.execute(found):
        yield (
            f"config {name}/{number}, which is the newest, was withdrawn: {because}. What needs it starts nothing "
            f"until the config is changed, or until `ccat reinstate config {name}/{number}` if it was right"
        )


def _images_away(session: Session, names: Collection[str]) -> Iterator[str]:
    """Of versions, as `software version`, those whose image is a file that nobody sees from here."""
    version, software = models.ReductionSoftwareVersion, models.ReductionSoftware
    files = sa.select(software.name + " " + version.version, version.image_ref).join(version.reduction_software)
    for name, image in session.execute(files.where(version.image_ref.startswith("/")).order_by(version.id)):
        if name in names and image is not None and not Path(image).is_file():
            yield f"{name}: there is no file {image} here; where the workers do not see it either, its runs fail"


def _names(changed: Iterable[tuple[str, str]], kind: Named[Any]) -> list[str]:
    return [name for what, name in changed if what == kind.what]


def _empty(grouping: str) -> str:
    return (
        f"grouping {grouping} selects no raw package now, so nothing runs until one comes; "
        f"`ccat grouping explain {grouping}` says what it selects"
    )


def _selects(session: Session, grouping: str, *, now: datetime) -> bool:
    revision = models.DataGroupingRevision
    newest = session.scalars(
        sa.select(revision)
        .join(revision.data_grouping)
        .where(models.DataGrouping.name == grouping)
        .order_by(revision.number.desc())
        .limit(1)
    ).one()
    rules = check_rules(parse_rules(newest.filter_rules), catalogue())
    return session.execute(select_packages(rules, [], now=now).order_by(None).limit(1)).first() is not None


def _not_finer(revision: models.PipelineRevision) -> Iterator[str]:
    """Of a pipeline, the steps below one that divides its packages otherwise."""
    by_id = {step.reduction_step_id: step for step in revision.steps}
    for step in revision.steps:
        for upstream in (by_id[one.id] for one in step.upstream):
            if not is_finer(upstream.group_by, than=step.group_by):
                yield (
                    f"pipeline {revision.pipeline.name}, step {step.reduction_step.key}: its upstream "
                    f"{upstream.reduction_step.key} ({_by(upstream)}) is not finer than itself ({_by(step)}), so it "
                    "takes products that were made from other packages too; the lineage of its products shows them"
                )


def _mixing(session: Session, revision: models.PipelineRevision) -> Iterator[str]:
    """Of a pipeline, the rules whose runs cover packages that differ in what has to be the same."""
    rules = [(step, rule) for step in revision.steps for rule in step.auxiliary if rule.same]
    givers = _now(session, {rule.from_step_id for _, rule in rules})
    for step, rule in rules:
        giver = givers[rule.from_step_id]
        mixed = [one for one in rule.same if not is_finer(giver.group_by, than=[one])]
        if mixed:
            yield (
                f"pipeline {revision.pipeline.name}, step {step.reduction_step.key}: its auxiliary input {rule.name} "
                f"has to be the same in {', '.join(mixed)}, and {giver.reduction_step.pipeline.name}/"
                f"{giver.reduction_step.key} ({_by(giver)}) does not divide its packages by that: of a run that mixes "
                "them nothing is taken"
            )


def _elsewhere(session: Session, revision: models.PipelineRevision) -> Iterator[str]:
    """Of a pipeline, the steps whose products are inputs of its steps, and lie at another location than it runs at."""
    taken = {one.id for step in revision.steps for one in step.upstream}
    taken |= {rule.from_step_id for step in revision.steps for rule in step.auxiliary}
    run, group, step = models.ExecutedReductionStep, models.SubGroup, models.ReductionStep
    place = sa.func.concat(models.Pipeline.name, "/", step.key)
    found = (
        LOCATION.rows.with_only_columns(place, LOCATION.label, sa.func.count())
        .join(run, run.data_location_id == models.DataLocation.id)
        .join(group, group.last_run_id == run.id)
        .join(step, step.id == group.reduction_step_id)
        .join(models.Pipeline, models.Pipeline.id == step.pipeline_id)
        .where(step.id.in_(taken), models.DataLocation.id != revision.processing_location_id)
        .group_by(place, LOCATION.label)
        .order_by(place, LOCATION.label)
    )
    for giver, where, number in session.execute(found):
        pipeline, _, key = giver.partition("/")
        yield (
            f"pipeline {revision.pipeline.name}: its steps take products of {giver}, and those of {number:,} of its "
            f"sub-groups lie at {where}, where it does not run: they are brought there as its runs take them; "
            f"`ccat trigger {pipeline} --step {key} --force` makes them anew where it runs"
        )


def _now(session: Session, steps: Collection[int]) -> Mapping[int, models.ReductionStepRevision]:
    """Steps as the newest revisions of their pipelines define them, by id."""
    current = current_revisions().with_only_columns(models.PipelineRevision.id)
    step = models.ReductionStepRevision
    found = sa.select(step).where(step.reduction_step_id.in_(steps), step.pipeline_revision_id.in_(current))
    return {one.reduction_step_id: one for one in session.scalars(found)}


def _by(step: models.ReductionStepRevision) -> str:
    return f"by {', '.join(step.group_by)}" if step.group_by else "all packages together"
