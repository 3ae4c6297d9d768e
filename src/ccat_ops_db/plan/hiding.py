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
_NOT_A_NAME: Final = r"(?!(?<=unexpected[ ])token[\s:])(?!(?<=unrecognized[ ])token[\s:])"
"""Parsers call the text that they stumble over a token."""
_WORD: Final = rf"(?<![\w-]){_NOT_A_NAME}(?>[\w-]*?(?:{_NAME})[\w-]*)(?<!error)(?<!exception)(?<!warning)"
"""Atomic, as the time for a long word is quadratic otherwise."""
_OPTION: Final = rf"(?<![\w.-])(?>-[\w.-]*?(?:{_NAME})[\w.-]*)"
_VALUE: Final = rf"(?:(?:basic|bearer|digest|negotiate|token)\s+)?(?:{re.escape(HIDDEN)}(?!\w)|\"[^\"]*\"|'[^']*'|\S+)"
_PROSE: Final = (
    r"(?!(?:is|are|was|were|has|have|had|can|cannot|can't|could|must|may|should|will|would|does|did|do|not|no|none|"
    r"needs?|requires?|required|expects?|expected|missing|unable|failed|and|or|of|for|in|on|to|with|but|if|the|an?)"
    r"[.,;:!?)]*(?:\s|$))"
)
"""What follows is no word with which a sentence goes on: `--token cannot be empty`, `the bearer token has expired`."""

_ASSIGNED: Final = re.compile(
    rf"""(  {_WORD}["']?\s* (?: = | :(?=\s*["']|\S) ) \s*
          | (?<!/){_WORD}["']?\s*:\s+ {_PROSE}
          | {_OPTION} (?: \s+{_PROSE} | ["'],\s* )
          | \bbearer\s+ {_PROSE}(?!tokens?\b|auth)
          | \bauthorization\s+basic\s+
          | \bsetenv\s+{_WORD}\s+
          | \bpass(?:w\w*|phrase)\s+ (?=["'])              # as in SQL
          | \bmachine\s+\S+\s+login\s+\S+\s+password\s+    # as in .netrc
        ){_VALUE}""",
    re.IGNORECASE | re.VERBOSE,
)
"""Rather too much than too little: after such a name, all up to the next space.

White space alone sets a value apart only where nothing else is meant: names of secrets are words of errors too, as in
`unexpected token } in line 4`, `password authentication failed` or `/etc/passwd: No such file`.
"""

_SEPARATORS: Final = frozenset("=:, \t\n\r\f\v")
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
