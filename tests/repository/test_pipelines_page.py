"""The page about pipelines names every key that there is, and its example can be applied."""

import re
from pathlib import Path

import yaml

from ccat_ops_db.definitions.auxiliary import Auxiliary
from ccat_ops_db.definitions.document import Pipeline, SoftwareVersion
from ccat_ops_db.definitions.limits import Limits
from ccat_ops_db.definitions.parsing import parse_definitions
from ccat_ops_db.definitions.steps import Resources, Step
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import presets
from ccat_ops_db.states import Runtime, TriggerType, VersionState

PAGE = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text()


def section(heading: str) -> str:
    return PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def keys_of(heading: str) -> set[str]:
    """What stands in the first column of the first table of a section."""
    first = [line.split("|")[1] for line in section(heading).splitlines() if line.startswith("| `")]
    return {name for cell in first for name in re.findall(r"`(\w+)`", cell)}


def test_the_example_can_be_applied() -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    found = parse_definitions(
        yaml.safe_load(example), catalogue=catalogue(), dimensions=list(dimensions()), presets=presets()
    )
    assert [pipeline.name for pipeline in found.pipelines] == ["calibration", "m17-maps"]


def test_every_key_and_state_of_a_version_is_explained() -> None:
    assert keys_of("Software") == set(SoftwareVersion.model_fields)
    named = set(re.findall(r"`(\w+)`", section("Software")))
    assert named - keys_of("Software") == {*VersionState, *Runtime}


def test_every_key_of_a_pipeline_is_explained() -> None:
    assert keys_of("A pipeline") == set(Pipeline.model_fields)


def test_every_key_of_a_step_is_explained() -> None:
    assert keys_of("A step") == set(Step.model_fields)


def test_every_resource_is_explained() -> None:
    assert {f"`{name}`" for name in Resources.model_fields} <= set(re.findall(r"`\w+`", section("A step")))


def test_every_key_of_a_calibration_rule_is_explained() -> None:
    assert keys_of("Calibrations") == {field.alias or name for name, field in Auxiliary.model_fields.items()}


def test_every_trigger_and_every_limit_is_explained() -> None:
    assert keys_of("When") == {"trigger", *TriggerType}
    assert {f"`{name}`" for name in Limits.model_fields} <= set(re.findall(r"`\w+`", PAGE.partition("## When")[2]))
