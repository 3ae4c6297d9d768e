"""Files that describe archived data beside them: whether one says what is known."""

import json
from dataclasses import dataclass
from typing import Any, Final

_VERSION: Final = "schema_version"


@dataclass(frozen=True)
class Flaw:
    """What is wrong with a description."""

    problem: str
    """As a predicate."""
    is_outdated: bool = False
    """Whether it is only of an earlier version: what it says is right, and there is more to say by now."""


def flaw(found: bytes | None, known: bytes) -> Flaw | None:
    """What is wrong with a description that was found; None where it says what is `known`, no less.

    Both are JSON objects; the same is always written in the same bytes.
    """
    if found == known:
        return None
    if found is None:
        return Flaw("is missing")
    told = _read(found)
    if told is None:
        return Flaw("cannot be read")
    wanted: dict[str, Any] = json.loads(known)
    if _is_earlier(told, wanted):
        return Flaw(f"is of version {told[_VERSION]}", is_outdated=True)
    others = sorted(name for name in {*told, *wanted} if told.get(name) != wanted.get(name))
    return Flaw(f"says something else of {', '.join(others)}" if others else "is written differently")


def _read(found: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(found)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _is_earlier(told: dict[str, Any], wanted: dict[str, Any]) -> bool:
    before, now = told.get(_VERSION), wanted.get(_VERSION)
    is_before = isinstance(before, int) and isinstance(now, int) and before < now
    return is_before and _is_part(told | {_VERSION: now}, wanted)


def _is_part(told: Any, wanted: Any) -> bool:
    """Whether all that is told is so; objects may have more."""
    match told, wanted:
        case dict(), dict():
            return all(name in wanted and _is_part(value, wanted[name]) for name, value in told.items())
        case list(), list():
            return len(told) == len(wanted) and all(map(_is_part, told, wanted))
        case _:
            return bool(told == wanted)
