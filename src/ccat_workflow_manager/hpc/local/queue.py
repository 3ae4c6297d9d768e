"""Which local jobs wait and which hold CPUs, in Redis, so that any number of workers of a host share its slots.

Nothing here is the truth: what is lost or expires is restored from the files of the jobs.
"""

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, cast

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError

from ccat_workflow_manager.hpc.base import BackendUnavailable
from ccat_workflow_manager.hpc.local.files import JobRecord

_KEPT_FOR: Final = timedelta(days=7)
_RESTORED_EVERY: Final = timedelta(minutes=10)
_SECONDS_PER_PRIORITY: Final = 2**32
"""More than any time stamp: a higher priority goes before everything older."""

_CLAIM: Final = """
local waiting, claimed, cpus, slots, now = KEYS[1], KEYS[2], KEYS[3], tonumber(ARGV[1]), ARGV[2]
local used = 0
for _, name in ipairs(redis.call('ZRANGE', claimed, 0, -1)) do
    used = used + tonumber(redis.call('HGET', cpus, name) or 1)
end
while true do
    local name = redis.call('ZRANGE', waiting, 0, 0)[1]
    if not name then return false end
    local is_claimed = redis.call('ZSCORE', claimed, name)
    if not is_claimed and used + tonumber(redis.call('HGET', cpus, name) or 1) > slots then return false end
    redis.call('ZREM', waiting, name)
    if not is_claimed then
        redis.call('ZADD', claimed, now, name)
        return name
    end
end
"""


class JobQueue:
    """The waiting jobs of a host by priority and age, and its CPU slots."""

    def __init__(self, redis: Redis, *, prefix: str, slots: int) -> None:
        self._redis = redis
        self._slots = slots
        self._waiting, self._claimed, self._cpus = (f"{prefix}:{part}" for part in ("waiting", "claimed", "cpus"))
        self._restored = f"{prefix}:restored"
        self._claim = redis.register_script(_CLAIM)

    def needs_restoring(self) -> bool:
        """Whether Redis has forgotten, or it is time to compare it with the files again."""
        with _translated():
            return not self._redis.exists(self._restored)

    def restore(self, *, waiting: Iterable[JobRecord], started: Iterable[JobRecord]) -> None:
        """Add what the files say; what is over by now leaves again with the next look at the claims."""
        with _translated(), self._redis.pipeline() as pipe:
            for record in started:
                pipe.zadd(self._claimed, {record.spec.name: time.time()}, nx=True)
                pipe.hset(self._cpus, record.spec.name, str(record.spec.cpu))
            for record in waiting:
                pipe.zadd(self._waiting, {record.spec.name: _rank(record)}, nx=True)
                pipe.hset(self._cpus, record.spec.name, str(record.spec.cpu))
            pipe.set(self._restored, "1", ex=_RESTORED_EVERY)
            self._keep(pipe)

    def add(self, record: JobRecord) -> None:
        """Let a job wait; one that waits already keeps its place."""
        with _translated(), self._redis.pipeline() as pipe:
            pipe.zadd(self._waiting, {record.spec.name: _rank(record)}, nx=True)
            pipe.hset(self._cpus, record.spec.name, str(record.spec.cpu))
            self._keep(pipe)

    def claim(self) -> str | None:
        """Give CPUs to the first waiting job, if enough are free, and return its name: to one caller only.

        Nothing overtakes a large job that waits for CPUs, so it is never starved by small ones.
        """
        with _translated():
            name = self._claim(keys=[self._waiting, self._claimed, self._cpus], args=[self._slots, time.time()])
        return None if name is None else _text(name)

    def claims(self) -> Mapping[str, datetime]:
        """Return the jobs that hold CPUs, and since when."""
        with _translated():
            claims = cast("list[tuple[str | bytes, float]]", self._redis.zrange(self._claimed, 0, -1, withscores=True))
        return {_text(name): datetime.fromtimestamp(score, UTC) for name, score in claims}

    def renew(self, name: str) -> None:
        """Date a claim anew: its job is started once more."""
        with _translated():
            self._redis.zadd(self._claimed, {name: time.time()}, xx=True)

    def remove(self, names: Collection[str]) -> None:
        """Forget jobs that are over, with the CPUs they hold."""
        if names:
            with _translated(), self._redis.pipeline() as pipe:
                pipe.zrem(self._waiting, *names)
                pipe.zrem(self._claimed, *names)
                pipe.hdel(self._cpus, *names)
                pipe.execute()

    def reasons(self) -> Mapping[str, str]:
        """Return why each waiting job waits; not its place, which changes with every job that starts."""
        with _translated(), self._redis.pipeline() as pipe:
            pipe.zrange(self._waiting, 0, -1)
            pipe.zcard(self._claimed)
            waiting, claimed = pipe.execute()
        return dict.fromkeys(map(_text, waiting), f"{claimed} jobs hold the {self._slots} CPUs of this host")

    def _keep(self, pipe: Pipeline) -> None:
        for key in (self._waiting, self._claimed, self._cpus):
            pipe.expire(key, _KEPT_FOR)
        pipe.execute()


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
