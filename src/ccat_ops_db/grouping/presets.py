"""Named rules with parameters: filled in before they are stored, so that a later edition of them changes nothing."""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any, Final

from ccat_ops_db.grouping.rules import InvalidRule, is_number
from ccat_ops_db.naming import listed, nearest, read_as

_PLACE: Final = re.compile(r"\{([a-z_]+)\}")
_KEYS: Final = ("preset", "with")


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
    if isinstance(rules, Mapping):
        if "preset" in rules:
            return {"all": _filled(rules, known, where)}
        return {key: expand(inner, known, where=f"{where}.{key}") for key, inner in rules.items()}
    if isinstance(rules, list | tuple):
        return [expand(inner, known, where=f"{where}[{index}]") for index, inner in enumerate(rules)]
    return rules


def _filled(rule: Mapping[str, Any], known: Mapping[str, Preset], where: str) -> Any:
    for key in rule:
        if key not in _KEYS:
            raise InvalidRule(f"{where}.{key}", f"a preset has no key `{key}`.{nearest(str(key), _KEYS)}")
    name = rule["preset"]
    if not isinstance(name, str) or name not in known:
        raise InvalidRule(f"{where}.preset", f"there is no preset `{name}`.{nearest(str(name), known)}")
    return _fill(known[name].rules, _arguments(name, known[name], rule.get("with", {}), where=f"{where}.with"))


def _arguments(name: str, preset: Preset, said: object, *, where: str) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise InvalidRule(where, f"it is a mapping with {listed(preset.parameters)}, not {said!r:.80}.")
    for key in said:
        if key not in preset.parameters:
            hint = nearest(str(key), preset.parameters)
            raise InvalidRule(f"{where}.{key}", f"preset `{name}` has no parameter `{key}`.{hint}")
    for key, kind in preset.parameters.items():
        if key not in said:
            raise InvalidRule(where, f"`{key}` is missing; preset `{name}` takes {listed(preset.parameters)}.")
        if not _ACCEPTS[kind](said[key]):
            hint = f" {read_as(said[key])}." if kind == "text" and isinstance(said[key], bool) else ""
            raise InvalidRule(f"{where}.{key}", f"it is {_WORDS[kind]}, not {said[key]!r:.80}.{hint}")
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


_ACCEPTS: Final[Mapping[str, Callable[[object], bool]]] = {
    "text": lambda value: isinstance(value, str) and bool(value),
    "number": is_number,
    "count": lambda value: isinstance(value, int) and is_number(value) and 0 < value <= 100_000,  # noqa: PLR2004 - days of all history
    "date": _is_date,
}
_WORDS: Final[Mapping[str, str]] = {
    "text": "text",
    "number": "a number",
    "count": "a whole number from 1 to 100000",
    "date": "a date such as 2026-04-01",
}
