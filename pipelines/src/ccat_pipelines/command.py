"""From a command line to a step: only the chosen step is imported, so that every step starts quickly."""

import argparse
import os
import sys
from collections.abc import Mapping
from datetime import date
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from ccat_pipelines.contract import DISTRIBUTION, load
from ccat_pipelines.errors import StepError

# One thread: a cluster gives a step the cores that it asked for, and sums come out the same on any number of cores.
SINGLE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name


def parser_of(program: str, description: str, steps: Mapping[str, str]) -> tuple[argparse.ArgumentParser, Commands]:
    """Return the parser of a program with a command for each step, and where others are added."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--version", action="version", version=f"{DISTRIBUTION} {version(DISTRIBUTION)}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for step, summary in steps.items():
        commands.add_parser(step, help=summary, description=f"{summary}; reads WORKFLOW_MANIFEST.")
    return parser, commands


def add_make_raw(commands: Commands, many: str, *, default: int, what: str) -> None:
    """Add the command that simulates raw files, as many as the option `many` says."""
    raw = commands.add_parser("make-raw", help="simulate raw scans with known truth")
    raw.add_argument("--seed", type=int, required=True, help="the same seed makes the same bytes")
    raw.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write; made if absent")
    raw.add_argument(many, type=int, default=default, help=f"how many, {what} (default: %(default)s)")
    raw.add_argument(
        "--first-night",
        type=date.fromisoformat,
        default=date(2026, 4, 1),
        metavar="DATE",
        help="observing night of the first scan, named by the evening's date (default: %(default)s)",
    )


def use_one_thread() -> None:
    """Keep numerical libraries to one thread; only takes effect before they are imported."""
    os.environ.update(SINGLE_THREAD)


def run_step(package: str, step: str, *, environ: Mapping[str, str]) -> int:
    """Run the step `run(execution)` of a package under the container contract and return the exit code."""
    use_one_thread()
    try:
        import_module(f"{package}.{step.replace('-', '_')}").run(load(environ))
    except StepError as error:
        sys.stderr.write(f"{package.rpartition('.')[2]} {step}: {error}\n")
        return error.exit_code
    return 0
