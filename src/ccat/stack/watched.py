"""One process under supervision."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ccat.stack.backoff import quick_deaths, restart_delay
from ccat.stack.processes import Child, describe_end, kill_group, start
from ccat.stack.services import ServiceSpec
from ccat.stack.state import ServiceState, ServiceStatus

_POLL = timedelta(milliseconds=50)
_LONG = timedelta(seconds=10)


class Watched:
    """Keeps one service alive, whatever ends it."""

    def __init__(self, spec: ServiceSpec, log: Path) -> None:
        self.spec = spec
        self.log = log
        self.process: Child | None = None
        self.last_end: str | None = None
        """How it ended most recently."""
        self._due = time.monotonic()
        self._status = ServiceStatus.WAITING
        self._since = datetime.now(UTC)
        self._started = self._due
        self._starts = 0
        self._quick_deaths = 0

    @property
    def status(self) -> ServiceStatus:
        """Where it is in its life."""
        return self._status

    @property
    def state(self) -> ServiceState:
        """For `ccat status`."""
        return ServiceState(
            name=self.spec.name,
            pid=self.process.pid if self.process else None,
            state=self._status,
            restarts=max(0, self._starts - 1),
            since=self._since,
        )

    @property
    def _age(self) -> timedelta:
        return timedelta(seconds=time.monotonic() - self._started)

    def next_look(self) -> timedelta:
        """How long `tick` has nothing to do, as long as the process does not die."""
        match self._status:
            case ServiceStatus.WAITING:
                return timedelta(seconds=max(0.0, self._due - time.monotonic()))
            case ServiceStatus.STARTING:
                return _POLL
            case ServiceStatus.RUNNING:
                return _LONG

    def tick(self) -> str | None:
        """Start it when that is due, notice its readiness and its death; say what happened."""
        if self.process is None:
            is_due = self._status is ServiceStatus.WAITING and time.monotonic() >= self._due
            return self._start() if is_due else None
        if (code := self.process.poll()) is not None:
            return self._bury(describe_end(code))
        if self._status is ServiceStatus.STARTING:
            return self._check_ready(self.process)
        return None

    def _start(self) -> str | None:
        self._starts += 1
        self._started = time.monotonic()
        try:
            self.process = start(self.spec, self.log)
        except OSError as error:
            return self._bury(f"could not be started ({error})")
        self._enter(ServiceStatus.STARTING)
        return self._check_ready(self.process)

    def _check_ready(self, process: Child) -> str | None:
        if self.spec.is_ready(process.pid):
            self._enter(ServiceStatus.RUNNING)
            return f"ready after {self._age.total_seconds():.1f} s (pid {process.pid})"
        if self._age > self.spec.ready_within:
            process.kill()
            process.wait()
            return self._bury(f"was not ready after {self.spec.ready_within.total_seconds():g} s")
        return None

    def _bury(self, how: str) -> str:
        if self.process:
            kill_group(self.process.pid)
        self._quick_deaths = quick_deaths(self._quick_deaths, self._age)
        delay = restart_delay(self._quick_deaths)
        self._due = time.monotonic() + delay.total_seconds()
        self.process = None
        self.last_end = how
        self._enter(ServiceStatus.WAITING)
        return f"{how}, starts again in {delay.total_seconds():g} s" if delay else how

    def _enter(self, status: ServiceStatus) -> None:
        self._status = status
        self._since = datetime.now(UTC)
