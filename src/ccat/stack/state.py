"""What the supervisor tells others, and how they make sure that it is still the one who said it."""

import enum
import os
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ccat.stack.private import write_private
from ccat_service.processes import ProcessIdentity

Phase = Literal["starting", "up", "stopping"]


class ServiceStatus(enum.StrEnum):
    """Where a watched process is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    """It died and will be started again when its back-off is over."""


class ServiceState(BaseModel):
    """One line of `ccat status`."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int | None
    state: ServiceStatus
    restarts: int
    since: datetime


class StackState(BaseModel):
    """The supervisor and what it watches."""

    model_config = ConfigDict(frozen=True)

    supervisor: ProcessIdentity
    phase: Phase
    services: list[ServiceState]

    @property
    def is_up(self) -> bool:
        """Whether every process runs."""
        return self.phase == "up" and all(service.state == ServiceStatus.RUNNING for service in self.services)


def own_identity() -> ProcessIdentity:
    """The identity of this process."""
    identity = ProcessIdentity.of(os.getpid())
    if identity is None:
        raise ProcessLookupError("/proc is not mounted")
    return identity


def write_state(path: Path, state: StackState) -> None:
    """Publish in one step, so that a reader never sees half of it."""
    write_private(path, state.model_dump_json(indent=1))


def read_state(path: Path) -> StackState | None:
    """What a living supervisor said last; None when there is none."""
    try:
        state = StackState.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    return state if state.supervisor.is_alive() else None
