"""The examples' definitions as the demo applies them. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any


def together(examples: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Several files of definitions as one."""
    sections: defaultdict[str, list[Any]] = defaultdict(list)
    for example in examples:
        for section, entries in example.items():
            sections[section] += entries
    return dict(sections)


def prepared(
    examples: Mapping[str, Any], *, environment: Path, truth_files: Mapping[str, Path], cooldown_seconds: int
) -> dict[str, Any]:
    """The examples for this machine: where software and, by config, the truth lie, and how long maps rest."""
    definitions = deepcopy(dict(examples))
    for software in definitions["software"]:
        for version in software["versions"]:
            version["environment"] = str(environment)
    for step in (step for pipeline in definitions["pipelines"] for step in pipeline["steps"]):
        if "cooldown_seconds" in step:
            step["cooldown_seconds"] = cooldown_seconds
    return with_parameters(definitions, {name: {"truth_file": str(file)} for name, file in truth_files.items()})


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
