import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json, print_table
from ccat.wiring import process_name, transaction
from ccat_ops_db.definitions.document import Definitions
from ccat_ops_db.definitions.parsing import InvalidDefinition, parse_definitions
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


class _PlainLoader(yaml.SafeLoader):
    """YAML of plain values: moments stay text, and a key is text that stands once, or one would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        """Mapping of a node; refuses a key that is repeated or no text, with its line."""
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                _refuse(key_node, "`<<` is not read, write out what it stands for")
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                _refuse(key_node, f"key `{key}` is no text, write it in quotes")
            if key in seen:
                _refuse(key_node, f"key `{key}` stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's signature
        """What a node stands for; refuses what is not of the type that it claims, with its line."""
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, KeyError, OverflowError):
            kind = node.tag.rpartition(":")[2]
            _refuse(node, f"`{str(node.value)[:40]}` is no {kind}, write text in quotes")


_PlainLoader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, moment: moment.value)


def _refuse(node: yaml.Node, problem: str) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


class TooManyRuns(CcatError):
    """Definitions would cause more runs than somebody may have thought of."""

    code = "too_many_runs"

    def __init__(self, file: Path, runs: Sequence[Caused], *, most: int) -> None:
        numbers: Counter[str] = Counter()
        for one in runs:
            numbers[f"{one.pipeline}/{one.step}"] += one.runs
        where = ", ".join(f"{number:,} of {step}" for step, number in numbers.items())
        super().__init__(
            f"Applying {file} would cause {numbers.total():,} runs, more than {most:,}: {where}. `--dry-run` shows "
            f"why; `--yes` applies it all the same, `--ask-above {numbers.total()}` unless there are still more. "
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
        _read(order.file), catalogue=catalogue(), dimensions=list(dimensions()), presets=presets()
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
        _show_runs(runs)
        typer.confirm(f"Apply {order.file}, and cause {number:,} runs?", abort=True)
    return foreseen


def _read(file: Path) -> Any:
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_PlainLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        raise InvalidDefinition([_misspelt(file, error)]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidDefinition([f"{file}: not valid YAML: {error}"]) from error
    except RecursionError as error:
        raise InvalidDefinition([f"{file}: it is nested too deeply."]) from error


def _misspelt(file: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{file}{place}: not valid YAML: {' '.join(filter(None, [error.context, error.problem]))}."


def _show(file: Path, applied: _Applied) -> None:
    changed = [one for one in applied.changes if one.action != "unchanged"]
    what = "would change" if applied.dry_run else "changed"
    title = f"{file}: {len(changed)} of {len(applied.changes)} {what}"
    print_table(
        title, ["what", "name", "", "detail"], [(one.kind, one.name, one.action, one.detail) for one in changed]
    )
    _show_runs(applied.runs or [])
    for warning in applied.warnings:
        typer.echo(f"warning: {warning}", err=True)


def _show_runs(runs: Sequence[Caused]) -> None:
    for one in runs:
        reason = one.reason or "may follow from these"
        typer.echo(f"{one.pipeline}/{one.step}: {one.runs:,} {'run' if one.runs == 1 else 'runs'}: {reason}")
