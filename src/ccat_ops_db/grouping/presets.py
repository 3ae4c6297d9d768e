"""Named rules with parameters: filled in before they are stored, so that a later edition of them changes nothing."""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any, Final

from ccat_ops_db.grouping.checking import Catalogue, check_rules
from ccat_ops_db.grouping.rules import AllOf, InvalidRule, is_number, parse_rules
from ccat_ops_db.naming import listed, nearest, read_as, shown, unknown

_PLACE: Final = re.compile(r"\{([a-z_]+)\}")
_PART: Final = re.compile(r"\[[0-9]+\]|\.[^.\[]+")
"""A step on the way to a place."""
_KEYS: Final = ("preset", "with")
_NESTING: Final = ("any", "all", "not")
"""Keys of a rule below which there are rules."""


@dataclass(frozen=True)
class Preset:
    """Rules with gaps, and the type of what fills each gap."""

    description: str
    parameters: Mapping[str, str]
    rules: Sequence[Any]


@cache
def presets() -> Mapping[str, Preset]:
    """The presets that are shipped, by name."""
    text = files("ccat_ops_db").joinpath("grouping/presets.toml").read_text()
    return {name: Preset(**content) for name, content in tomllib.loads(text).items()}


def expand(rules: Any, known: Mapping[str, Preset], *, where: str = "rules") -> Any:
    """The same rules with what each preset stands for in its place; raises InvalidRule where one is not used rightly.

    Whatever else is wrong with the rules is left to their own checks.
    """
    if not isinstance(rules, list | tuple):
        return rules
    return [_expanded(rule, known, where=f"{where}[{index}]") for index, rule in enumerate(rules)]


def _expanded(rule: Any, known: Mapping[str, Preset], *, where: str) -> Any:
    if not isinstance(rule, Mapping):
        return rule
    if "preset" in rule:
        return {"all": _filled(rule, known, where)}
    expanded = dict(rule)
    for key in (key for key in _NESTING if key in rule):
        below = _expanded if key == "not" else expand
        expanded[key] = below(rule[key], known, where=f"{where}.{key}")
    return expanded


def check_written(
    rules: Any, catalogue: Catalogue, known: Mapping[str, Preset], *, where: str = "rules"
) -> tuple[Any, AllOf]:
    """Rules as people write them, with their presets filled in: as they are stored, and checked.

    Raises InvalidRule with the place in what was written: of a preset, its parameter.
    """
    expanded = expand(rules, known, where=where)
    try:
        return expanded, check_rules(parse_rules(expanded, where=where), catalogue)
    except InvalidRule as error:
        raise InvalidRule(_place_written(error.where, rules, known, where=where), error.problem) from error


def _place_written(place: str, rules: Any, known: Mapping[str, Preset], *, where: str) -> str:
    """The place in the rules with presets that a place in the same rules without them comes from."""
    at, *rest = rules, *_PART.findall(place.removeprefix(where))
    for index, part in enumerate(rest):
        if isinstance(at, Mapping) and "preset" in at:
            return where + _parameter(known[at["preset"]], rest[index:])
        if not part.startswith("[") and part[1:] not in _NESTING:
            break
        at, where = _inside(at, part), where + part
    return place


def _parameter(preset: Preset, way: Sequence[str]) -> str:
    """Where a preset is used, the place of what fills the end of a way through its rules."""
    if len(way) == 1:
        return ""  # all of it
    at: Any = {"all": preset.rules}
    for part in way:
        at = _inside(at, part)
    names = set(_PLACE.findall(str(at)))
    return f".with.{names.pop()}" if len(names) == 1 else ".with" * bool(names)


def _inside(value: Any, part: str) -> Any:
    """What lies there; where nothing does, the same, so that what it is part of tells for it."""
    key = int(part[1:-1]) if part.startswith("[") else part[1:]
    try:
        return value[key]
    except (KeyError, IndexError, TypeError):
        return value


def _filled(rule: Mapping[str, Any], known: Mapping[str, Preset], where: str) -> Any:
    for key in rule:
        if key not in _KEYS:
            raise InvalidRule(f"{where}.{key}", f"a preset has no key `{key}`.{nearest(str(key), _KEYS)}")
    name = rule["preset"]
    if not isinstance(name, str) or name not in known:
        raise InvalidRule(f"{where}.preset", unknown("preset", name, known))
    return _fill(known[name].rules, _arguments(name, known[name], rule.get("with", {}), where=f"{where}.with"))


def _arguments(name: str, preset: Preset, said: object, *, where: str) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise InvalidRule(where, f"it is a mapping with {listed(preset.parameters)}, not {shown(said)}.")
    for key in said:
        if key not in preset.parameters:
            hint = nearest(str(key), preset.parameters)
            raise InvalidRule(f"{where}.{key}", f"preset `{name}` has no parameter `{key}`.{hint}")
    for key, kind in preset.parameters.items():
        if key not in said:
            raise InvalidRule(where, f"`{key}` is missing; preset `{name}` takes {listed(preset.parameters)}.")
        if not _ACCEPTS[kind](said[key]):
            hint = f" {read_as(said[key])}." if kind == "text" and isinstance(said[key], bool) else ""
            problem = f"it is {_WORDS[kind]}, not {shown(said[key])}.{hint}" if said[key] != "" else "it is empty."
            raise InvalidRule(f"{where}.{key}", problem)
    return said


def _fill(value: Any, arguments: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _fill(inner, arguments) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, arguments) for inner in value]
    if not isinstance(value, str):
        return value
    whole = _PLACE.fullmatch(value)
    return arguments[whole[1]] if whole else _PLACE.sub(lambda found: str(arguments[found[1]]), value)


def _is_date(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(date.fromisoformat(value))
    except ValueError:
        return False


_MOST: Final = 36_525
"""Days of a hundred years, which is as far as relative times reach."""
_ACCEPTS: Final[Mapping[str, Callable[[object], bool]]] = {
    "text": lambda value: isinstance(value, str) and bool(value),
    "number": is_number,
    "count": lambda value: isinstance(value, int) and is_number(value) and 0 < value <= _MOST,
    "date": _is_date,
}
_WORDS: Final[Mapping[str, str]] = {
    "text": "text",
    "number": "a number",
    "count": f"a whole number from 1 to {_MOST}",
    "date": "a date that there is, such as 2026-04-01",
}
