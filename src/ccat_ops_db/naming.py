from collections.abc import Collection, Iterable, Iterator, Sequence
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


def read_as(value: object) -> str:
    """Why true or false stands where somebody wrote a word, and what to do."""
    true, words = ("true", "`yes`, `on` and `true`") if value else ("false", "`no`, `off` and `false`")
    return f"YAML reads {words} as {true}; write it in quotes"


def list_problems(names: Sequence[str], where: str, *, known: Collection[str], what: str) -> Iterator[str]:
    """What is wrong with a list of known names, each at most once: one sentence each, with its place."""
    for index, name in enumerate(names):
        if name not in known:
            meant = [one for one in known if "." in name or "." not in one]  # columns where it looks like one
            yield f"{where}[{index}]: there is no {what} `{name}`.{nearest(name, meant)}"
        elif name in names[:index]:
            yield f"{where}[{index}]: `{name}` stands twice."
