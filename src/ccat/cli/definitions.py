from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json, print_table
from ccat.wiring import process_name, transaction
from ccat_ops_db.definitions import InvalidDefinition, parse_definitions
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import presets
from ccat_ops_db.verbs.changes import Change
from ccat_ops_db.verbs.definitions import apply_definitions

File = Annotated[Path, typer.Option("--file", "-f", exists=True, dir_okay=False, help="YAML file with definitions.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]


class _PlainLoader(yaml.SafeLoader):
    """YAML of plain values: moments stay text, and a key is text that stands once, or one would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        """Mapping of a node; refuses a key that is repeated or no text, with its line."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                _refuse(key_node, f"key `{key}` is no text, write it in quotes")
            if key in seen:
                _refuse(key_node, f"key `{key}` stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_PlainLoader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, moment: moment.value)


def _refuse(node: yaml.Node, problem: str) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def apply(*, file: File, dry_run: DryRun = False, json: AsJson = False) -> None:
    """Make the database say what a file of definitions says: software, configs, groupings, pipelines."""
    with reported(as_json=json):
        changes = _apply(file, dry_run=dry_run)
        if json:
            print_json({"dry_run": dry_run, "changes": changes})
        else:
            _show(file, changes, dry_run=dry_run)


def _apply(file: Path, *, dry_run: bool) -> list[Change]:
    definitions = parse_definitions(
        _read(file), catalogue=catalogue(), dimensions=list(dimensions()), presets=presets()
    )
    with transaction("apply") as session:
        changes = apply_definitions(session, definitions, folder=file.absolute().parent, by=process_name("apply"))
        if dry_run:
            session.rollback()
    return changes


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


def _show(file: Path, changes: list[Change], *, dry_run: bool) -> None:
    changed = [one for one in changes if one.action != "unchanged"]
    what = "would change" if dry_run else "changed"
    title = f"{file}: {len(changed)} of {len(changes)} {what}"
    print_table(
        title, ["what", "name", "", "detail"], [(one.kind, one.name, one.action, one.detail) for one in changed]
    )
