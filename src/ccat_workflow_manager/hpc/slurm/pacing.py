"""How often a cluster is given something: no oftener than its administrators like."""

import time
from typing import Final

from redis import Redis

from ccat_workflow_manager.hpc.base import BackendUnavailable

_MINUTE_S: Final = 60


class Pace:
    """So many submissions a minute, by all workers together that share Redis and the key."""

    def __init__(self, redis: Redis, *, key: str, per_minute: int) -> None:
        self._redis = redis
        self._key = key
        self._per_minute = per_minute

    def hold(self) -> None:
        """Raise BackendUnavailable where this minute's submissions are used up."""
        key = f"{self._key}:{int(time.time()) // _MINUTE_S}"
        with self._redis.pipeline() as pipe:
            pipe.incr(key)
            pipe.expire(key, 2 * _MINUTE_S)
            used, _ = pipe.execute()
        if used > self._per_minute:
            raise BackendUnavailable("slurm", f"it takes no more than {self._per_minute} submissions a minute from us")
