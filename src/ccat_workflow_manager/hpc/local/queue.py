"""Which local jobs wait, and which hold CPUs and memory, in Redis: any number of workers of a host share its slots.

Nothing here is the truth: what is lost or expires is restored from the files of the jobs.
"""

import contextlib
import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, cast

from redis import Redis
from redis.exceptions import RedisError

from ccat_workflow_manager.hpc.base import BackendUnavailable, JobSpec
from ccat_workflow_manager.hpc.local.marks import JobRecord

_KEPT_FOR: Final = timedelta(days=7)
_RESTORED_EVERY: Final = timedelta(minutes=10)
_SECONDS_PER_PRIORITY: Final = 2**32
"""More than any time stamp: a higher priority goes before everything older."""
_MB_PER_GB: Final = 1000
_TURN: Final = Path(__file__).with_name("turn.lua").read_text()


@dataclass(frozen=True)
class Slots:
    """An amount of what jobs hold as long as they run."""

    cpus: int
    memory_mb: int

    @classmethod
    def of(cls, cpus: int, memory_gb: float) -> "Slots":
        """So many CPUs, and memory in whole MB."""
        return cls(cpus, math.ceil(memory_gb * _MB_PER_GB))

    @classmethod
    def read(cls, text: str) -> "Slots":
        """What `str` wrote."""
        return cls(*map(int, text.split(":")))

    @property
    def memory_gb(self) -> float:
        """The memory in GB."""
        return self.memory_mb / _MB_PER_GB

    def __sub__(self, other: "Slots") -> "Slots":
        return Slots(max(0, self.cpus - other.cpus), max(0, self.memory_mb - other.memory_mb))

    def __str__(self) -> str:
        return f"{self.cpus}:{self.memory_mb}"


@dataclass(frozen=True)
class Standing:
    """Who waits, who holds slots and since when, what is free, and what the first one in the queue needs."""

    waiting: frozenset[str]
    claims: Mapping[str, datetime]
    free: Slots
    next_needs: Slots | None


class JobQueue:
    """The waiting jobs of a host by priority and age, and its slots."""

    def __init__(self, redis: Redis, *, prefix: str, slots: Slots) -> None:
        self._redis = redis
        self.slots = slots
        self._waiting, self._claimed, self._needs = (f"{prefix}:{part}" for part in ("waiting", "claimed", "needs"))
        self._restored = f"{prefix}:restored"
        self._script = redis.register_script(_TURN)

    def turn(self, *, over: Collection[str] = (), new: JobRecord | None = None) -> list[str] | None:
        """Free the slots of those over, let a new job wait, and return whom slots were given: to one caller only.

        None where Redis has forgotten, and nothing was done.
        """
        limits = [self.slots.cpus, self.slots.memory_mb, time.time(), int(_KEPT_FOR.total_seconds())]
        added: list[str | float] = [] if new is None else [_rank(new), new.spec.name, str(_needs(new.spec))]
        keys = [self._waiting, self._claimed, self._needs, self._restored]
        with _translated():
            started = cast("list[bytes] | None", self._script(keys, [*limits, len(over), *over, *added]))
        return None if started is None else [_text(name) for name in started]

    def restore(self, *, waiting: Iterable[JobRecord], started: Iterable[JobRecord]) -> None:
        """Add what the files say; what is over by now leaves again with the next turn."""
        now = time.time()
        claims = [(self._claimed, record, now) for record in started]
        places = [(self._waiting, record, _rank(record)) for record in waiting]
        with _translated(), self._redis.pipeline() as pipe:
            for key, record, score in [*claims, *places]:
                pipe.zadd(key, {record.spec.name: score}, nx=True)
                pipe.hset(self._needs, record.spec.name, str(_needs(record.spec)))
            pipe.set(self._restored, self._redis.info("server")["run_id"], ex=_RESTORED_EVERY)
            pipe.execute()

    def is_served(self, prefix: str) -> bool:
        """Whether a queue with this prefix is that of a host whose workers were at it lately."""
        with _translated():
            return bool(self._redis.exists(f"{prefix}:restored"))

    def renew(self, name: str) -> None:
        """Date a claim anew: its job is started once more."""
        with _translated():
            self._redis.zadd(self._claimed, {name: time.time()}, xx=True)

    def standing(self) -> Standing | None:
        """Look at the whole queue; None where Redis has forgotten, or may have, as it was started anew."""
        with _translated(), self._redis.pipeline() as pipe:
            pipe.zrange(self._waiting, 0, -1)
            pipe.zrange(self._claimed, 0, -1, withscores=True)
            pipe.get(self._restored)
            pipe.info("server")
            names, scores, restored, server = pipe.execute()
            waiting = [_text(name) for name in names]
            claims = {_text(name): datetime.fromtimestamp(score, UTC) for name, score in scores}
            needs = self._needed([*claims, *waiting[:1]])
        if restored is None or _text(restored) != server["run_id"]:
            return None
        free = self.slots
        for name in claims:
            free -= needs[name]
        return Standing(frozenset(waiting), claims, free, needs[waiting[0]] if waiting else None)

    def _needed(self, names: Sequence[str]) -> Mapping[str, Slots]:
        found = cast("list[bytes | None]", self._redis.hmget(self._needs, names)) if names else []
        return {name: Slots.read(_text(one)) if one else Slots(1, 0) for name, one in zip(names, found, strict=True)}


def _needs(spec: JobSpec) -> Slots:
    return Slots.of(spec.cpus, spec.memory_gb)


def _rank(record: JobRecord) -> float:
    return record.submitted_at.timestamp() - record.spec.priority * _SECONDS_PER_PRIORITY


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise BackendUnavailable("local", f"Redis does not answer ({error})") from error
