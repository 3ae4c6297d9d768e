"""`ccat up`, `ccat down` and `ccat status`: the embedded stack."""

from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Annotated, Final

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json, print_table
from ccat.cli.processes import PROCESSES
from ccat.cli.routes import change
from ccat.stack.directory import existing_directory, open_directory
from ccat.stack.down import take_down
from ccat.stack.program import whole_program
from ccat.stack.state import read_state
from ccat.stack.status import COLUMNS, record, rows, summary
from ccat.stack.up import start_stack
from ccat.wiring import DEFAULT_DATA_DIR
from ccat_ops_db.verbs.initialization import reference_data

DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="CCAT_DATA_DIR", help="Everything of the stack lies under this directory.")
]
Detach = Annotated[bool, typer.Option("--detach", help="Return when everything is up; it runs on in the background.")]

_MOMENT: Final = timedelta(seconds=1)
"""Long enough for what an instrument finishes together to cross together."""


def up(*, data_dir: DataDir = DEFAULT_DATA_DIR, detach: Detach = False) -> None:
    """Start PostgreSQL, Redis and our processes, and restart what dies, until Ctrl-C or `ccat down`."""
    with reported():
        directory = open_directory(data_dir)
        import_module("ccat.processes")  # once, before they are forked
        program = whole_program(storage_root=directory.storage, initialize=initialize_stack, run=_run)
        if not start_stack(directory, program, detach=detach, say=typer.echo):
            raise typer.Exit(1)


def initialize_stack(storage_root: Path) -> None:
    """What `opsdb_init` does; on new routes `ccat route set` then lets data wait for company for a moment only.

    Nobody on one machine waits for an ocean. Later the routes are as their operator sets them.
    """
    from ccat.cli.opsdb import make_ready, show  # noqa: PLC0415 - Alembic, for a process that ends in a moment

    with reported():
        ready = make_ready(storage_root)
    show(ready)
    for route in reference_data()["routes"] if ready.is_new else ():
        change(route["name"], wait_minutes=_MOMENT / timedelta(minutes=1))


def _run(name: str) -> None:
    """Be the process that the command of this name starts."""
    try:
        PROCESSES[name]()
    except typer.Exit as end:
        raise SystemExit(end.exit_code) from end


def down(*, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop the stack in a data directory, or what is left of it."""
    with reported():
        take_down(existing_directory(data_dir), typer.echo)


def status(*, data_dir: DataDir = DEFAULT_DATA_DIR, json: AsJson = False) -> None:
    """List the processes of the stack in a data directory; exit with 1 unless all of them run."""
    with reported(as_json=json):
        directory = existing_directory(data_dir)
    state = read_state(directory.state)
    if json:
        print_json(record(directory.root, state))
    else:
        print_table(summary(directory.root, state), COLUMNS, rows(state))
    if state is None or not state.is_up:
        raise typer.Exit(1)
