"""Keep processes alive, and leave none behind."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta

from ccat.stack.directory import StackDirectory
from ccat.stack.errors import NotReady, PreparationFailed
from ccat.stack.logs import rotate
from ccat.stack.processes import Child, adopt_orphans, bury_orphans, kill_descendants, start, stop
from ccat.stack.services import ServiceSpec
from ccat.stack.state import Phase, ServiceStatus, StackState, own_identity, write_state
from ccat.stack.watched import Watched

_SLOW = timedelta(seconds=10)


class StopRequested(Exception):
    """A signal asks the supervisor to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{signal.Signals(number).name} received")


@contextlib.contextmanager
def supervising(directory: StackDirectory, say: Callable[[str], None]) -> Iterator["Supervisor"]:
    """A supervisor; when the `with` block ends, so does everything that descends from it."""
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # not under nohup
        stop_signals.add(signal.SIGHUP)
    with _held_back(stop_signals | {signal.SIGCHLD}):
        adopt_orphans()
        supervisor = Supervisor(directory, say, stop_signals)
        try:
            yield supervisor
        finally:
            supervisor.stop()


@contextlib.contextmanager
def _held_back(signals: AbstractSet[signal.Signals]) -> Iterator[None]:
    """Signals wait until we look, so there is no handler and no race; those that nobody looked at are dropped."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        while signal.sigtimedwait(signals, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Supervisor:
    """Starts services stage by stage, restarts what dies, stops the stages in reverse order.

    Every method that waits raises StopRequested when a signal asks to stop.
    """

    def __init__(
        self, directory: StackDirectory, say: Callable[[str], None], stop_signals: AbstractSet[signal.Signals]
    ) -> None:
        self._directory = directory
        self._stop_signals = stop_signals
        self._say = say
        self._identity = own_identity()
        self._phase: Phase = "starting"
        self._published: StackState | None = None
        self._stages: list[list[Watched]] = []
        self._preparation: Child | None = None
        self._publish()

    def bring_up(self, *specs: ServiceSpec) -> None:
        """Start services together and return when all are ready; stop them when one cannot become so."""
        stage = [Watched(spec, self._directory.log_of(spec.name)) for spec in specs]
        self._stages.append(stage)
        try:
            while not all(service.status is ServiceStatus.RUNNING for service in stage):
                self._tick()
                _check_none_failed(stage)
        except NotReady:
            self._stop_last_stage()
            raise

    def prepare(self, spec: ServiceSpec) -> None:
        """Run a command to its end; raise PreparationFailed when it fails."""
        log = self._directory.log_of(spec.name)
        begin = time.monotonic()
        process = self._preparation = start(spec, log)
        try:
            while process.poll() is None:
                self._tick()
        finally:
            stop((process, spec))
            self._preparation = None
        if process.returncode:
            raise PreparationFailed(spec.name, exit_code=process.returncode, log=log)
        self._tell(spec.name, f"done after {time.monotonic() - begin:.1f} s")

    def watch(self) -> None:
        """Keep all alive until a signal comes."""
        self._phase = "up"
        while True:
            self._publish()
            self._tick()

    def stop(self) -> None:
        """Stop the stages in reverse order, then whatever else descends from us."""
        self._phase = "stopping"
        while self._stages:
            self._publish()
            self._stop_last_stage()
        kill_descendants()
        self._directory.state.unlink(missing_ok=True)

    def _stop_last_stage(self) -> None:
        stop(*((service.process, service.spec) for service in self._stages.pop() if service.process))

    def _tick(self) -> None:
        self._wait_for_signal()
        for service in self._services():
            if news := service.tick():
                self._tell(service.spec.name, news)
        bury_orphans(self._own_pids())
        self._publish()
        with contextlib.suppress(OSError):  # a full disk may not end what is supervised
            for log in self._directory.logs.glob("*.log"):
                rotate(log)

    def _wait_for_signal(self) -> None:
        received = signal.sigtimedwait({*self._stop_signals, signal.SIGCHLD}, self._patience().total_seconds())
        if received and received.si_signo in self._stop_signals:
            raise StopRequested(received.si_signo)

    def _patience(self) -> timedelta:
        return min((service.next_look() for service in self._services()), default=_SLOW)

    def _services(self) -> list[Watched]:
        return [service for stage in self._stages for service in stage]

    def _own_pids(self) -> set[int]:
        processes = [self._preparation, *(service.process for service in self._services())]
        return {process.pid for process in processes if process}

    def _tell(self, name: str, news: str) -> None:
        with contextlib.suppress(OSError):  # neither a closed terminal nor a full disk may end what is supervised
            self._say(f"{datetime.now().astimezone():%H:%M:%S}  {name:<18} {news}")

    def _publish(self) -> None:
        services = [service.state for service in self._services()]
        state = StackState(supervisor=self._identity, phase=self._phase, services=services)
        if state != self._published:
            with contextlib.suppress(OSError):  # as above
                write_state(self._directory.state, state)
            self._published = state


def _check_none_failed(stage: list[Watched]) -> None:
    for service in stage:
        if service.last_end:
            raise NotReady(service.spec.name, what=service.last_end, log=service.log)
