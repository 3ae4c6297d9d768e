"""What identifiers, versions and values look like in definitions."""

import json
import math
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Final, TypeVar

from packaging.version import Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ccat_ops_db.plan.ages import age

_IDENTIFIER: Final = r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?"
_DIGEST: Final = r"sha256:[0-9a-f]{64}"
Item = TypeVar("Item")


def _pep440(version: str) -> str:
    try:
        Version(version)
    except ValueError as error:  # InvalidVersion is one; so is more digits than Python reads
        raise ValueError(f"`{version}` is no version by PEP 440, such as 1.2.0") from error
    return version


def _json(value: dict[str, Any]) -> dict[str, Any]:
    for place in _endless(value, ""):
        raise ValueError(f"`{place}` is no finite number, and JSON holds no other; text goes in quotes")
    try:
        found: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"it has a value that JSON cannot hold: {error}") from error
    return found


def _endless(value: object, place: str) -> Iterator[str]:
    """Places of infinity and of what is no number."""
    match value:
        case float() if not math.isfinite(value):
            yield place.removeprefix(".")
        case dict():
            for key, inner in value.items():
                yield from _endless(inner, f"{place}.{key}")
        case list():
            for index, inner in enumerate(value):
                yield from _endless(inner, f"{place}[{index}]")


def _identifier(name: str) -> str:
    if not re.fullmatch(_IDENTIFIER, name):
        raise ValueError(f"`{name}` is no identifier: lower-case letters, digits, `_`, `.` and `-` make one")
    return name


def _age(text: str) -> str:
    if not timedelta() < age(text) <= A_YEAR:
        raise ValueError(f"`{text}` must be more than nothing, and a year at most")
    return text


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty")
    return text


def _digest(text: str) -> str:
    if not re.fullmatch(_DIGEST, text):
        raise ValueError(f"`{text:.80}` is no digest: `sha256:` and 64 digits, each 0 to 9 or a to f, make one")
    return text


def _pattern(text: str) -> str:
    if not {"", ".", ".."}.isdisjoint(text.split("/")):
        raise ValueError(f"`{text}` matches no product: give a path or pattern within the output, such as maps/*.fits")
    return text


def _scheduler_name(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError(f"`{text:.80}` is no name at a cluster: it has neither white space nor letters beyond ASCII")
    return text


def _environment(values: dict[str, str]) -> dict[str, str]:
    for name in values:
        if not name.strip() or "=" in name:
            raise ValueError(f"`{name}` is no name of an environment variable: it is not empty and has no `=`")
    return values


def not_empty(values: tuple[Item, ...]) -> tuple[Item, ...]:
    """The same; raises ValueError where there are none."""
    if not values:
        raise ValueError("it is empty")
    return values


Identifier = Annotated[str, Field(max_length=100), AfterValidator(_identifier)]
Age = Annotated[str, AfterValidator(_age)]
WholeNumber = Annotated[int, Field(strict=True)]
"""Neither `yes` nor text nor 1.0; what takes one bounds it, as databases do."""
Number = Annotated[float, Field(strict=True)]
"""Neither `yes` nor text; a whole one will do."""
Switch = Annotated[bool, Field(strict=True)]
"""True or false, which 1 and `off` in quotes are not."""
Text = Annotated[str, AfterValidator(_text)]
"""Of what has to say something."""
VersionText = Annotated[str, Field(max_length=100), AfterValidator(_pep440)]
Digest = Annotated[str, AfterValidator(_digest)]
OutputPattern = Annotated[str, AfterValidator(_pattern)]
SchedulerName = Annotated[str, Field(max_length=200), AfterValidator(_scheduler_name)]
Environment = Annotated[dict[str, str], AfterValidator(_environment)]
Json = Annotated[dict[str, Any], AfterValidator(_json)]
A_YEAR: Final = timedelta(days=366)
MOST: Final = 10**9
"""Of whatever is counted: more than there ever is, and less than any database keeps."""


class Piece(BaseModel):
    """Part of a definition file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
