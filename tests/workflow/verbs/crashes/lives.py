"""Lives of one run, with what may happen in one: together they come by every point at which a process may die."""

import itertools
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from errno import EAGAIN, EIO
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy as sa
from redis import Redis

from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LIVE_RUN_STATUSES, FailureClass, RunStatus
from ccat_ops_db.verbs.cancelling import request_cancel
from ccat_workflow_manager.hpc.base import Backend, BackendUnavailable, Capacity, JobObservation, JobSpec, JobState
from ccat_workflow_manager.hpc.local.backend import LocalBackend
from ccat_workflow_manager.verbs import collecting
from ccat_workflow_manager.verbs.describing import run_directory
from ccat_workflow_manager.verbs.registering import Published
from ccat_workflow_manager.verbs.workplace import Workplace
from tests.workflow.verbs.works import Post, Works, eventually

STEP: Final = {"key": "reduce", "group_by": ["executed_obs_unit"], "max_retries": 3}
SCRIPT: Final = """
    run=$WORKFLOW_LOG_DIR/../..
    exec 9>>"$run/alone"
    flock -n 9 || echo overlap >>"$run/marks"
    echo start >>"$run/marks"
    . "$(find -L "$WORKFLOW_INPUT_DIR" -name '*.txt')"
    echo made >"$WORKFLOW_OUTPUT_DIR/out.txt"
    echo end >>"$run/marks"
"""
"""Software that does what its raw file says; nobody else may be at the same run while it lives."""

_FIRST: Final = '[ "$WORKFLOW_ATTEMPT" = 1 ] &&'


class Passing:
    """A backend that passes everything on to another."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def submit(self, spec: JobSpec) -> str:
        return self._backend.submit(spec)

    def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
        return self._backend.observe(job_ids)

    def find(self, names: Collection[str]) -> Mapping[str, str]:
        return self._backend.find(names)

    def cancel(self, job_ids: Collection[str]) -> None:
        self._backend.cancel(job_ids)

    def logs(self, job_id: str, *, lines: int = 50) -> str:
        return self._backend.logs(job_id, lines=lines)

    def follow(self, job_id: str, *, lines: int = 50) -> Iterator[str]:
        return self._backend.follow(job_id, lines=lines)

    def capacity(self) -> Capacity:
        return self._backend.capacity()


class Together(Passing):
    """Takes two jobs at once."""

    bundle_size, longest_bundled = 2, timedelta(hours=1)

    def submit_bundle(self, name: str, specs: Sequence[JobSpec]) -> Mapping[str, str]:
        assert name.partition("-bundle-")[2].isdecimal()
        return {spec.name: self.submit(spec) for spec in specs}


class Pooled(Post):
    """Messages of which a few are not spread over several workers, but go to one."""

    def hint(self, task: str, ids: Sequence[int | str], *, queue: str, **_: object) -> None:
        super().hint(task, ids, queue=queue)
        *before, (newest, found) = self.letters
        if before and before[-1][0] == newest:
            self.letters = [*before[:-1], (newest, [*before[-1][1], *found])]


class AwayOnce(Passing):
    """Does not answer the first time."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._left = {"submit", "observe"}

    def _answer(self, question: str) -> None:
        if question in self._left:
            self._left.discard(question)
            raise BackendUnavailable("local", "nobody is there")

    def submit(self, spec: JobSpec) -> str:
        self._answer("submit")
        return super().submit(spec)

    def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
        self._answer("observe")
        return super().observe(job_ids)


class Forgetful(Passing):
    """Cannot tell anything of the first attempt of a run."""

    def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
        seen = dict(super().observe(job_ids))
        return {name: JobObservation(state=JobState.UNKNOWN) if name.endswith("-1") else seen[name] for name in seen}


class Overtaken(Passing):
    """While the first attempt is handed in, somebody else gives it up."""

    def __init__(self, backend: Backend, works: Works) -> None:
        super().__init__(backend)
        self._works = works

    def submit(self, spec: JobSpec) -> str:
        job_id = super().submit(spec)
        if spec.name.endswith("-1"):
            self._works.fail(int(spec.name.split("-")[-2]), FailureClass.INFRASTRUCTURE, "given up")
        return job_id


class Stumbling(Passing):
    """Has a defect."""

    def submit(self, spec: JobSpec) -> str:
        raise KeyError(spec.name)


class Elsewhere(Passing):
    """Keeps the first attempt of a run for a host on which nobody is any more."""

    def submit(self, spec: JobSpec) -> str:
        if not spec.name.endswith("-1"):
            return super().submit(spec)
        assert isinstance(self._backend, LocalBackend)
        self._backend._files.keep(spec, host="elsewhere")
        return spec.name


class Unreadable(Passing):
    """Finds nothing the first time, as its disk is in trouble."""

    _is_read = False

    def find(self, names: Collection[str]) -> Mapping[str, str]:
        if self._is_read:
            return super().find(names)
        self._is_read = True
        raise OSError(EIO, "Input/output error")


@dataclass
class Scene(Works):
    """An installation whose Redis may be emptied."""

    redis: Redis | None = None


@dataclass(frozen=True)
class Life:
    """What the software does, what else happens, and how often the software may be started."""

    software: str = ""
    happens: Callable[[Scene], object] = lambda _: None
    """Before anything else, or by way of another backend."""
    meanwhile: Callable[[Works], object] = lambda _: None
    """After each round."""
    mended: Callable[[Works], object] = lambda _: None
    """Done by people where a process died in the middle of it."""
    starts: int = 1
    may_fail: bool = False
    """Whether the run may be given up in the end."""
    is_alone: bool = True
    """Whether no two of its jobs may run at the same time, even though somebody meddles."""


def _through(works: Works, made: Callable[[Backend], Backend]) -> None:
    backends = {number: made(backend) for number, backend in works.workplace.backends.items()}
    works.workplace = replace(works.workplace, backends=backends)


def _change_what_was_staged(works: Works) -> None:
    works.create()
    works.advance()
    works.transfer()
    copies = works.all(models.RawDataPackagePhysicalCopy, data_location_id=works.location_id)
    for file in (works.root / "cologne/ramses" / copies[-1].path).rglob("*.txt"):
        os.utime(file.parent, ns=(1, 1))
        os.utime(file, ns=(1, 1))


def _hand_in_to_nobody(works: Works) -> None:
    """Everything is prepared, and the backend does not answer."""
    healthy = works.workplace
    for act in (works.create, works.advance, works.transfer, works.advance):
        act()
    _through(works, AwayOnce)
    works.deliver()
    works.workplace = healthy


def _link_elsewhere(works: Works) -> None:
    """As if an attempt had been laid out for other inputs."""
    _hand_in_to_nobody(works)
    for run in works.runs(status=RunStatus.STAGING_DATA):
        for path in run_directory(run, works.base).directory.rglob("*"):
            if path.is_symlink():
                path.unlink()
                path.symlink_to("/elsewhere")
    attempt = models.RunAttempt
    works.execute(sa.update(attempt).where(attempt.submitted_at.is_(None)).values(prepared_at=None))


def _forget_for_long(works: Works) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=1)
    since = models.RunAttempt.unknown_since
    works.execute(sa.update(models.RunAttempt).where(since.is_not(None)).values(unknown_since=long_ago))
    _look_again(works)


def _go_with_another(works: Works) -> None:
    """A second run is handed in at the same moment."""
    _through(works, Together)
    works.post = Pooled()
    if len(works.runs()) < len(works.all(models.RawDataPackage)):
        works._scans = int(time.time() * 1000) % 10**6  # others count by themselves
        works.observe("# another one")


def _cancel_jobs(works: Works) -> None:
    _cancel(works, RunStatus.SUBMITTED, RunStatus.RUNNING)


def _cancel_early(works: Works) -> None:
    works.create()
    works.advance()
    _cancel(works, RunStatus.STAGING_DATA)


def _cancel_in_doubt(works: Works) -> None:
    _hand_in_to_nobody(works)
    _cancel(works, RunStatus.STAGING_DATA)


def _cancel(works: Works, *statuses: RunStatus) -> None:
    ids = [run.id for status in statuses for run in works.runs(status=status)]
    if ids:
        with transaction(works.engine) as session:
            request_cancel(session, ids, because="no need", by="a person", now=datetime.now(UTC))


def _cancel_unreadable(works: Works) -> None:
    _cancel_in_doubt(works)
    _through(works, Unreadable)


def _look_again(works: Works) -> None:
    """Let no pause be waited for before a job is looked for once more."""
    works.execute(sa.update(models.RunAttempt).values(cancel_asked_at=None))


def _unmount(works: Works) -> None:
    away = _away(works)
    if works.runs(status=RunStatus.COLLECTING_RESULTS, waiting_for=None):
        works.let_leases_end()
        works.follow()
        works.base.rename(away)
        works.base.mkdir()
        works.deliver()
        _mount(works)


def _mount(works: Works) -> None:
    if _away(works).exists():
        shutil.rmtree(works.base)
        _away(works).rename(works.base)


def _away(works: Works) -> Path:
    return works.base.with_name("away")


def _start_nothing_once(_: Works) -> None:
    patch = pytest.MonkeyPatch()

    def fail(*_: object, **__: object) -> None:
        patch.undo()
        raise OSError(EAGAIN, "no more processes")

    patch.setattr(os, "posix_spawn", fail)


def _give_up_what_is_published(works: Works) -> None:
    """Somebody gives up the first attempt when its products are published, and not yet registered."""
    patch, register = pytest.MonkeyPatch(), collecting._register

    def give_up_first(workplace: Workplace, published: Sequence[Published]) -> list[int]:
        for one in published:
            if one.attempt.number == 1:
                patch.undo()  # whatever this process lives next
                kind, status = FailureClass.INFRASTRUCTURE, RunStatus.COLLECTING_RESULTS
                works.fail(one.attempt.run_id, kind, "given up", status=status)
        return register(workplace, published)

    patch.setattr(collecting, "_register", give_up_first)


def _let_records_age(scene: Scene) -> None:
    for record in scene.base.glob("local-jobs/over/*"):
        os.utime(record, (1, 1))
    if scene.redis is not None:
        scene.redis.flushdb()


LIVES: Final = {
    "ends well": Life(),
    "fails once": Life(f"{_FIRST} exit 1", starts=2),
    "is killed": Life(f"{_FIRST} {{ read -r _ _ _ shell _ </proc/$PPID/stat; kill -9 $shell; sleep 100; }}", starts=2),
    "makes nothing": Life(f"{_FIRST} exit 0", starts=2),
    "is handed in with another": Life(happens=_go_with_another),
    "meets other input": Life(happens=_change_what_was_staged),
    "meets a backend that is away": Life(happens=lambda works: _through(works, AwayOnce)),
    "meets links to elsewhere": Life(happens=_link_elsewhere),
    "meets a defect": Life(happens=lambda works: _through(works, Stumbling), may_fail=True),
    "is forgotten": Life(
        happens=lambda works: _through(works, Forgetful), meanwhile=_forget_for_long, starts=2, is_alone=False
    ),
    "is overtaken": Life(
        f"{_FIRST} sleep 1",
        happens=lambda works: _through(works, lambda one: Overtaken(one, works)),
        starts=2,
        is_alone=False,
    ),
    "is cancelled": Life(f"{_FIRST} sleep 1", meanwhile=_cancel_jobs, may_fail=True),
    "is cancelled before it is handed in": Life(happens=_cancel_early, may_fail=True),
    "is cancelled when nobody knows its job": Life(happens=_cancel_in_doubt, may_fail=True),
    "is cancelled when its job cannot be looked for": Life(
        happens=_cancel_unreadable, meanwhile=_look_again, mended=_look_again, may_fail=True
    ),
    "waits for a host that is gone": Life(happens=lambda works: _through(works, Elsewhere)),
    "is cancelled before it starts": Life(happens=_start_nothing_once, meanwhile=_cancel_jobs, may_fail=True),
    "is not mounted": Life(meanwhile=_unmount, mended=_mount),
    "is not started at first": Life(happens=_start_nothing_once),
    "is given up when it is published": Life(happens=_give_up_what_is_published, starts=2),
    "is the first after a month": Life(happens=_let_records_age),
}


def live(scene: Scene, life: Life, first: int = 0, note: Callable[[int], object] = lambda _: None) -> None:
    """Every process of ours does its rounds until the newest run is over; time passes quickly.

    `first` is where in a round it begins, and `note` hears where in a round it is.
    """
    life.happens(scene)
    parts: list[Callable[[], object]] = [
        scene.create,
        scene.advance,
        scene.transfer,
        scene.advance,
        scene.deliver,
        scene.advance,
        scene.deliver,
        scene.follow,
        scene.deliver,
        lambda: life.meanwhile(scene),
        lambda: pass_time(scene),
    ]
    deadline = time.monotonic() + 60
    for number in itertools.islice(itertools.cycle(range(len(parts))), first, None):
        assert time.monotonic() < deadline, "it does not end"
        note(number)
        parts[number]()
        if number == len(parts) - 1 and is_over(scene):
            return


def finish(works: Works) -> None:
    """The same without anything that happens."""

    def go_on() -> bool:
        works.round()
        pass_time(works)
        return is_over(works)

    eventually(go_on)


def pass_time(works: Works) -> None:
    """Let no lease and no retry be waited for."""
    works.let_leases_end()
    works.retry_now()


def is_over(works: Works) -> bool:
    """Whether there is a run of the newest package, and no run is under way."""
    run, package = models.ExecutedReductionStep, models.RawDataPackage
    ran = sa.select(models.RunInput.raw_data_package_id)
    with transaction(works.engine) as session:
        return session.scalar(sa.select(sa.func.max(package.id)).where(package.id.not_in(ran))) is None and not (
            session.scalar(sa.select(sa.func.count()).where(run.status.in_(LIVE_RUN_STATUSES)))
            or session.scalar(sa.select(sa.func.count()).where(run.retry_at.is_not(None)))
        )
