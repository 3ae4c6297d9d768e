import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ccat.cli.errors import reported
from ccat.cli.foreseen import by_step, listed, show_runs
from ccat.cli.output import AsJson, print_json, print_table
from ccat.cli.reading import read_yaml
from ccat.wiring import process_name, transaction
from ccat_ops_db.definitions.document import Definitions
from ccat_ops_db.definitions.parsing import parse_definitions
from ccat_ops_db.errors import CcatError
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import presets
from ccat_ops_db.verbs.cautions import cautions
from ccat_ops_db.verbs.changes import Change
from ccat_ops_db.verbs.definitions import apply_definitions
from ccat_ops_db.verbs.foreseeing import Caused, Foreseen, foresee

File = Annotated[Path, typer.Option("--file", "-f", exists=True, dir_okay=False, help="YAML file with definitions.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would change and which runs that would cause, and change nothing.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Apply it however many runs it causes; they are not worked out.")]
AskAbove = Annotated[
    int, typer.Option(metavar="N", min=0, help="Ask before causing more than so many runs; without a terminal, refuse.")
]


class TooManyRuns(CcatError):
    """Definitions would cause more runs than somebody may have thought of."""

    code = "too_many_runs"

    def __init__(self, file: Path, runs: Sequence[Caused], *, most: int) -> None:
        numbers = by_step(runs)
        super().__init__(
            f"Applying {file} would cause {numbers.total():,} runs, more than {most:,}: {listed(numbers)}. `--dry-run` "
            f"shows why; `--yes` applies it all the same, `--ask-above {numbers.total()}` unless there are still more. "
            "Nothing was applied."
        )


def apply(
    *, file: File, dry_run: DryRun = False, yes: Yes = False, ask_above: AskAbove = 100, json: AsJson = False
) -> None:
    """Make the database say what a file of definitions says: software, configs, groupings, pipelines."""
    with reported(as_json=json):
        order = _Order(
            file=file, dry_run=dry_run, yes=yes, ask_above=ask_above, can_ask=sys.stdin.isatty() and not json
        )
        applied = _apply(order)
    if json:
        print_json(applied)
    else:
        _show(file, applied)


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What somebody asked for."""

    file: Path
    dry_run: bool
    yes: bool
    ask_above: int
    can_ask: bool


@dataclass(frozen=True)
class _Applied:
    """What applying changed and causes; `runs` is None where that was not worked out."""

    dry_run: bool
    changes: Sequence[Change]
    runs: Sequence[Caused] | None
    warnings: Sequence[str]


def _apply(order: _Order) -> _Applied:
    definitions = parse_definitions(
        read_yaml(order.file), catalogue=catalogue(), dimensions=list(dimensions()), presets=presets()
    )
    foreseen = None if order.yes and not order.dry_run else _foresee(order, definitions)
    by, folder = process_name("apply"), order.file.absolute().parent
    with transaction("apply") as session:
        changes = apply_definitions(session, definitions, folder=folder, by=by)
        warnings = cautions(session, changes, now=datetime.now(UTC))
        if order.dry_run:
            session.rollback()
    if foreseen is None:
        return _Applied(order.dry_run, changes, runs=None, warnings=warnings)
    return _Applied(order.dry_run, changes, foreseen.runs, [*warnings, *_not_foreseen(foreseen)])


def _not_foreseen(foreseen: Foreseen) -> Iterator[str]:
    for pipeline, because in foreseen.unknown.items():
        yield (
            f"pipeline {pipeline} cannot be evaluated, so it runs nothing until its definition is mended, and which "
            f"runs it would have is not known: {because}"
        )


def _foresee(order: _Order, definitions: Definitions) -> Foreseen:
    """The runs that it causes, if they are few or somebody agrees; nothing is locked while that is asked."""
    by, folder = process_name("apply"), order.file.absolute().parent
    with transaction("apply") as session:
        foreseen = foresee(session, definitions, folder=folder, now=datetime.now(UTC), by=by)
    runs = foreseen.runs
    number = sum(one.runs for one in runs)
    if number > order.ask_above and not order.dry_run:
        if not order.can_ask:
            raise TooManyRuns(order.file, runs, most=order.ask_above)
        show_runs(runs)
        typer.confirm(f"Apply {order.file}, and cause {number:,} runs?", abort=True)
    return foreseen


def _show(file: Path, applied: _Applied) -> None:
    changed = [one for one in applied.changes if one.action != "unchanged"]
    what = "would change" if applied.dry_run else "changed"
    title = f"{file}: {len(changed)} of {len(applied.changes)} {what}"
    print_table(
        title, ["what", "name", "", "detail"], [(one.kind, one.name, one.action, one.detail) for one in changed]
    )
    show_runs(applied.runs or [])
    for warning in applied.warnings:
        typer.echo(f"warning: {warning}", err=True)
