"""What is killed, and what shows that it works again."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import psutil
import sqlalchemy as sa
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from ccat.stack.program import SERVICES
from ccat.stack.state import ServiceStatus, read_state
from ccat_ops_db import models
from ccat_ops_db.session import DatabaseUnreachable, transaction
from tests.end_to_end.installation import Installation
from tests.workflow.hpc.bench import jobs_below

BACKEND, POSTMASTER, REDIS, WRAPPER, FLUSH = "postgresql backend", "postgresql", "redis", "job wrapper", "redis flushed"
KINDS: Final = (*SERVICES, REDIS, BACKEND, POSTMASTER, WRAPPER, FLUSH)
"""Everything but the supervisor, which is what starts things again."""

_GOING: Final = timedelta(seconds=15)
_CHANGE: Final = models.StatusChange
_SIGNS: Final = {
    "trigger-manager": _CHANGE.to_status == "staging_data",
    "result-manager": _CHANGE.to_status == "collecting_results",
    REDIS: _CHANGE.to_status == "submitted",
    FLUSH: _CHANGE.to_status == "submitted",
    BACKEND: _CHANGE.to_status == "completed",
    POSTMASTER: _CHANGE.to_status == "completed",
    WRAPPER: sa.and_(_CHANGE.noun == "executed_reduction_step", _CHANGE.to_status.in_(["submitted", "completed"])),
}
"""Rows of the history that would not be there without what was killed; the other services sign theirs."""


@dataclass
class Kill:
    """One kill, and when work was seen to flow again."""

    kind: str
    pid: int | None
    at: datetime
    run_id: int | None = None
    was_disturbed: bool = False
    """Whether the next one came before it had recovered."""
    recovered_after: timedelta | None = None


@dataclass
class Killer:
    """Kills what belongs to one installation, by pid."""

    installation: Installation
    engine: sa.Engine
    random: random.Random
    kills: list[Kill] = field(default_factory=list)

    def kill(self, kind: str) -> Kill | None:
        """Kill one of a kind; None where there is none at the moment."""
        for one in self.kills:
            one.was_disturbed |= one.recovered_after is None
        if kind == FLUSH:
            return self._note(Kill(kind, None, datetime.now(UTC))) if self._flush() else None
        victims = sorted(self._victims(kind))
        if not victims:
            return None
        pid = self.random.choice(victims)
        run_id = _run_of(pid) if kind == WRAPPER else None
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return self._note(Kill(kind, pid, datetime.now(UTC), run_id))
        return None

    def _note(self, kill: Kill) -> Kill:
        self.kills.append(kill)
        return kill

    def look(self) -> None:
        """See which of the killed work again."""
        with contextlib.suppress(DatabaseUnreachable, DBAPIError), transaction(self.engine) as session:
            for kill in (one for one in self.kills if one.recovered_after is None):
                sign = self._sign(kill)
                seen = None if sign is None else session.scalar(sa.select(sa.func.min(_CHANGE.at)).where(sign))
                kill.recovered_after = seen - kill.at if seen else None

    def _sign(self, kill: Kill) -> sa.ColumnElement[bool] | None:
        later = [_CHANGE.at > kill.at]
        if kill.run_id is not None:
            later.append(_CHANGE.object_id == kill.run_id)
        if kill.kind in SERVICES:
            service = self.service(kill.kind)
            if service is None or service[0] == kill.pid:
                return None
            if kill.kind not in _SIGNS:
                return sa.and_(*later, _CHANGE.by.like(f"{kill.kind}@%:{service[0]}"))
            later.append(_CHANGE.at > service[1])
        return sa.and_(*later, _SIGNS[kill.kind])

    def service(self, name: str) -> tuple[int, datetime] | None:
        """Pid of a service that runs, and since when."""
        state = read_state(self.installation.directory / "run/stack.json")
        for one in state.services if state else []:
            if one.name == name and one.pid is not None and one.state is ServiceStatus.RUNNING:
                return one.pid, one.since
        return None

    def _victims(self, kind: str) -> Sequence[int]:
        if kind == BACKEND:
            return list(self._backends())
        if kind == WRAPPER:
            return [pid for pid in self._jobs() if _is_leader(pid)]
        service = self.service(kind)
        return [service[0]] if service else []

    def _backends(self) -> Iterator[int]:
        postmaster = self.service(POSTMASTER)
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(postmaster[0]).children() if postmaster else ():
                if " ".join(process.cmdline()).startswith("postgres: ccat "):
                    yield process.pid

    def _jobs(self) -> Iterator[int]:
        for pids in jobs_below(self.installation.directory).values():
            yield from pids

    def _flush(self) -> bool:
        settings = self.installation.settings["workflow_manager"]
        try:
            with Redis(port=settings["redis_port"], password=settings["redis_password"]) as redis:
                return bool(redis.flushall())
        except (RedisError, OSError):
            return False

    def left(self) -> list[str]:
        """Processes of the installation, jobs included, where there should be none."""
        directory, found = str(self.installation.directory), []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                is_ours = process.environ().get("CCAT_STACK") == directory or process.cwd().startswith(directory)
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline())}")
        return found + [f"{pid} of a job" for pid in self._jobs()]

    def jobs_left(self) -> list[int]:
        """Processes of jobs where all runs are over; a shell that has written down how its job ended may still go."""
        deadline = time.monotonic() + _GOING.total_seconds()
        while (left := list(self._jobs())) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left


def deck(seed: int, *, most: int, each: int) -> list[str]:
    """The kinds in a random order: each so often, and no more kills than `most` if that is less."""
    cards = [kind for _ in range(each) for kind in KINDS]
    random.Random(seed).shuffle(cards)  # noqa: S311 - a game, not a secret
    return cards[:most]


def _is_leader(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def _run_of(pid: int) -> int | None:
    """The run whose job a process is, by the directory of its attempt."""
    directories = [directory for directory, pids in jobs_below(Path("/")).items() if pid in pids]
    return int(directories[0].parent.name) if directories else None
