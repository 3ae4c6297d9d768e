"""Numbers that people may say."""

import math
from typing import Final

import typer

MOST_GB: Final = 10_000_000
"""Ten petabytes: more than any one disk has, or any one line brings at a time."""


def finite(value: float | None) -> float | None:
    """The same number; `nan`, which no bound stops, is refused."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number that can be compared")
    return value
