"""All that the gap depends on, read from the raw tables."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypedDict

import sqlalchemy as sa
from packaging.version import Version
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, joinedload, selectinload

from ccat_ops_db import models
from ccat_ops_db.grouping.checking import check_rules, uses_now, without_now
from ccat_ops_db.grouping.compile import select_packages
from ccat_ops_db.grouping.keys import DimensionValue
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.rules import AllOf, parse_rules
from ccat_ops_db.models.runs import ACTIVE_RUN
from ccat_ops_db.plan.digests import made_digest
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import (
    SOUND_COPY_STATUSES,
    InputRole,
    OnFailedInput,
    PackageState,
    PhysicalCopyStatus,
    ProductState,
    RunStatus,
    TriggerType,
    VersionPolicy,
    VersionState,
    WaitFor,
)
from tests.engine.oracle.auxiliary_facts import load_rules, load_taken
from tests.engine.oracle.evaluation import (
    Candidate,
    CompletedFacts,
    Facts,
    PackageFacts,
    Place,
    ProductFacts,
    ScanFacts,
    StepFacts,
    VersionFacts,
    evaluate,
)
from tests.engine.oracle.gap import AbandonedRun, CompletedRun, Package, Request, Waits

_Run = models.ExecutedReductionStep


def current_revisions() -> sa.Select[models.PipelineRevision]:
    """The newest revision of every pipeline."""
    newest = (
        sa.select(models.PipelineRevision.id)
        .ext(distinct_on(models.PipelineRevision.pipeline_id))
        .order_by(models.PipelineRevision.pipeline_id, models.PipelineRevision.number.desc())
    )
    return sa.select(models.PipelineRevision).where(models.PipelineRevision.id.in_(newest))


def gap(session: Session, pipeline_id: int, *, now: datetime) -> list[Candidate]:
    """Every sub-group of every step of a pipeline, each with its decision; in topological order of the steps."""
    return evaluate(load_facts(session, pipeline_id, now=now), now=now)


def load_facts(session: Session, pipeline_id: int, *, now: datetime) -> Facts:
    """All that the gap of a pipeline depends on, read in a fixed number of statements."""
    revision = session.scalars(
        current_revisions()
        .where(models.PipelineRevision.pipeline_id == pipeline_id)
        .options(
            joinedload(models.PipelineRevision.pipeline),
            joinedload(models.PipelineRevision.data_grouping_revision),
            selectinload(models.PipelineRevision.steps).options(
                joinedload(models.ReductionStepRevision.reduction_step),
                joinedload(models.ReductionStepRevision.reduction_software),
                joinedload(models.ReductionStepRevision.pinned_version),
                joinedload(models.ReductionStepRevision.config_revision).joinedload(
                    models.ReductionStepConfigRevision.reduction_step_config
                ),
                selectinload(models.ReductionStepRevision.upstream),
                selectinload(models.ReductionStepRevision.auxiliary),
            ),
        )
        .execution_options(populate_existing=True)
    ).one()
    step_ids = [step.reduction_step_id for step in revision.steps]
    rules = check_rules(parse_rules(revision.data_grouping_revision.filter_rules), catalogue())
    packages = _packages(session, revision, rules, now=now)
    # Active runs are read before completed ones: one that ends in between is seen as both, never as neither.
    active = _active(session, step_ids)
    completed = _completed(session, step_ids)
    return Facts(
        pipeline_id=pipeline_id,
        location_id=revision.processing_location_id,
        priority=revision.pipeline.priority,
        steps=_steps(session, revision.steps, [one.package.id for one in packages]),
        packages=packages,
        faded=_faded(session, rules, packages, now=now),
        completed=completed,
        abandoned=_abandoned(session, step_ids),
        active=active,
        scans={one.package.id: _scan(session, one.package.id) for one in packages},
        accepted=_accepted(session),
        auxiliary=load_taken(session, {place: one.run.id for place, one in completed.items()}),
        requests=_requests(session, step_ids, active),
        rests=revision.trigger_type is TriggerType.CONTINUOUS,
    )


def _requests(session: Session, step_ids: Sequence[int], active: Mapping[Place, int]) -> dict[Place, Request]:
    """What is asked for, as one request where there are two; of runs that are over nothing is any more."""
    request, found = models.RunRequest, dict[Place, Request]()
    for one in session.scalars(
        sa.select(request).where(request.reduction_step_id.in_(step_ids)).execution_options(populate_existing=True)
    ):
        place = (one.reduction_step_id, one.sub_group_key)
        if one.run_id in {None, active.get(place)}:
            other = found.get(place, Request(one.created_at, is_forced=False))
            found[place] = Request(max(one.created_at, other.created_at), one.is_forced or other.is_forced)
    return found


def _accepted(session: Session) -> dict[Place, frozenset[int]]:
    """What people let sub-groups go without."""
    accepted: defaultdict[Place, frozenset[int]] = defaultdict(frozenset)
    for one in session.scalars(sa.select(models.AcceptedCoverage)):
        accepted[one.reduction_step_id, one.sub_group_key] |= {package.id for package in one.packages}
    return dict(accepted)


def _scan(session: Session, package_id: int) -> ScanFacts:
    """The scan of a package."""
    file, package = models.RawDataFile, models.RawDataPackage
    scan = session.get_one(package, package_id).executed_obs_unit
    session.refresh(scan)
    packed = list(session.scalars(sa.select(file.raw_data_package_id).filter_by(executed_obs_unit_id=scan.id)))
    lacking, unpacked = (scan.expected_files or 0) - len(packed), packed.count(None)
    lacks = ["it goes on"] if scan.ended_at is None else []
    lacks += [f"files not registered: {lacking}"] if lacking > 0 else []
    lacks += [f"files not packed: {unpacked}"] if unpacked else []
    others = session.scalars(sa.select(package).filter_by(executed_obs_unit_id=scan.id).order_by(package.id))
    pending = {
        one.id: (one.name, one.state.value)
        for one in others.all()
        if one.state is not PackageState.ARCHIVED and not one.excluded_at
    }
    return ScanFacts(scan.id, tuple(lacks), scan.ended_at is not None and lacking > 0, pending)


def _steps(
    session: Session, revisions: Sequence[models.ReductionStepRevision], packages: Sequence[int]
) -> tuple[StepFacts, ...]:
    newest = _newest_versions(session, {revision.reduction_software_id for revision in revisions})
    return tuple(
        replace(
            _step(revision, newest),
            rules=load_rules(session, revision, packages),
            rule_digests=tuple(
                {
                    "name": one.name,
                    "from": f"{one.from_step.pipeline.name}/{one.from_step.key}",
                    "same": sorted(one.same),
                    "max_age": one.max_age.total_seconds(),
                }
                for one in revision.auxiliary
            ),
        )
        for revision in revisions
    )


def _step(revision: models.ReductionStepRevision, newest: Mapping[int, models.ReductionSoftwareVersion]) -> StepFacts:
    since = revision.pipeline_revision.created_at
    pinned = revision.pinned_version if revision.version_policy is VersionPolicy.EXACT else None
    version = pinned or newest.get(revision.reduction_software_id)
    usable = version is not None and version.state is VersionState.RELEASED
    config = revision.config_revision
    return StepFacts(
        id=revision.reduction_step_id,
        revision_id=revision.id,
        key=revision.reduction_step.key,
        group_by=tuple(revision.group_by),
        upstream=tuple(step.key for step in revision.upstream),
        takes_raw=revision.takes_raw,
        cooldown=timedelta(seconds=revision.cooldown_seconds),
        software=revision.reduction_software.name,
        policy=revision.version_policy,
        version=VersionFacts(version.id, version.version, version.content_digest, version.series)
        if version is not None and usable
        else None,
        config_revision_id=config.id if config else None,
        config_digest=config.digest if config else None,
        withdrawn_config=f"{config.reduction_step_config.name}/{config.number}"
        if config and config.withdrawn_at
        else None,
        since=max(since, version.created_at) if version is not None else since,
        waits=Waits(
            omits=revision.on_failed_input is OnFailedInput.OMIT,
            min_fraction=revision.min_fraction,
            for_scan=revision.wait_for is WaitFor.SCAN_COMPLETE,
        ),
    )


def _newest_versions(session: Session, software_ids: Iterable[int]) -> dict[int, models.ReductionSoftwareVersion]:
    """Highest released version of each software, by PEP 440."""
    released = session.scalars(
        sa.select(models.ReductionSoftwareVersion).where(
            models.ReductionSoftwareVersion.reduction_software_id.in_(software_ids),
            models.ReductionSoftwareVersion.state == VersionState.RELEASED,
        )
    )
    return {one.reduction_software_id: one for one in sorted(released, key=lambda one: (Version(one.version), one.id))}


def _packages(
    session: Session, revision: models.PipelineRevision, rules: AllOf, *, now: datetime
) -> tuple[PackageFacts, ...]:
    dimensions = sorted({dimension for step in revision.steps for dimension in step.group_by})
    rows = session.execute(select_packages(rules, dimensions, now=now)).all()
    pixels = _pixels(session)
    return tuple(_package(tuple(row), dimensions, pixels) for row in rows)


def _pixels(session: Session) -> Mapping[int, tuple[str, ...]]:
    """Pixels that exclusions of a package leave out."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for one in session.scalars(sa.select(models.Exclusion).filter_by(lifted_at=None)):
        if one.raw_data_package_id is not None:
            found[one.raw_data_package_id].update(one.pixels or ())
    return {number: tuple(sorted(names)) for number, names in found.items()}


def _faded(session: Session, rules: AllOf, packages: Iterable[PackageFacts], *, now: datetime) -> frozenset[int]:
    """Packages that only a relative time leaves out."""
    if not uses_now(rules):
        return frozenset()
    ever = session.scalars(select_packages(without_now(rules), [], now=now))
    return frozenset(ever).difference(one.package.id for one in packages)


def _package(row: tuple[Any, ...], dimensions: Sequence[str], pixels: Mapping[int, tuple[str, ...]]) -> PackageFacts:
    number, name, checksum, archived_at, *columns = row
    pairs = zip(columns[::2], columns[1::2], strict=True)
    values = {dimension: DimensionValue(*pair) for dimension, pair in zip(dimensions, pairs, strict=True)}
    return PackageFacts(Package(number, name, archived_at, pixels.get(number, ())), checksum, values)


def _completed(session: Session, step_ids: Sequence[int]) -> dict[Place, CompletedFacts]:
    """The newest completed run of every sub-group of the steps."""
    runs = session.scalars(
        sa.select(_Run)
        .ext(distinct_on(_Run.reduction_step_id, _Run.sub_group_key))
        .where(_Run.reduction_step_id.in_(step_ids), _Run.status == RunStatus.COMPLETED, sa.not_(_Run.is_trial))
        .order_by(_Run.reduction_step_id, _Run.sub_group_key, _Run.id.desc())
        .options(joinedload(_Run.software_version))
        .execution_options(populate_existing=True)
    ).all()
    run_ids = [run.id for run in runs]
    past, products, damaged = _past(session, runs), _products(session, run_ids), _damaged(session, run_ids)
    withdrawn = _withdrawn(session, run_ids)
    return {
        (run.reduction_step_id, run.sub_group_key): CompletedFacts(
            run=CompletedRun(
                **past[run.id],
                series_digest=run.series_digest,
                version=run.software_version.version,
                series=run.software_version.series,
                damaged=damaged.get(run.id, ()),
                withdrawn=withdrawn.get(run.id),
                excluded=_excluded(session, past[run.id]["covers"]),
                pixels=_pixels_of(session, run.id),
            ),
            completed_at=run.finished_at or run.created_at,
            products=tuple(products[run.id]),
        )
        for run in runs
    }


def _excluded(session: Session, packages: Iterable[int]) -> tuple[str, ...]:
    """Those of some packages that are excluded, and why."""
    noun = models.RawDataPackage
    said = sa.select(noun.name + ": " + noun.excluded_because).where(is_among(noun.id, packages))
    return tuple(session.scalars(said.where(noun.excluded_at.is_not(None)).order_by(noun.id)))


def _pixels_of(session: Session, run_id: int) -> Mapping[int, tuple[str, ...]]:
    """Pixels that a run left out of each raw package that it took."""
    taken = models.RunInput
    rows = session.execute(
        sa.select(taken.raw_data_package_id, taken.excluded_pixels).filter_by(run_id=run_id, role=InputRole.RAW)
    )
    return {number: tuple(pixels or ()) for number, pixels in rows if number is not None}


def _abandoned(session: Session, step_ids: Sequence[int]) -> dict[Place, list[AbandonedRun]]:
    """Runs that failed for good or were cancelled and were the last of their sub-group with that recipe and inputs."""
    kind = (_Run.reduction_step_id, _Run.sub_group_key, _Run.recipe_digest, _Run.input_digest)
    gave_up = sa.and_(_Run.status == RunStatus.FAILED, _Run.retry_at.is_(None), sa.not_(_Run.not_needed))
    cancelled = sa.and_(_Run.status == RunStatus.CANCELLED, sa.not_(_Run.not_needed))
    last = (
        sa.select(_Run.id, _Run.status)
        .ext(distinct_on(*kind))
        .where(_Run.reduction_step_id.in_(step_ids), sa.or_(_Run.status == RunStatus.COMPLETED, gave_up, cancelled))
        .where(sa.not_(_Run.is_trial))
        .order_by(*kind, _Run.id.desc())
        .subquery()
    )
    runs = session.scalars(
        sa.select(_Run)
        .join(last, last.c.id == _Run.id)
        .where(last.c.status != RunStatus.COMPLETED)
        .order_by(_Run.id)
        .execution_options(populate_existing=True)
    ).all()
    past = _past(session, runs)
    abandoned: defaultdict[Place, list[AbandonedRun]] = defaultdict(list)
    for run in runs:
        cancelled_run = run.status is RunStatus.CANCELLED
        one = AbandonedRun(**past[run.id], cancelled=cancelled_run, failure=run.failure or "")
        abandoned[run.reduction_step_id, run.sub_group_key].append(one)
    return abandoned


class _Past(TypedDict):
    id: int
    created_at: datetime
    recipe_digest: str
    input_digest: str
    covers: frozenset[int]
    took: frozenset[str]


def _past(session: Session, runs: Sequence[_Run]) -> Mapping[int, _Past]:
    """What is told alike of every run that is over, by its id."""
    run_ids = [run.id for run in runs]
    covers, took = _covers(session, run_ids), _took(session, run_ids)
    return {
        run.id: _Past(
            id=run.id,
            created_at=run.created_at,
            recipe_digest=run.recipe_digest,
            input_digest=run.input_digest,
            covers=frozenset(covers[run.id]),
            took=frozenset(took.get(run.id, ())),
        )
        for run in runs
    }


def _covers(session: Session, run_ids: Sequence[int]) -> Mapping[int, set[int]]:
    """Raw packages that went into each run, directly or through the runs whose products it took."""
    ancestry = (
        sa.select(_Run.id.label("root"), _Run.id.label("run_id")).where(is_among(_Run.id, run_ids)).cte(recursive=True)
    )
    made = (
        sa.select(models.RunInput.run_id, models.DataProduct.run_id.label("maker"))
        .join(models.DataProduct, models.DataProduct.id == models.RunInput.data_product_id)
        .where(models.RunInput.role == InputRole.UPSTREAM)
    )
    edges = made.subquery()
    ancestry = ancestry.union(
        sa.select(ancestry.c.root, edges.c.maker).join(edges, edges.c.run_id == ancestry.c.run_id)
    )
    rows = session.execute(
        sa.select(ancestry.c.root, models.RunInput.raw_data_package_id)
        .join(models.RunInput, models.RunInput.run_id == ancestry.c.run_id)
        .where(models.RunInput.role == InputRole.RAW)
        .distinct()
    )
    return _collect(rows)


def _took(session: Session, run_ids: Sequence[int]) -> Mapping[int, set[str]]:
    """For each run the digests of what it took, one for each sub-group upstream."""
    product = models.DataProduct
    rows = session.execute(
        sa.select(
            models.RunInput.run_id, _Run.reduction_step_id, _Run.sub_group_key, product.relative_path, product.checksum
        )
        .join(product, product.id == models.RunInput.data_product_id)
        .join(_Run, _Run.id == product.run_id)
        .where(is_among(models.RunInput.run_id, run_ids))
        .distinct()
    )
    taken: defaultdict[tuple[int, int, str], list[tuple[str, str]]] = defaultdict(list)
    for run_id, step_id, key, path, checksum in rows:
        taken[run_id, step_id, key].append((path, checksum))
    return _collect((place[0], made_digest(*place[1:], products)) for place, products in taken.items())


def _damaged(session: Session, run_ids: Sequence[int]) -> Mapping[int, tuple[str, ...]]:
    """For each run the products that do not count any more, or are damaged or missing where they can be had nowhere."""
    product, copy = models.DataProduct, models.PhysicalCopy
    bad = copy.status.in_([PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING])
    sound = copy.status.in_(SOUND_COPY_STATUSES)
    lost = (
        sa.select(copy.data_product_id)
        .group_by(copy.data_product_id)
        .having(sa.func.bool_or(bad), sa.not_(sa.func.bool_or(sound)))
    )
    invalid = product.state.in_([ProductState.ORPHANED, ProductState.WITHDRAWN])
    found = session.execute(
        sa.select(product.run_id, product.relative_path)
        .where(is_among(product.run_id, run_ids), sa.or_(invalid, product.id.in_(lost)))
        .order_by(product.id)
    ).all()
    damaged: defaultdict[int, tuple[str, ...]] = defaultdict(tuple)
    for run_id, path in found:
        damaged[run_id] += (path,)
    return damaged


def _withdrawn(session: Session, run_ids: Sequence[int]) -> Mapping[int, str]:
    """For each run what its products were withdrawn for first, of what still holds."""
    product, mark, word = models.DataProduct, models.WithdrawnProduct, models.Withdrawal
    found = session.execute(
        sa.select(product.run_id, word.what, word.because)
        .join(mark, mark.data_product_id == product.id)
        .join(word, word.id == mark.withdrawal_id)
        .where(is_among(product.run_id, run_ids), word.reinstated_at.is_(None))
        .order_by(word.id.desc())
    )
    return {run_id: f"{what} was withdrawn: {because}" for run_id, what, because in found}


def _collect(rows: Iterable[Iterable[Any]]) -> Mapping[int, set[Any]]:
    collected: defaultdict[int, set[Any]] = defaultdict(set)
    for key, value in rows:
        collected[key].add(value)
    return collected


def _products(session: Session, run_ids: Sequence[int]) -> Mapping[int, list[ProductFacts]]:
    """Products of runs that were the newest a moment ago: SUPERSEDED are those that ceased to be it just now."""
    products: defaultdict[int, list[ProductFacts]] = defaultdict(list)
    found = session.scalars(
        sa.select(models.DataProduct).where(
            is_among(models.DataProduct.run_id, run_ids),
            models.DataProduct.state.in_([ProductState.CURRENT, ProductState.SUPERSEDED]),
        )
    )
    for one in found:
        products[one.run_id].append(ProductFacts(one.id, one.relative_path, one.checksum, one.type))
    return products


def _active(session: Session, step_ids: Sequence[int]) -> dict[Place, int]:
    rows = session.execute(
        sa.select(_Run.reduction_step_id, _Run.sub_group_key, _Run.id).where(
            _Run.reduction_step_id.in_(step_ids), sa.not_(_Run.is_trial), sa.text(ACTIVE_RUN)
        )
    )
    return {(step_id, key): run_id for step_id, key, run_id in rows}
