import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from time import monotonic
from typing import Final, Generic, TypeVar

from ccat_ops_db.schema import SchemaOutdated, SchemaTooNew
from ccat_service.database import DatabaseConnection
from ccat_service.health import HealthCheck
from ccat_service.logging import StructuredLogger
from ccat_service.retries import Backoff, first_line
from ccat_service.settings import SettingsError
from ccat_service.stop import Stop
from ccat_service.trouble import is_transient
from ccat_service.wakeups import MISSED, Wakeups

Context = TypeVar("Context")

_BACKOFF: Final = Backoff()
_SHORTEST_PAUSE: Final = timedelta(milliseconds=100)
_LONGEST_REST: Final = timedelta(seconds=0.5)
_FLOOD: Final = 10
"""So much done in one tick is more than comes in by itself: more will have come after a rest as long as the tick."""
_LEAST_REST: Final = 0.5
_MOST_REST: Final = 2
"""Times as long as the tick; the least is for ticks that find much to look at and nothing to do."""


@dataclass(frozen=True, kw_only=True)
class Manager(Generic[Context]):
    """What one manager does, and when."""

    name: str
    context: Context
    tick: Callable[[Context], int]
    """One bounded round of work; returns how much it did, 0 where there was nothing to do."""
    wakes_on: Collection[str] = ()
    """Patterns of the moves that may give it work: `raw_data_package:archived`, `staging_job:*`."""
    poll: timedelta = timedelta(seconds=10)
    """Looks for work at least this often, announced or not."""
    due: Callable[[Context], datetime | None] = lambda _: None
    """Next moment at which there will be work without anything being announced."""
    backoff: Backoff = _BACKOFF


def run_manager(manager: Manager[Context], *, database: DatabaseConnection, health: HealthCheck, stop: Stop) -> None:
    """Tick until `stop`: again soon while there was work, else when woken, due or the poll interval is over.

    No error but those about the schema and the settings ends it; after any other it waits longer and longer.
    """
    with health, database.listen(stop=stop) as wakeups:
        _Loop(manager, database, health=health, stop=stop, wakeups=wakeups).run()


class _Loop(Generic[Context]):
    def __init__(
        self,
        manager: Manager[Context],
        database: DatabaseConnection,
        *,
        health: HealthCheck,
        stop: Stop,
        wakeups: Wakeups,
    ) -> None:
        self._manager = manager
        self._database = database
        self._health = health
        self._stop = stop
        self._wakeups = wakeups
        self._failures = 0
        self._rested_at = 0.0
        """In a flood a manager rests in proportion: what comes in meanwhile is done together, and others get on."""
        self._schema_is_checked = False
        self._log = StructuredLogger(__name__, manager=manager.name)

    def run(self) -> None:
        self._log.info("manager started")
        while not self._stop.requested:
            try:
                self._round()
            except (SchemaOutdated, SchemaTooNew, SettingsError):
                raise
            except Exception as error:  # noqa: BLE001 - a manager outlives whatever a tick raises
                self._recover(error)
        self._log.info("manager stopped")

    def _round(self) -> None:
        if not self._schema_is_checked:
            self._database.require_current_schema()
            self._schema_is_checked = True
        if self._stop.wait(timedelta(seconds=max(0.0, self._rested_at - monotonic()))):
            return
        begun = monotonic()
        done = self._manager.tick(self._manager.context)
        worked = monotonic() - begun
        rest = worked * min(max(done / _FLOOD, _LEAST_REST), _MOST_REST)
        self._rested_at = monotonic() + min(rest, _LONGEST_REST.total_seconds())
        if self._failures:
            self._log.info("works again", failures=self._failures)
            self._failures = 0
        if done:
            self._health.record_work()
        else:
            self._health.beat()
            self._wait()

    def _wait(self) -> None:
        deadline = monotonic() + _pause(self._manager.poll, self._manager.due(self._manager.context)).total_seconds()
        while not self._stop.requested and (left := deadline - monotonic()) > 0:
            if self._concerns(self._wakeups.wait(timedelta(seconds=left))):
                return

    def _concerns(self, payloads: Collection[str]) -> bool:
        return MISSED in payloads or any(
            fnmatchcase(payload, pattern) for payload in payloads for pattern in self._manager.wakes_on
        )

    def _recover(self, error: Exception) -> None:
        self._failures += 1
        self._schema_is_checked = False  # the trouble may be a migration
        delay = self._manager.backoff.delay(self._failures, jitter=random.random())  # noqa: S311 - not a secret
        facts = {"failures": self._failures, "next_try_in_s": round(delay.total_seconds(), 1)}
        if is_transient(error):
            self._log.warning("round failed, trying again later", error=first_line(error), **facts)
        else:
            self._log.exception("round failed, trying again later", error, **facts)
        self._stop.wait(delay)


def _pause(poll: timedelta, due: datetime | None) -> timedelta:
    # What is due already was left undone by the tick just now: asking again at once would only spin.
    return poll if due is None else max(_SHORTEST_PAUSE, min(poll, due - datetime.now(UTC)))
