"""What happens to an installation, one thing after the other: nothing is executed, everything is recorded."""

import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload

from ccat_ops_db import models
from ccat_ops_db.definitions.parsing import parse_definitions
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.gap.evaluation import evaluate
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import presets
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.digests import content_digest, made_digest
from ccat_ops_db.queries.gaps import SubGroupNow, sub_groups
from ccat_ops_db.queries.roots import Kind, find_one
from ccat_ops_db.queries.triggers import TriggerNow, list_triggers
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, PackageState, PhysicalCopyStatus, ProductState, RunStatus, Verdict
from ccat_ops_db.verbs.coverage import Accepted, NothingLeft, NothingToAccept, accept_coverage
from ccat_ops_db.verbs.definitions import apply_definitions
from ccat_ops_db.verbs.excluding import exclude_package, readmit_package
from ccat_ops_db.verbs.requests import carry_on
from ccat_ops_db.verbs.withdrawing import Reinstated, Withdrawn, reinstate, withdraw
from ccat_workflow_manager.verbs.failing import retry_due_runs
from ccat_workflow_manager.verbs.requesting import Opened, Wish, open_wish
from ccat_workflow_manager.verbs.starting import Started, start_runs
from ccat_workflow_manager.verbs.triggering import Evaluation, create_wanted_runs, pipelines_to_evaluate
from ccat_workflow_manager.verbs.trying import Trial, Tried, open_trial
from tests.engine.database import archive, bring, package, plan

Found = TypeVar("Found")
_Run = models.ExecutedReductionStep


WAY_OUT: Final = [status for status in PhysicalCopyStatus if status.value.startswith("delet")]
"""Of a copy that is to go."""


@dataclass
class History:
    """One pipeline and what happens to its data and runs. What a run makes is a function of its recipe and inputs.

    Within a connection, all of it is one transaction there, which whoever opened it ends; else each step is its own.
    """

    engine: sa.Engine
    within: sa.Connection | None = None
    offset: timedelta = timedelta()
    versions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    configs: dict[str, int] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[str, Any] = field(default_factory=dict)
    """Further keys of the pipeline."""
    rules: list[dict[str, Any]] = field(default_factory=list)
    other_rules: list[dict[str, Any]] = field(default_factory=list)
    """Of further pipelines."""
    packages: list[int] = field(default_factory=list)
    stable: set[str] = field(default_factory=set)
    """Steps whose software makes the same whatever it gets."""
    is_restless: bool = False
    """Whether software never makes the same twice."""
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def session(self, work: Callable[[Session], Found]) -> Found:
        with self._transaction() as session:
            return work(session)

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        if self.within is None:
            with transaction(self.engine) as session:
                yield session
        else:
            # Of what fails nothing is left, and what was before stays.
            session = Session(self.within, expire_on_commit=False, join_transaction_mode="create_savepoint")
            with session, session.begin():
                yield session

    @property
    def connection(self) -> sa.Connection:
        assert self.within is not None
        return self.within

    # What people do.

    def define(self, *steps: Mapping[str, Any], rules: Sequence[Mapping[str, Any]] = (), **keys: Any) -> None:
        """The pipeline; the software of a step is called as it is. A step may say that it is of another `pipeline`."""
        self.keys = keys
        self.steps, self.rules = [dict(step) for step in steps], [dict(rule) for rule in rules]
        for step in self.steps:
            self.versions.setdefault(step["key"], [self._version("1.0", "1")])
            self.configs.setdefault(step["key"], 0)
        self.apply()

    def _pipeline(self, name: str, keys: Mapping[str, Any]) -> dict[str, Any]:
        steps = [step for step in self.steps if step.get("pipeline", "it") == name]
        said = [{"software": step["key"], "config": step["key"], **step} for step in steps]
        for step in said:
            step.pop("pipeline", None)
        grouping = "some" if name == "it" else "others"
        return {"name": name, "grouping": grouping, "location": "cologne/ramses", "steps": said, **keys}

    def document(self) -> dict[str, Any]:
        """The definitions, as they would stand in a file."""
        return {
            "software": [{"name": key, "versions": versions} for key, versions in self.versions.items()],
            "configs": [{"name": key, "parameters": {"value": value}} for key, value in self.configs.items()],
            "groupings": [{"name": "some", "rules": self.rules}, {"name": "others", "rules": self.other_rules}],
            "pipelines": [
                self._pipeline("it", self.keys),
                *(
                    self._pipeline(name, {})
                    for name in sorted({step.get("pipeline", "it") for step in self.steps} - {"it"})
                ),
            ],
        }

    def apply(self) -> None:
        definitions = parse_definitions(
            self.document(), catalogue=catalogue(), dimensions=list(dimensions()), presets=presets()
        )
        self.session(lambda session: apply_definitions(session, definitions, folder=Path("/"), by="a test"))

    def _version(self, version: str, series: str, state: str = "released") -> dict[str, Any]:
        image = {"runtime": "apptainer", "image": "docker://toy", "image_digest": content_digest(version)}
        return {"version": version, "series": series, "state": state, "command": ["run"], **image}

    def release(self, key: str, version: str, *, series: str = "1") -> None:
        if version not in [one["version"] for one in self.versions[key]]:
            self.versions[key].append(self._version(version, series))
            self.apply()

    def set_state(self, key: str, version: str, state: str) -> None:
        for one in self.versions[key]:
            if one["version"] == version:
                one["state"] = state
        self.apply()

    def configure(self, key: str, value: int) -> None:
        self.configs[key] = value
        self.apply()

    @property
    def is_enabled(self) -> bool:
        return bool(self.keys.get("enabled", True))

    @property
    def is_continuous(self) -> bool:
        """Whether runs are created at every change, without a tick or a wish."""
        return "trigger" not in self.keys

    def enable(self, *, enabled: bool) -> None:
        self.keys = {**self.keys, "enabled": enabled}
        self.apply()

    def change(self, key: str, **values: Any) -> None:
        self.steps = [{**step, **values} if step["key"] == key else step for step in self.steps]
        self.apply()

    # What happens to data.

    def archive(
        self, *, source: str = "M17", hours_ago: float = 0, module: str = "CHAI/LFA", until: datetime | None = None
    ) -> int:
        """A package of a scan of its own, so long before some moment."""
        name, at = f"p{next(self._numbers)}", (until or self.now) - timedelta(hours=hours_ago)

        def work(session: Session) -> int:
            if not session.scalar(sa.select(models.ObsUnit.id).filter_by(name=source)):
                plan(session, source, source=source)
            return archive(session, name, observation=source, at=at, module=module)

        self.packages.append(self.session(work))
        return self.packages[-1]

    def announce(self, package_id: int) -> int:
        """A package of another module of the same scan, which is on its way."""
        name = f"p{next(self._numbers)}"

        def work(session: Session) -> int:
            scan_id = session.get_one(models.RawDataPackage, package_id).executed_obs_unit_id
            of_scan = sa.select(sa.func.count()).select_from(models.RawDataPackage)
            part = 1 + session.scalars(of_scan.filter_by(executed_obs_unit_id=scan_id)).one()
            return package(session, name, scan_id=scan_id, module="CHAI/HFA", part=part)

        return self.session(work)

    def arrive(self, package_id: int) -> None:
        """Have a package that is on its way archived."""
        self.session(lambda session: bring(session, package_id, at=self.now))
        self.packages.append(package_id)

    def write(self, package_id: int) -> uuid.UUID:
        """A raw file of the same scan, which is in no package yet."""

        def work(session: Session) -> uuid.UUID:
            of = session.get_one(models.RawDataPackage, package_id)
            place = {"executed_obs_unit_id": of.executed_obs_unit_id, "instrument_module_id": of.instrument_module_id}
            number = uuid.uuid4()
            checksum = content_digest("bytes")
            session.add(
                models.RawDataFile(id=number, relative_path=f"{number}", size_bytes=1, checksum=checksum, **place)
            )
            return number

        return self.session(work)

    def pack(self, package_id: int) -> None:
        """Put all files of its scan into a package."""
        scan = sa.select(models.RawDataPackage.executed_obs_unit_id).filter_by(id=package_id).scalar_subquery()
        file = models.RawDataFile
        self.execute(sa.update(file).where(file.executed_obs_unit_id == scan).values(raw_data_package_id=package_id))

    def scan_of(self, package_id: int, **values: Any) -> None:
        """Change what is known about the scan of a package."""
        scan = sa.select(models.RawDataPackage.executed_obs_unit_id).filter_by(id=package_id).scalar_subquery()
        self.execute(sa.update(models.ExecutedObsUnit).where(models.ExecutedObsUnit.id == scan).values(**values))

    def on_their_way(self) -> list[int]:
        waiting = sa.select(models.RawDataPackage.id).where(models.RawDataPackage.state == PackageState.WAITING)
        return self.session(lambda session: list(session.scalars(waiting.order_by(models.RawDataPackage.id))))

    def exclude(self, package_id: int) -> None:
        self.session(lambda session: exclude_package(session, package_id, because="clouds", by="a person"))

    def blind(self, package_id: int, *pixels: str) -> None:
        """Say that some pixels of a package are bad."""
        self.session(
            lambda session: exclude_package(session, package_id, because="noise", by="a person", pixels=pixels)
        )

    def readmit(self, package_id: int) -> None:
        self.session(lambda session: readmit_package(session, package_id, because="fog", now=self.now, by="a person"))
        self.declare_valid(Kind.PACKAGE, package_id)

    def withdraw(self, package_id: int) -> None:
        self.declare_invalid(Kind.PACKAGE, package_id, because="wrong telescope")

    def accept(self, number: int) -> None:
        """Have a person accept what one of the sub-groups that are blocked goes without."""
        blocked = [one for one in self.gap().values() if one.verdict is Verdict.BLOCKED and one.step.version]
        if blocked:
            one = blocked[number % len(blocked)]
            with suppress(NothingLeft, NothingToAccept):
                self.accept_for(one.step.key, one.path)

    def accept_for(self, step: str, sub_group: str, *, because: str = "it is cloudy") -> Accepted:
        """Have a person accept what a sub-group goes without."""
        return self.session(
            lambda session: accept_coverage(
                session, "it", step, sub_group=sub_group, because=because, now=self.now, by="a person"
            )
        )

    def try_out(self, step: str, *sub_groups: str, **what: Any) -> Tried:
        """Have a person try something out on sub-groups."""
        trial = Trial(pipeline="it", step=step, sub_groups=sub_groups, because="a test", keep=timedelta(days=1), **what)
        return self.session(lambda session: open_trial(session, trial, now=self.now, by="a person"))

    def wish(self, **what: Any) -> Opened:
        """Have a person want that something is run."""
        wanted = Wish("it", "a test", **what)
        return self.session(lambda session: open_wish(session, wanted, now=self.now, by="a person"))

    def rename(self, source: str, to: str) -> None:
        self.execute(sa.update(models.Source).where(models.Source.name == source).values(name=to))

    def correct(self, observation: str, *, source: str) -> None:
        """Say that an observation was of another source."""
        number = sa.select(models.Source.id).filter_by(name=source).scalar_subquery()
        self.execute(sa.update(models.ObsUnit).where(models.ObsUnit.name == observation).values(source_id=number))

    def reassign(self, package_id: int, *, observation: str) -> None:
        """Say that the scan of a package was of another observation."""
        number = sa.select(models.ObsUnit.id).filter_by(name=observation).scalar_subquery()
        self.scan_of(package_id, obs_unit_id=number)

    def forget(self) -> None:
        """Empty the tables that are made from others."""
        for noun in (models.SubGroup, models.SubGroupPackage, models.PipelineEvaluation):
            self.execute(sa.delete(noun))

    def execute(self, statement: sa.Executable) -> None:
        self.session(lambda session: session.execute(statement))

    # What processes do.

    @property
    def pipeline_id(self) -> int:
        return self.session(lambda session: session.scalars(sa.select(models.Pipeline.id).filter_by(name="it")).one())

    def create(self) -> int:
        """One round of the trigger-manager; how many runs it created."""
        return sum(one.created for one in self._create())

    def _create(self) -> list[Evaluation]:
        self.session(hand_out)

        def work(session: Session) -> list[Evaluation]:
            locations = session.scalars(sa.select(models.DataLocation.id)).all()
            found = pipelines_to_evaluate(session, locations, now=self.now)
            return [create_wanted_runs(session, one, now=self.now, by="a test") for one in found]

        return self.session(work)

    def start(self, *run_ids: int) -> Started:
        ids = run_ids or self.ids(RunStatus.PENDING)
        return self.session(lambda session: start_runs(session, ids, now=self.now, by="a test"))

    def move(self, run_id: int, *statuses: RunStatus, **values: Any) -> None:
        def work(session: Session) -> None:
            for status in statuses:
                last = values if status is statuses[-1] else {}
                assert advance(session, _Run, [run_id], to=status, because="a test", by="a test", values=last)

        self.session(work)

    def complete(self, *run_ids: int) -> None:
        """Have started runs make one product each."""
        for run_id in run_ids:
            self.session(partial(self._make, run_id=run_id))

    def _make(self, session: Session, *, run_id: int) -> None:
        run = session.get_one(_Run, run_id)
        state = ProductState.TRIAL if run.is_trial else ProductState.CURRENT
        older = session.scalars(
            sa.select(models.DataProduct.id)
            .join(models.DataProduct.run)
            .where(
                _Run.reduction_step_id == run.reduction_step_id,
                _Run.sub_group_key == run.sub_group_key,
                models.DataProduct.state.in_([ProductState.CURRENT, ProductState.ORPHANED]),
            )
        ).all()
        if run.is_trial:
            older = []
        advance(session, models.DataProduct, older, to=ProductState.SUPERSEDED, because="newer", by="a test")
        key = run.reduction_step.key
        of_what = [key, run.recipe_digest, run.input_digest, run.id if self.is_restless else 0]
        checksum = content_digest(key if key in self.stable else of_what)
        product = models.DataProduct(
            run_id=run.id,
            run_attempt_id=run.attempts[-1].id,
            type="science",
            state=state,
            relative_path="map.fits",
            size_bytes=1,
            checksum=checksum,
        )
        session.add(product)
        session.flush()
        place_copy(session, product.id, run.data_location_id)
        made = made_digest(run.reduction_step_id, run.sub_group_key, [("map.fits", checksum)])
        way = [RunStatus.SUBMITTED, RunStatus.COLLECTING_RESULTS, RunStatus.COMPLETED]
        for status in way[way.index(run.status) + 1 if run.status in way else 0 :]:
            values = {"made_digest": made, "finished_at": self.now} if status is RunStatus.COMPLETED else {}
            assert advance(session, _Run, [run.id], to=status, because="a test", by="a test", values=values)

    def fail(self, run_id: int, *, retried: bool = False) -> None:
        retry_at = self.now + timedelta(hours=1) if retried else None
        self.move(run_id, RunStatus.FAILED, failure="exit code 1", retry_at=retry_at, finished_at=self.now)

    def take_up(self, run_id: int) -> None:
        """Have a run that was given up be tried again, as where what it lacked is there again."""
        again = sa.update(_Run).where(_Run.id == run_id).values(retry_at=self.now)
        self.execute(again)
        self.session(lambda session: carry_on(session, [run_id]))

    def cancel(self, run_id: int) -> None:
        self.move(run_id, RunStatus.CANCELLED, finished_at=self.now)

    def damage(self, run_id: int, status: PhysicalCopyStatus = PhysicalCopyStatus.CORRUPT) -> None:
        """Have the copies of what a run made found damaged, or, once they are, cleared away."""
        copy, product = models.PhysicalCopy, models.DataProduct
        of_run = sa.select(copy.id).join(product, product.id == copy.data_product_id).where(product.run_id == run_id)

        def work(session: Session) -> None:
            copies = session.scalars(of_run).all()
            advance(session, copy, copies, to=status, because="a test", by="a test")

        self.session(work)

    def damage_first(self, run_id: int) -> None:
        """Have what a run made found damaged where it was made, and nowhere else."""
        copy, product = models.PhysicalCopy, models.DataProduct
        of_run = sa.select(sa.func.min(copy.id)).join(product, product.id == copy.data_product_id)
        found = of_run.where(product.run_id == run_id).group_by(product.id)

        def work(session: Session) -> None:
            copies, to = session.scalars(found).all(), PhysicalCopyStatus.CORRUPT
            advance(session, copy, copies, to=to, because="a test", by="a test")

        self.session(work)

    def let_go(self, run_id: int, to: PhysicalCopyStatus) -> None:
        """Have sound copies of what a run made go as far as this."""
        copy, product = models.PhysicalCopy, models.DataProduct
        sound = sa.select(copy.id).join(product, product.id == copy.data_product_id)
        sound = sound.where(product.run_id == run_id, copy.status == PhysicalCopyStatus.PRESENT)
        ends = {PhysicalCopyStatus.DELETION_FAILED, PhysicalCopyStatus.DELETED} - {to}
        way = [one for one in WAY_OUT[: WAY_OUT.index(to) + 1] if one not in ends]

        def work(session: Session) -> None:
            copies = session.scalars(sound).all()
            for status in way:
                advance(session, copy, copies, to=status, because="a test", by="a test")

        self.session(work)

    def withdraw_products(self, run_id: int) -> None:
        """Have what a run made declared invalid."""
        product = models.DataProduct

        def work(session: Session) -> None:
            made = session.scalars(sa.select(product.id).filter_by(run_id=run_id)).all()
            advance(session, product, made, to=ProductState.WITHDRAWN, because="a test", by="a test")

        self.session(work)

    def declare_invalid(self, kind: Kind, name: object, *, because: str = "a test") -> Withdrawn:
        """Have a person withdraw something."""

        def work(session: Session) -> Withdrawn:
            root = find_one(session, kind, str(name))
            return withdraw(session, root, because=because, now=self.now, by="a person")

        return self.session(work)

    def declare_valid(self, kind: Kind, name: object) -> Reinstated:
        """Have a person reinstate something."""
        return self.session(
            lambda session: reinstate(session, find_one(session, kind, str(name)), now=self.now, by="a person")
        )

    def copy(self, run_id: int, *, archived: bool = False) -> None:
        """Have what a run made brought to another place, where runs find it or, `archived`, where they do not."""

        def work(session: Session) -> None:
            [product] = session.scalars(sa.select(models.DataProduct.id).filter_by(run_id=run_id))
            copies = sa.select(models.PhysicalCopy.data_location_id).filter_by(data_product_id=product)
            is_archive = models.DataLocation.location_type == LocationType.LONG_TERM_ARCHIVE
            others = models.DataLocation.id.not_in(copies)
            places = sa.select(models.DataLocation.id).where(others, is_archive if archived else sa.not_(is_archive))
            place_copy(session, product, session.scalars(places.limit(1)).one())

        self.session(work)

    def retry(self) -> list[int]:
        """Take up again every run whose retry is due; their ids."""
        return self.session(lambda session: retry_due_runs(session, now=self.now, by="a test"))

    def settle(self, *, most: int = 60, order: Random | None = None) -> list[str]:
        """Create, start and complete until nothing follows; the steps of the runs in order.

        All that was started completes at once, or, with an order, some of it at a time.
        """
        done: list[str] = []
        runs = self.runs(RunStatus.STAGING_DATA) if order else []
        while self._goes_on() or (order and runs):
            runs = self.runs(RunStatus.STAGING_DATA)
            ended = order.sample(runs, order.randint(1, len(runs))) if order and runs else runs
            self.complete(*[run.id for run in ended])
            done += [run.reduction_step.key for run in ended]
            assert len(done) <= most, f"no end is in sight: {done[-10:]}"
        return done

    def _goes_on(self) -> bool:
        """Create and start what there is; whether there was anything."""
        does_work = any(one.created + one.given_up for one in self._create())
        retried, begun = self.retry(), self.start()
        begun_or_told = (*begun.started, *begun.not_needed, *begun.newly_waiting)
        return bool(does_work + len(retried) + len(begun_or_told))

    # What there is.

    def runs(self, *statuses: RunStatus) -> list[_Run]:
        """Runs in the order of their creation, all if no status is named."""
        query = sa.select(_Run).options(joinedload(_Run.reduction_step)).order_by(_Run.id)
        wanted = query.where(_Run.status.in_(statuses)) if statuses else query
        return self.session(lambda session: list(session.scalars(wanted)))

    def runs_of(self, step: str) -> list[_Run]:
        return [run for run in self.runs() if run.reduction_step.key == step]

    def step_of(self, run: _Run) -> str:
        return run.reduction_step.key

    def ids(self, *statuses: RunStatus) -> list[int]:
        """Runs that have one of these statuses."""
        wanted = sa.select(_Run.id).where(_Run.status.in_(statuses)).order_by(_Run.id)
        return self.session(lambda session: list(session.scalars(wanted)))

    def products(self, step: str = "%", *, sub_group: str = "%") -> list[ProductState]:
        """States of what runs of a step and of sub-groups like this made, in the order of the runs."""
        states = sa.select(models.DataProduct.state).join(models.DataProduct.run).join(_Run.reduction_step)
        wanted = states.where(models.ReductionStep.key.like(step), _Run.sub_group_path.like(sub_group))
        return self.session(lambda session: list(session.scalars(wanted.order_by(_Run.id))))

    def gap(self) -> dict[str, SubGroupNow]:
        """Every sub-group by step and labels, evaluated now."""
        self.session(hand_out)
        number = self.pipeline_id

        def work(session: Session) -> list[SubGroupNow]:
            evaluated = evaluate(session, number, now=self.now, by="a test")
            return list(sub_groups(session, evaluated.pipeline, which=sa.true()))

        return {" ".join([one.step.key, *map(str, one.labels.values())]): one for one in self.session(work)}

    def knows(self, source: str) -> bool:
        return bool(self.session(lambda session: session.scalar(sa.select(models.Source.id).filter_by(name=source))))

    def with_copies(self, *statuses: PhysicalCopyStatus) -> list[int]:
        """Runs of whose products there are such copies."""
        product, copy = models.DataProduct, models.PhysicalCopy
        found = sa.select(product.run_id).join(copy, copy.data_product_id == product.id)
        such = found.where(copy.status.in_(statuses)).distinct().order_by(product.run_id)
        return self.session(lambda session: list(session.scalars(such)))

    def with_products(self, *states: ProductState) -> list[int]:
        """Runs of which there are such products."""
        product = models.DataProduct
        found = sa.select(product.run_id).where(product.state.in_(states)).distinct().order_by(product.run_id)
        return self.session(lambda session: list(session.scalars(found)))

    def verdicts(self) -> dict[str, Verdict]:
        return {name: one.verdict for name, one in self.gap().items()}

    def triggers(self) -> list[TriggerNow]:
        """The newest first."""
        return self.session(lambda session: list(list_triggers(session, pipeline="it", limit=50)))

    def open_triggers(self) -> list[int]:
        """Triggers from which something may still follow."""
        open_ones = sa.select(models.Trigger.id).where(models.Trigger.closed_at.is_(None))
        return self.session(lambda session: list(session.scalars(open_ones)))

    def noted(self) -> set[tuple[Any, ...]]:
        """What is maintained of every sub-group, as it was last evaluated."""
        group = models.SubGroup
        columns = (group.key, group.verdict, group.path, group.reason, group.cut_off, group.due_at, group.input_digest)
        query = sa.select(group.reduction_step_id, *columns)
        return self.session(lambda session: {tuple(row) for row in session.execute(query)})

    def rebuilt(self) -> int:
        """Rows that a rebuild finds otherwise than they should be, after all that changed was taken into account."""
        number = self.pipeline_id
        return self.session(lambda session: evaluate(session, number, now=self.now, by="a test", rebuild=True).drift)


def place_copy(session: Session, product_id: int, location_id: int) -> None:
    """A sound copy of a product."""
    copy = models.DataProductPhysicalCopy(
        data_product_id=product_id, data_location_id=location_id, path=f"{uuid.uuid4()}"
    )
    session.add(copy)
    session.flush()
    present = PhysicalCopyStatus.PRESENT
    advance(session, models.PhysicalCopy, [copy.id], to=present, because="a test", by="a test")
