"""Stop a stack, or what is left of one whose supervisor was killed."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta

from ccat.stack.directory import StackDirectory, exclusive
from ccat.stack.errors import StillRunning
from ccat.stack.leftovers import end_leftovers
from ccat.stack.state import read_state
from ccat_service.processes import ProcessIdentity
from ccat_workflow_manager.hpc.local.killing import kill_jobs

_STOP_PATIENCE = timedelta(seconds=100)
"""Longer than the supervisor's own patience with all its stages."""
_POLL = timedelta(milliseconds=20)


def take_down(directory: StackDirectory, say: Callable[[str], None]) -> None:
    """Stop the supervisor if there is one, and end every process that still belongs to this directory."""
    state = read_state(directory.state)
    if state:
        say(f"Stopping the stack in {directory.root} (pid {state.supervisor.pid})")
        _stop(state.supervisor, directory)
    with exclusive(directory):
        leftovers = end_leftovers(directory)
        kill_jobs(directory.pipelines)
    if leftovers:
        say(f"Ended {leftovers} processes that a killed supervisor had left behind.")
    say("The stack is down." if state or leftovers else f"No stack was running in {directory.root}.")


def _stop(supervisor: ProcessIdentity, directory: StackDirectory) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(supervisor.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_PATIENCE.total_seconds()
    while supervisor.is_alive():
        if time.monotonic() > deadline:
            raise StillRunning(directory.root, pid=supervisor.pid, seconds=_STOP_PATIENCE.total_seconds())
        time.sleep(_POLL.total_seconds())
