import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Final

_MOST: Final = 20
"""Known names in one message, at most."""
_LONGEST: Final = 80
"""Characters of a value in a message, at most."""


def nearest(name: str, known: Collection[str]) -> str:
    """` Did you mean …?` with the nearest known name, else the known ones; says so where there are none."""
    if close := closest(name, known):
        return f" Did you mean `{close}`?"
    if not known:
        return " There is none yet."
    rest = len(known) - _MOST
    more = f" and {rest} more" if rest > 0 else ""
    return f" Known: {listed(sorted(known)[:_MOST])}{more}."


def closest(name: str, known: Collection[str]) -> str | None:
    """The known name that is most like it, foremost the same one in other case; None where none is like it."""
    same = [one for one in known if one.casefold() == name.casefold()]
    return next(iter(same or get_close_matches(name, known, n=1, cutoff=0.6)), None)


def shown(value: object) -> str:
    """A value as it may stand in a file, which is not how Python writes it; the beginning of a long one."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # nothing that came out of a file
        text = repr(value)
    return text.encode("utf-8", "backslashreplace").decode()[:_LONGEST]


def unknown(what: str, name: object, known: Collection[str]) -> str:
    """That there is no such thing of that name, with the nearest one; what stands for the name may be anything."""
    said = name[:_LONGEST] if isinstance(name, str) else shown(name)
    meant = [one for one in known if "." in said or "." not in one]  # `Table.column` where it looks like one
    return f"there is no {what} `{said}`.{nearest('' if name is None else said, meant or known)}"


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
            yield f"{where}[{index}]: {unknown(what, name, known)}"
        elif name in names[:index]:
            yield f"{where}[{index}]: `{name}` stands twice."
