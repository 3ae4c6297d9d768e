"""Say how a stack is, for people and for programs."""

from pathlib import Path
from typing import Any

from ccat.stack.errors import command_for
from ccat.stack.state import StackState

COLUMNS = ("process", "pid", "state", "restarts", "since")
"""Of `rows`."""


def summary(directory: Path, state: StackState | None) -> str:
    """One line."""
    if state is None:
        return f"The stack in {directory} is not running. Start it with `{command_for('up', directory)}`."
    return f"The stack in {directory} is {state.phase} (pid {state.supervisor.pid})."


def rows(state: StackState | None) -> list[tuple[object, ...]]:
    """One for each process."""
    services = state.services if state else []
    return [(one.name, one.pid, one.state, one.restarts, one.since.astimezone()) for one in services]


def record(directory: Path, state: StackState | None) -> dict[str, Any]:
    """Everything; `up` says in one word what the exit code says."""
    return {
        "directory": str(directory),
        "up": state is not None and state.is_up,
        "phase": state.phase if state else "down",
        "supervisor_pid": state.supervisor.pid if state else None,
        "services": [service.model_dump(mode="json") for service in state.services] if state else [],
    }
