"""`ccat up`, `ccat down` and `ccat status`: the embedded stack."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json, print_table
from ccat.cli.processes import PROCESSES
from ccat.stack.directory import existing_directory, open_directory
from ccat.stack.down import take_down
from ccat.stack.program import whole_program
from ccat.stack.state import read_state
from ccat.stack.status import COLUMNS, record, rows, summary
from ccat.stack.up import start_stack
from ccat.wiring import DEFAULT_DATA_DIR

DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="CCAT_DATA_DIR", help="Everything of the stack lies under this directory.")
]
Detach = Annotated[bool, typer.Option("--detach", help="Return when everything is up; it runs on in the background.")]


def up(*, data_dir: DataDir = DEFAULT_DATA_DIR, detach: Detach = False) -> None:
    """Start PostgreSQL, Redis and our processes, and restart what dies, until Ctrl-C or `ccat down`."""
    with reported():
        directory = open_directory(data_dir)
        import_module("ccat.processes")  # once, before they are forked
        program = whole_program(storage_root=directory.storage, initialize=_initialize, run=_run)
        if not start_stack(directory, program, detach=detach, say=typer.echo):
            raise typer.Exit(1)


def _initialize(storage_root: Path) -> None:
    from ccat.cli.opsdb import opsdb_init  # noqa: PLC0415 - Alembic, for a process that ends in a moment

    opsdb_init(storage_root=storage_root)


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
