"""Trials: runs that try something out on chosen sub-groups, and that nothing else is made from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from packaging.version import InvalidVersion, Version
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.gap.evaluation import evaluate_now
from ccat_ops_db.gap.statements import take_inputs
from ccat_ops_db.gap.steps import PipelineNow, StepNow, recipe_of
from ccat_ops_db.lookup import PIPELINE, UnknownName, find
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.naming import listed
from ccat_ops_db.plan.digests import input_digest
from ccat_ops_db.plan.trials import with_settings
from ccat_ops_db.queries.configs import config_digest
from ccat_ops_db.queries.gaps import SubGroupNow, sub_groups
from ccat_ops_db.queries.validity import share_validity
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import RunReason, RunStatus, VersionState
from ccat_ops_db.verbs.reasons import require_reason
from ccat_workflow_manager.verbs.requesting import is_named, require_enabled

_Run, _Group, _Version = models.ExecutedReductionStep, models.SubGroup, models.ReductionSoftwareVersion
_NOTHING = input_digest([])


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What somebody wants to try out, and why."""

    pipeline: str
    because: str
    sub_groups: Collection[str]
    """By key or path."""
    step: str | None = None
    """May be left out where the pipeline has one step only."""
    version: str | None = None
    """Any that is not withdrawn; None: the one that new work uses."""
    settings: Sequence[str] = ()
    """Parameters in place of those of the config, each as `key=value`."""
    keep: timedelta
    """How long its products are kept."""


@dataclass(frozen=True)
class Tried:
    """Trials that were created."""

    step: str
    version: str
    runs: Mapping[str, int]
    """Path of the sub-group → run."""
    expires_at: datetime


class CannotTry(CcatError):
    """What is to be tried is not said, or cannot be run."""

    code = "cannot_try"

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem} No run was created.")


def open_trial(session: Session, trial: Trial, *, now: datetime, by: str) -> Tried:
    """Create a PENDING trial for each chosen sub-group, with the inputs that it would get now.

    Raises CannotTry, UnknownName, InvalidSetting, PipelineDisabled and ReasonMissing; then nothing may be committed.
    """
    require_reason(trial.because, outcome="No run was created.")
    if not trial.sub_groups:
        raise CannotTry("A trial is of chosen sub-groups: name each with --sub-group.")
    share_validity(session)
    found = find(session, PIPELINE, trial.pipeline)
    require_enabled(found)
    pipeline = evaluate_now(session, found.id, now=now, by=by)
    step = _step(pipeline, trial)
    chosen = _chosen(session, pipeline, step, trial=trial)
    made_with = _made_with(session, step, trial)
    told = {"reason": RunReason.REQUESTED, "because": f"trial by {by}: {trial.because}", "expires_at": now + trial.keep}
    place = {"pipeline_id": pipeline.id, "data_location_id": pipeline.location_id, "priority": pipeline.priority}
    runs = {one.id: _run(one, now=now, **made_with, **told, **place) for one in chosen}
    session.add_all(runs.values())
    session.flush()
    take_inputs(session, step, {run.id: group_id for group_id, run in runs.items()})
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{_Run.__tablename__}:{RunStatus.PENDING}")))
    version = session.get_one(_Version, made_with["software_version_id"]).version
    return Tried(step.key, version, {one.path: runs[one.id].id for one in chosen}, now + trial.keep)


def _run(one: SubGroupNow, *, now: datetime, **values: Any) -> models.ExecutedReductionStep:
    return _Run(
        reduction_step_id=one.step.id,
        step_revision_id=one.step.revision_id,
        config_revision_id=one.step.config_revision_id,
        sub_group_key=one.key,
        sub_group_path=one.path,
        sub_group_labels=dict(one.labels),
        input_digest=one.input_digest,
        inputs_frozen_at=now,
        is_trial=True,
        **values,
    )


def _step(pipeline: PipelineNow, trial: Trial) -> StepNow:
    keys = [step.key for step in pipeline.steps]
    if trial.step is None and len(keys) > 1:
        raise CannotTry(f"A trial is of one step: name it with --step. {trial.pipeline} has {listed(keys)}.")
    if trial.step is not None and trial.step not in keys:
        raise UnknownName("step", trial.step, keys, of=f"pipeline {trial.pipeline}")
    return next(step for step in pipeline.steps if trial.step in (step.key, None))


def _chosen(session: Session, pipeline: PipelineNow, step: StepNow, *, trial: Trial) -> Sequence[SubGroupNow]:
    """The sub-groups that are named, each of which has something to be taken."""
    named = is_named(session, trial.sub_groups, [step], of=step.key)
    of_step = sa.and_(named, _Group.reduction_step_id == step.id)
    chosen = list(sub_groups(session, pipeline, which=of_step))
    for one in chosen:
        if one.input_digest == _NOTHING:
            raise CannotTry(f"There is nothing that a trial of {step.key} {one.path} could take: it {one.because}.")
    if lacking := session.scalars(_lacking([one.id for one in chosen])).first():
        raise CannotTry(f"There is no {lacking} for all packages of what is to be tried: `ccat gap` says for which.")
    there = {name for one in chosen for name in (one.key, one.path)}
    for name in trial.sub_groups:
        if name not in there:
            raise CannotTry(f"There is nothing that a trial of {step.key} {name} could take: its packages left.")
    return chosen


def _lacking(sub_groups: Sequence[int]) -> sa.Select[str]:
    """Names of auxiliary inputs that some packages of sub-groups have none of."""
    nearest = models.AuxiliaryNearest
    return sa.select(nearest.name).where(is_among(nearest.sub_group_id, sub_groups), nearest.run_id.is_(None))


def _made_with(session: Session, step: StepNow, trial: Trial) -> dict[str, Any]:
    """Columns of a run that say with what it is made."""
    if step.withdrawn_config is not None:
        raise CannotTry(f"Config {step.withdrawn_config} of step {step.key} is withdrawn: nothing is made with it.")
    revision = session.get_one(models.ReductionStepRevision, step.revision_id)
    version, config = _version(session, step, trial.version), revision.config_revision
    parameters, environment = (config.parameters, config.environment) if config else ({}, {})
    changed = with_settings(parameters, trial.settings) if trial.settings else None
    digest = config.digest if config else None
    if changed is not None:
        digest = config_digest(changed, environment)
    made = recipe_of(revision, version, config_digest=digest)
    return {
        "software_version_id": version.id,
        "trial_parameters": changed,
        "recipe_digest": made.digest,
        "series_digest": made.series_digest,
    }


def _version(session: Session, step: StepNow, named: str | None) -> models.ReductionSoftwareVersion:
    if named is None:
        if step.version is None:
            raise CannotTry(f"No version of {step.software} is used by new work now: name one with --version.")
        return step.version
    of_software = sa.select(_Version).join(_Version.reduction_software)
    known = session.scalars(of_software.where(models.ReductionSoftware.name == step.software)).all()
    found = next((one for one in known if _is_same(one.version, named)), None)
    if found is None:
        raise UnknownName("version", named, [one.version for one in known], of=step.software)
    if found.state is VersionState.WITHDRAWN:
        raise CannotTry(f"Version {found.version} of {step.software} is withdrawn: nothing is made with it.")
    return found


def _is_same(version: str, named: str) -> bool:
    try:
        return Version(version) == Version(named)
    except InvalidVersion:
        return False
