"""The page about rules says what there is, and its examples can be applied."""

import re
from pathlib import Path

import pytest
import yaml

from ccat_ops_db import models
from ccat_ops_db.definitions.parsing import parse_definitions
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import presets
from ccat_ops_db.grouping.rules import Operator

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
CODE = re.compile(r"`([\w.-]+)`")


def rows_of(heading: str) -> list[list[str]]:
    """Lines of the table whose first column has this heading."""
    _, _, after = PAGE.partition(f"| {heading} |")
    lines = after.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_can_be_applied(example: str) -> None:
    [grouping] = parse_definitions(
        yaml.safe_load(example), catalogue=catalogue(), dimensions=list(dimensions()), presets=presets()
    ).groupings
    assert grouping.rules


def test_every_operator_is_explained() -> None:
    explained = [name for row in rows_of("operator") for name in CODE.findall(row[0])]
    assert sorted(explained) == sorted(Operator)


def test_every_preset_is_explained_with_its_parameters() -> None:
    explained = {name: CODE.findall(row[1]) for row in rows_of("preset") for name in CODE.findall(row[0])}
    assert explained == {name: list(preset.parameters) for name, preset in presets().items()}


def test_every_table_and_every_named_dimension_is_mentioned() -> None:
    tables = {name for name in catalogue() if "." not in name}
    named = {name for name in dimensions() if "." not in name}
    assert tables | named <= set(CODE.findall(PAGE))


def test_the_kinds_of_sources_in_the_examples_exist() -> None:
    kinds = set(re.findall(r"column: type, operator: eq, value: (\w+)", PAGE))
    assert kinds <= {mapper.polymorphic_identity for mapper in models.Source.__mapper__.polymorphic_map.values()}
    assert kinds
