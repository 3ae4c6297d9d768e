"""Files that describe archived data beside them: whether one says what is known."""

import json
from typing import Any


def flaw(found: bytes | None, known: bytes) -> str | None:
    """What is wrong with a description, that was found, as a predicate; None where it says what is `known`, no less.

    Both are JSON objects; the same is always written in the same bytes.
    """
    if found == known:
        return None
    if found is None:
        return "is missing"
    told = _read(found)
    if told is None:
        return "cannot be read"
    wanted: dict[str, Any] = json.loads(known)
    others = sorted(name for name in {*told, *wanted} if told.get(name) != wanted.get(name))
    return f"says something else of {', '.join(others)}" if others else "is written differently"


def _read(found: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(found)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None
