"""The example's definitions as the demo applies them. Pure."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any


def prepared(
    example: Mapping[str, Any], *, environment: Path, truth_file: Path, cooldown_seconds: int
) -> dict[str, Any]:
    """The example for this machine: where its software and the truth lie, and how long maps rest."""
    definitions = deepcopy(dict(example))
    for software in definitions["software"]:
        for version in software["versions"]:
            version["environment"] = str(environment)
    for step in definitions["pipelines"][0]["steps"]:
        if "cooldown_seconds" in step:
            step["cooldown_seconds"] = cooldown_seconds
    return with_parameters(definitions, {"chai-check": {"truth_file": str(truth_file)}})


def with_parameters(definitions: Mapping[str, Any], parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The definitions with other parameters in some configs."""
    changed = deepcopy(dict(definitions))
    for config in changed["configs"]:
        config.update({"parameters": dict(parameters[config["name"]])} if config["name"] in parameters else {})
    return changed


def with_release(
    definitions: Mapping[str, Any], version: str, *, series: Mapping[str, str], environment: Path
) -> dict[str, Any]:
    """The definitions with one more version of some software, of the given compatibility series."""
    changed = deepcopy(dict(definitions))
    for software in changed["software"]:
        if software["name"] in series:
            place = {"version": version, "series": series[software["name"]], "environment": str(environment)}
            software["versions"].append({**software["versions"][-1], **place})
    return changed
