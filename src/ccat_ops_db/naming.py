from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Final

_MOST: Final = 20
"""Known names in one message, at most."""


def nearest(name: str, known: Collection[str]) -> str:
    """` Did you mean …?` with the nearest known name, else the known ones; says so where there are none."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f" Did you mean `{close[0]}`?"
    if not known:
        return " There is none yet."
    rest = len(known) - _MOST
    more = f" and {rest} more" if rest > 0 else ""
    return f" Known: {listed(sorted(known)[:_MOST])}{more}."


def listed(names: Iterable[str]) -> str:
    """Names in a sentence: `one`, `two`, each in backquotes."""
    return ", ".join(f"`{name}`" for name in names)
