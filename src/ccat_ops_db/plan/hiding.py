"""What looks like a secret is told by its name only: values that people and programs get to see."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

HIDDEN: Final = "(secret)"
"""Stands in the place of a value that is not shown."""

_NAME: Final = r"secret|passw|passphrase|token|credential|bearer|authorization|(?:api|access|private|ssh)[_-]?key"
_NAMES_ONE: Final = re.compile(rf"{_NAME}|[_-]key$|(?:^|[_-])(?:auth|pass|pwd)(?:$|[_-])", re.IGNORECASE)
_LOGIN: Final = re.compile(r"(?<=://)\S+(?=@)")
_VALUE: Final = r"(?:basic\s+|bearer\s+)?(?:\"[^\"]*\"|'[^']*'|\S+)"
_ASSIGNED: Final = re.compile(rf"((?:{_NAME})[\w-]*[\"']?(?:\s*[=:]\s*|\s+)){_VALUE}", re.IGNORECASE)
"""Rather too much than too little: after such a name, all up to the next space."""

_SEPARATORS: Final = frozenset("=: \t\n\r\f\v")
"""Without any of these, a text holds neither a login nor a secret after its name."""


def hide(path: Sequence[str | int], value: Any) -> Any:
    """The value as it may be shown: HIDDEN where a name on its path looks secret, without logins and passwords in text.

    Lists are read as argument lists, where an option such as `--token` may stand before its value.
    """
    if isinstance(value, Mapping):
        return {name: hide((*path, name), one) for name, one in value.items()}
    if value is not None and any(_names_a_secret(str(name)) for name in path):
        return HIDDEN
    if isinstance(value, list):
        return _arguments(value)
    return _text(value) if isinstance(value, str) else value


def seal(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables as they are recorded: what is secret in them is there by its digest only. Sealed ones stay as they are.

    So it can be told whether two executions had the same password, and none is read from what was recorded.
    """
    return {name: _sealed(name, value) for name, value in variables.items()}


def _sealed(name: str, value: str) -> str:
    if _SEPARATORS.isdisjoint(value) and not _names_a_secret(name):
        return value
    shown = hide((name,), value)
    if shown == value or HIDDEN in value:
        return value
    return f"{shown} sha256:{hashlib.sha256(value.encode()).hexdigest()}"


@lru_cache(maxsize=4096)
def _names_a_secret(name: str) -> bool:
    return _NAMES_ONE.search(name) is not None


def _arguments(words: Sequence[Any]) -> list[Any]:
    return [
        HIDDEN if _asks_for_one(before) else hide((), word) for before, word in zip(["", *words], words, strict=False)
    ]


def _asks_for_one(word: Any) -> bool:
    """Whether the next argument is a secret."""
    return isinstance(word, str) and word.startswith("-") and "=" not in word and _names_a_secret(word)


def _text(text: str) -> str:
    if _SEPARATORS.isdisjoint(text):  # as most paths and numbers, which are many
        return text
    return _ASSIGNED.sub(rf"\1{HIDDEN}", _LOGIN.sub(HIDDEN, text))
