"""A pipeline and what has happened to it as plain facts: decisions are tried on it without a database."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from ccat_ops_db.grouping.keys import DimensionValue
from ccat_ops_db.plan.digests import NOT_INPUTS, content_digest, made_digest
from ccat_ops_db.states import DataProductType, VersionPolicy
from tests.engine.oracle.evaluation import (
    Candidate,
    CompletedFacts,
    Facts,
    PackageFacts,
    Place,
    ProductFacts,
    StepFacts,
    VersionFacts,
    evaluate,
)
from tests.engine.oracle.gap import AbandonedRun, CompletedRun, Package, Verdict

START = datetime(2026, 4, 5, 1, 0, tzinfo=UTC)
DIMENSIONS = {"scan": "executed_obs_unit", "source": "source", "night": "observing_night"}


@dataclass
class Run:
    """What is remembered of a run."""

    id: int
    candidate: Candidate
    created_at: datetime
    ended_at: datetime | None = None
    outcome: str = "active"
    products: tuple[ProductFacts, ...] = ()

    @property
    def name(self) -> str:
        return name(self.candidate)


def name(candidate: Candidate) -> str:
    """`grid M17`: a step and its sub-group as people call them."""
    return " ".join([candidate.step.key, *(str(label) for label in candidate.name.labels.values())])


@dataclass
class Model:
    """One pipeline. Software is a function of recipe and inputs, unless `stable` names it: then it ignores them."""

    steps: list[StepFacts] = field(default_factory=list)
    packages: dict[str, PackageFacts] = field(default_factory=dict)
    faded: dict[str, int] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    now: datetime = START
    stable: set[str] = field(default_factory=set)
    types: dict[str, DataProductType] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def step(
        self, key: str, by: Sequence[str] = (), *, after: Sequence[str] = (), rest: float = 0, raw: bool | None = None
    ) -> None:
        """Add a step, which comes after those that it depends on."""
        number = next(self._numbers)
        self.steps.append(
            StepFacts(
                id=number,
                revision_id=number,
                key=key,
                group_by=tuple(DIMENSIONS[one] for one in by),
                upstream=tuple(after),
                takes_raw=not after if raw is None else raw,
                cooldown=timedelta(seconds=rest),
                software=f"{key}-software",
                policy=VersionPolicy.COMPATIBLE,
                version=VersionFacts(1, "1.0", content_digest("1.0"), "1"),
                config_revision_id=None,
                config_digest=None,
                since=self.now,
            )
        )

    def change(self, key: str, /, **changes: object) -> None:
        """Change a step's definition now."""
        self.steps = [replace(one, **changes, since=self.now) if one.key == key else one for one in self.steps]  # type: ignore[arg-type]  # any of its fields

    def release(self, key: str, version: str, *, series: str = "1") -> None:
        """Release a version of a step's software now."""
        self.change(key, version=VersionFacts(len(version), version, content_digest(version), series))

    def archive(self, scan: str, *, source: str = "M17", night: str = "1") -> None:
        """Have a package archived now."""
        values = {"executed_obs_unit": scan, "source": source, "observing_night": night}
        package = Package(next(self._numbers), f"package {scan}", self.now)
        dimensions = {dimension: DimensionValue(value, value) for dimension, value in values.items()}
        self.packages[scan] = PackageFacts(package, content_digest(scan), dimensions)

    def fade(self, scan: str) -> None:
        """Have a package leave because of a relative time."""
        self.faded[scan] = self.packages.pop(scan).package.id

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def look(self) -> dict[str, Candidate]:
        """Every sub-group as it is decided now."""
        return {name(one): one for one in evaluate(self._facts(), now=self.now)}

    def verdict(self, sub_group: str) -> Verdict:
        return self.look()[sub_group].decision.verdict

    def because(self, sub_group: str) -> str:
        return self.look()[sub_group].decision.because

    def wanted(self) -> list[str]:
        """Sub-groups that a run would be created for."""
        return _wanted(self.look())

    def begin(self, sub_group: str, *, force: bool = False) -> Run:
        """Start a run with the inputs of now, wanted or by force."""
        found = self.look()[sub_group]
        assert force or found.decision.verdict is Verdict.WANTED, found.decision
        return self._begin(found)

    def _begin(self, found: Candidate) -> Run:
        run = Run(len(self.runs) + 1, found, self.now)
        self.runs.append(run)
        return run

    def end(self, run: Run, outcome: str = "completed") -> None:
        """Have a run completed, failed for good, or cancelled."""
        run.outcome, run.ended_at = outcome, self.now
        if outcome == "completed":
            step = run.candidate.step
            made_with = (
                [] if step.key in self.stable else [step.recipe and step.recipe.digest, run.candidate.input_digest]
            )
            checksum = content_digest([run.name, *made_with])
            kind = self.types.get(step.key, DataProductType.INTERMEDIATE)
            run.products = (ProductFacts(next(self._numbers), "product.fits", checksum, kind),)

    def complete(self, *sub_groups: str) -> None:
        for one in sub_groups:
            self.end(self.begin(one))

    def fail(self, sub_group: str) -> None:
        self.end(self.begin(sub_group), "failed")

    def settle(
        self, choose: Callable[[list[str]], str] = lambda wanted: wanted[0], *, bad: AbstractSet[str] = frozenset()
    ) -> list[str]:
        """Do what is wanted, one run after the other, and let rests pass, until nothing follows; names of the runs.

        Runs of the `bad` fail for good.
        """
        done: list[str] = []
        while len(done) < 60:
            looked = self.look()
            if wanted := _wanted(looked):
                done.append(choose(wanted))
                self.end(self._begin(looked[done[-1]]), "failed" if done[-1] in bad else "completed")
                continue
            due = [found.decision.due for found in looked.values() if found.decision.due]
            if not due:
                return done
            self.now = min(due)
        raise AssertionError(f"no end is in sight: {done[-10:]}")

    def _facts(self) -> Facts:
        completed: dict[Place, CompletedFacts] = {}
        last: dict[tuple[Place, str, str], Run] = {}
        for run in self.runs:
            place = _place(run)
            if run.outcome == "completed" and run.ended_at:
                completed[place] = CompletedFacts(self._completed(run), run.ended_at, run.products)
            if run.outcome != "active":
                last[place, _recipe(run), run.candidate.input_digest] = run
        abandoned: dict[Place, list[AbandonedRun]] = {}
        for (place, *_), run in last.items():
            if run.outcome != "completed":
                abandoned.setdefault(place, []).append(self._abandoned(run))
        return Facts(
            pipeline_id=1,
            location_id=1,
            priority=0,
            steps=tuple(self.steps),
            packages=tuple(self.packages.values()),
            faded=frozenset(self.faded.values()),
            completed=completed,
            abandoned=abandoned,
            active={_place(run): run.id for run in self.runs if run.outcome == "active"},
            scans={},
            accepted={},
        )

    def _completed(self, run: Run) -> CompletedRun:
        step = run.candidate.step
        assert step.recipe
        assert step.version
        return CompletedRun(
            id=run.id,
            created_at=run.created_at,
            recipe_digest=step.recipe.digest,
            series_digest=step.recipe.series_digest,
            input_digest=run.candidate.input_digest,
            version=step.version.version,
            series=step.version.series,
            covers=self._covers(run),
            took=frozenset(filter(None, map(_made, self._makers(run)))),
        )

    def _abandoned(self, run: Run) -> AbandonedRun:
        return AbandonedRun(
            id=run.id,
            created_at=run.created_at,
            recipe_digest=_recipe(run),
            input_digest=run.candidate.input_digest,
            covers=self._covers(run),
            took=frozenset(filter(None, map(_made, self._makers(run)))),
            cancelled=run.outcome == "cancelled",
            failure="exit code 1",
        )

    def _makers(self, run: Run) -> list[Run]:
        return [one for one in self.runs for product in one.products if product.id in run.candidate.product_ids]

    def _covers(self, run: Run) -> frozenset[int]:
        return frozenset(run.candidate.raw_package_ids).union(*(self._covers(maker) for maker in self._makers(run)))


def _wanted(looked: Mapping[str, Candidate]) -> list[str]:
    return [
        one for one, found in looked.items() if found.decision.verdict is Verdict.WANTED and found.active_run_id is None
    ]


def _made(run: Run) -> str | None:
    made = ((one.relative_path, one.checksum) for one in run.products if one.type not in NOT_INPUTS)
    return made_digest(*_place(run), made)


def _place(run: Run) -> Place:
    return run.candidate.step.id, run.candidate.name.key


def _recipe(run: Run) -> str:
    assert run.candidate.step.recipe
    return run.candidate.step.recipe.digest
