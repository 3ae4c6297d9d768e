"""One command per long-running process. Their parts are imported when one starts, and by no other command."""

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, Final

import typer

Concurrency = Annotated[int, typer.Option(min=1, help="Tasks that it works on at once.")]
Location = Annotated[
    list[str] | None,
    typer.Option(metavar="SITE[/NAME]", help="Only these; may be repeated."),
]


def trigger_manager() -> None:
    """Create the runs that are missing or out of date."""
    _run("trigger_manager")


def workflow_manager() -> None:
    """Start runs: fix their inputs, have data staged and jobs submitted."""
    _run("workflow_manager")


def result_manager() -> None:
    """Have jobs observed and results collected; retry what failed in passing."""
    _run("result_manager")


def celery_worker(*, concurrency: Concurrency = 4) -> None:
    """Carry out workflow tasks at the processing locations that this instance serves."""
    _run("celery_worker", concurrency=concurrency)


def transfer_manager() -> None:
    """Have raw files packed, archived and staged."""
    _run("transfer_manager_process")


def transfer_worker(*, concurrency: Concurrency = 2, location: Location = None) -> None:
    """Carry out transfer tasks at the sites and locations that can be reached from here, also later ones."""
    _run("transfer_worker", concurrency=concurrency, serve=location or ())


def _run(name: str, **options: Any) -> None:
    getattr(import_module("ccat.processes"), name)(**options)


PROCESSES: Final[dict[str, Callable[..., None]]] = {
    "trigger-manager": trigger_manager,
    "workflow-manager": workflow_manager,
    "result-manager": result_manager,
    "celery-worker": celery_worker,
    "transfer-manager": transfer_manager,
    "transfer-worker": transfer_worker,
}
"""Every process of the system, by the name of its command."""
