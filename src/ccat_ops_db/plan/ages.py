"""Spans of time as people write them: `30m`, `12h`, `7d`."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

_UNITS: Final[Mapping[str, timedelta]] = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
}
_AGE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([mhd])")


def age(text: str) -> timedelta:
    """The span; raises ValueError where the text is none."""
    found = _AGE.fullmatch(text)
    if found is None:
        raise ValueError(f"`{text}` is no span of time, such as 30m, 12h or 7d")
    return float(found[1]) * _UNITS[found[2]]


def told(span: timedelta) -> str:
    """The span in the largest unit of which it is a whole number: `12 h`."""
    unit = next((one for one, length in _UNITS.items() if not span % length), "m")
    return f"{span / _UNITS[unit]:g} {unit}"
