"""What the stack runs, as data."""

import pwd
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from signal import SIGTERM, Signals


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """One long-running process: how to start it, how to know that it serves, how to end it."""

    name: str
    command: Sequence[str] = ()
    """Argument list of a program of others."""
    call: Callable[[], object] | None = None
    """What to do in a forked process, instead of a command: for our own code."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of the supervisor."""
    forgets: tuple[str, ...] = ()
    """How variables begin that it does not inherit from the supervisor."""
    directory: Path | None = None
    """Working directory; None is that of the supervisor."""
    account: pwd.struct_passwd | None = None
    """The system user to run as; None is the user of the supervisor."""
    is_ready: Callable[[int], bool] = lambda _pid: True
    """Asked with the process's pid until it says yes."""
    before_start: Callable[[], None] = lambda: None
    """Clears away what a killed predecessor left."""
    ready_within: timedelta = timedelta(seconds=60)
    stop_signal: Signals = SIGTERM
    """Asks for an orderly end; the kernel also sends it when the supervisor is killed."""
    stop_within: timedelta = timedelta(seconds=10)
    """Patience after the stop signal, before SIGKILL."""
