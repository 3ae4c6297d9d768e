"""Lives of runs as chance has them: processes die between any two commits, messages come twice, late or never."""

import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ccat.crashing import arm, places
from ccat_ops_db import models
from ccat_ops_db.cancelling import CONFIRMED, Answer
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LIVE_RUN_STATUSES, RUN_MOVES, RunStatus
from ccat_ops_db.verbs.cancelling import request_cancel
from ccat_workflow_manager.hpc.base import Backend, JobObservation
from ccat_workflow_manager.verbs.describing import run_directory
from ccat_workflow_manager.verbs.observing import observe_locations
from tests.workflow.hpc.bench import jobs_below
from tests.workflow.verbs.conftest import OpenWorks
from tests.workflow.verbs.crashes.lives import SCRIPT, Passing, pass_time
from tests.workflow.verbs.works import VERBS, Works, eventually

STEPS: Final = (
    {"key": "reduce", "group_by": ["executed_obs_unit"], "max_retries": 2},
    {"key": "combine", "group_by": ["executed_obs_unit"], "max_retries": 2, "depends_on": ["reduce"]},
)
SOFTWARE: Final = ("", '[ "$WORKFLOW_ATTEMPT" = 1 ] && exit 1', '[ "$WORKFLOW_ATTEMPT" = 1 ] && exit 0', "exit 65")
"""What the software of `reduce` does before it writes its product."""

_RUN: Final = models.ExecutedReductionStep

whichever = st.integers(0, 1000)
deaths = st.none() | st.integers(1, 25)
"""At how many-th point that it comes by a process dies, if it does."""


class Died(BaseException):
    """What a dead process does: nothing, however many handlers there are."""


class Fate:
    """Whether the process that works now is dead."""

    def __init__(self) -> None:
        self.left: int | None = None

    def meet(self, _: str) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                raise Died


class Slow(Passing):
    """Others do a round of work between a look and its answer."""

    def __init__(self, backend: Backend, meanwhile: Callable[[], object]) -> None:
        super().__init__(backend)
        self._meanwhile = meanwhile

    def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
        seen = super().observe(job_ids)
        self._meanwhile()
        return seen


class Histories(RuleBasedStateMachine):
    """One installation; every history adds its own scans, and ends with nothing under way."""

    def __init__(self, works: Works, fate: Fate) -> None:
        super().__init__()
        self.works, self.fate = works, fate
        self.old: list[tuple[str, list[int]]] = []
        """Messages that were delivered."""
        self.cancelled: defaultdict[int, list[Answer]] = defaultdict(list)
        """Runs that somebody wanted cancelled, and the answers."""

    @initialize(software=st.sampled_from(SOFTWARE))
    def begin(self, software: str) -> None:
        self.first = self.works.session(lambda session: session.scalar(sa.select(sa.func.max(_RUN.id)))) or 0
        self.observe(software)

    @rule(software=st.sampled_from(SOFTWARE))
    def observe(self, software: str) -> None:
        self.works.observe(f"{software}\n# {self.works._scans}")

    @rule(death=deaths)
    def create(self, death: int | None) -> None:
        self.do(self.works.create, death)

    @rule(death=deaths)
    def advance(self, death: int | None) -> None:
        self.do(self.works.advance, death)

    @rule(death=deaths)
    def follow(self, death: int | None) -> None:
        self.do(self.works.follow, death)

    @rule()
    def transfer(self) -> None:
        self.works.transfer()

    @precondition(lambda self: bool(self.works.post.letters))
    @rule(which=whichever, death=deaths)
    def deliver(self, which: int, death: int | None) -> None:
        letters = self.works.post.letters
        letter = letters.pop(which % len(letters))
        self.old.append(letter)
        self.hand_over(letter, death)

    @precondition(lambda self: bool(self.works.post.letters))
    @rule(death=deaths)
    def deliver_all(self, death: int | None) -> None:
        self.old += self.works.post.letters
        self.do(self.works.deliver, death)

    @precondition(lambda self: bool(self.works.post.letters))
    @rule(which=whichever)
    def lose(self, which: int) -> None:
        letters = self.works.post.letters
        letters.pop(which % len(letters))

    @precondition(lambda self: bool(self.old))
    @rule(which=whichever, death=deaths)
    def deliver_again(self, which: int, death: int | None) -> None:
        self.hand_over(self.old[which % len(self.old)], death)

    @rule()
    def observe_late(self) -> None:
        """What a backend said arrives when others have gone on."""
        works, here = self.works, self.works.location_id
        backend = Slow(works.workplace.backends[here], works.round)
        observe_locations(replace(works.workplace, backends={here: backend}, name="a slow worker"), [here])

    @rule()
    def wait_for_jobs(self) -> None:
        eventually(lambda: not list(self.jobs()))

    @rule()
    def let_time_pass(self) -> None:
        pass_time(self.works)

    @precondition(lambda self: any(self.jobs()))
    @rule(which=whichever)
    def kill_a_job(self, which: int) -> None:
        jobs = list(self.jobs())
        with suppress(ProcessLookupError):
            os.kill(jobs[which % len(jobs)][1], signal.SIGKILL)

    @precondition(lambda self: bool(self.runs()))
    @rule(which=whichever)
    def cancel(self, which: int) -> None:
        runs = self.runs()
        run_id = runs[which % len(runs)].id
        with transaction(self.works.engine) as session:
            answers = request_cancel(session, [run_id], because="no need", by="a person", now=datetime.now(UTC))
        self.cancelled[run_id].append(answers[run_id])

    @invariant()
    def no_two_attempts_of_a_run_live(self) -> None:
        attempts = Counter(directory.parent for directory in {directory for directory, _ in self.jobs()})
        assert set(attempts.values()) <= {1}

    @invariant()
    def every_product_has_a_lineage(self) -> None:
        product, taken = models.DataProduct, models.RunInput
        orphans = sa.select(product.id).where(product.run_id.not_in(sa.select(taken.run_id)))
        assert self.works.session(lambda session: session.scalars(orphans).all()) == []

    def teardown(self) -> None:
        self.fate.left = None
        eventually(self.goes_on_healthily, within=60)
        for run in self.runs():
            self.check(run)

    def goes_on_healthily(self) -> bool:
        self.works.round()
        pass_time(self.works)
        is_under_way = sa.or_(_RUN.status.in_(LIVE_RUN_STATUSES), _RUN.retry_at.is_not(None))
        runs = sa.select(sa.func.count()).where(is_under_way)
        return not self.works.session(lambda session: session.scalar(runs)) and not list(self.jobs())

    def check(self, run: models.ExecutedReductionStep) -> None:
        """What is so of every run that is over."""
        changes = self.works.all(models.StatusChange, noun=_RUN.__tablename__, object_id=run.id)
        way = [RunStatus.PENDING, *(RunStatus(one.to_status) for one in changes)]
        assert all(to in RUN_MOVES[source] for source, to in pairwise(way)), way
        assert [RunStatus(one.from_status) for one in changes] == way[:-1]
        assert run.status in {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}
        assert len(run.products) == (run.status is RunStatus.COMPLETED)
        self.check_wish(run, way)
        marks = run_directory(run, self.works.base).directory / "marks"
        assert not marks.exists() or "overlap" not in marks.read_text().splitlines()

    def check_wish(self, run: models.ExecutedReductionStep, way: list[RunStatus]) -> None:
        """Every wish is confirmed: by the end that was wished for, or by what was in its way."""
        assert not run.is_to_be_cancelled
        wished = [answer for answer in self.cancelled.get(run.id, ()) if answer is not Answer.OVER]
        if wished:
            assert run.cancel_answer, (wished, way)
            assert (run.status is RunStatus.CANCELLED) == (run.cancel_answer == CONFIRMED), (run.cancel_answer, way)
            assert Answer.CANCELLED not in wished or run.status is RunStatus.CANCELLED, way
            assert run.status is not RunStatus.FAILED or run.retry_at is None

    def runs(self) -> list[models.ExecutedReductionStep]:
        """Those of this history."""
        later = sa.select(_RUN.id).where(_RUN.id > self.first).order_by(_RUN.id)
        ids = self.works.session(lambda session: session.scalars(later).all())
        return [self.works.run(id=number) for number in ids]

    def jobs(self) -> Iterator[tuple[Path, int]]:
        """Attempts that have processes, each with one of these."""
        for directory, pids in jobs_below(self.works.base).items():
            yield directory, min(pids)

    def hand_over(self, letter: tuple[str, list[int]], death: int | None) -> None:
        task, ids = letter
        self.do(lambda: VERBS[task](self.works.workplace, ids), death)

    def do(self, work: Callable[[], object], death: int | None) -> None:
        """Let a process work, which may die of it."""
        self.fate.left = death
        with suppress(Died):
            work()
        self.fate.left = None


@contextmanager
def armed() -> Iterator[Fate]:
    """Every point of the code leads to this fate."""
    fate = Fate()
    disarm = arm({place.module for place in places()}, fate.meet)
    try:
        yield fate
    finally:
        disarm()


@pytest.mark.timeout(0)
def test_whatever_happens_every_run_ends_well_and_once(open_works: OpenWorks, tmp_path: Path) -> None:
    """`--hypothesis-profile=long` has many more, and longer, histories."""
    with open_works(tmp_path) as works, armed() as fate:
        works.define(*STEPS, scripts={"reduce": SCRIPT})
        of_profile = settings(max_examples=max(1, settings().max_examples // 25), stateful_step_count=20)

        class Here(Histories):
            def __init__(self) -> None:
                super().__init__(works, fate)

        run_state_machine_as_test(Here, settings=of_profile)
