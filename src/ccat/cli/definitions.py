from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json, print_table
from ccat.wiring import open_database, process_name
from ccat_ops_db.definitions import InvalidDefinition, parse_definitions
from ccat_ops_db.grouping.compile import DIMENSIONS, catalogue
from ccat_ops_db.verbs.changes import Change
from ccat_ops_db.verbs.definitions import apply_definitions

File = Annotated[Path, typer.Option("--file", "-f", exists=True, dir_okay=False, help="YAML file with definitions.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key stands once: of two equal ones, one would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        """Mapping of a node; refuses a repeated key with its line."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key `{key}` stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def apply(*, file: File, dry_run: DryRun = False, json: AsJson = False) -> None:
    """Make the database say what a file of definitions says: software, configs, groupings, pipelines."""
    with reported(as_json=json):
        changes = _apply(file, dry_run=dry_run)
        if json:
            print_json({"dry_run": dry_run, "changes": changes})
        else:
            _show(file, changes, dry_run=dry_run)


def _apply(file: Path, *, dry_run: bool) -> list[Change]:
    definitions = parse_definitions(_read(file), catalogue=catalogue(), dimensions=list(DIMENSIONS))
    database = open_database("apply")
    database.require_current_schema()
    with database.transaction() as session:
        changes = apply_definitions(session, definitions, folder=file.absolute().parent, by=process_name("apply"))
        if dry_run:
            session.rollback()
    return changes


def _read(file: Path) -> Any:
    try:
        return yaml.load(file.read_text(), Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidDefinition([f"{file}: not valid YAML: {error}"]) from error


def _show(file: Path, changes: list[Change], *, dry_run: bool) -> None:
    changed = [one for one in changes if one.action != "unchanged"]
    what = "would change" if dry_run else "changed"
    title = f"{file}: {len(changed)} of {len(changes)} {what}"
    print_table(
        title, ["what", "name", "", "detail"], [(one.kind, one.name, one.action, one.detail) for one in changed]
    )
