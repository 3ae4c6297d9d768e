"""What identifiers, versions and values look like in definitions."""

import json
import re
from datetime import timedelta
from typing import Annotated, Any, Final, TypeVar

from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ccat_ops_db.plan.ages import age

_IDENTIFIER: Final = r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?"
Item = TypeVar("Item")


def _pep440(version: str) -> str:
    try:
        Version(version)
    except InvalidVersion as error:
        raise ValueError(f"`{version}` is no version by PEP 440, such as 1.2.0") from error
    return version


def _json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"it has a value that JSON cannot hold: {error}") from error
    return found


def _identifier(name: str) -> str:
    if not re.fullmatch(_IDENTIFIER, name):
        raise ValueError(f"`{name}` is no identifier: lower-case letters, digits, `_`, `.` and `-` make one")
    return name


def _age(text: str) -> str:
    if not timedelta() < age(text) <= A_YEAR:
        raise ValueError(f"`{text}` must be more than nothing, and a year at most")
    return text


def not_empty(values: tuple[Item, ...]) -> tuple[Item, ...]:
    """The same; raises ValueError where there are none."""
    if not values:
        raise ValueError("it is empty")
    return values


Identifier = Annotated[str, Field(max_length=100), AfterValidator(_identifier)]
Age = Annotated[str, AfterValidator(_age)]
WholeNumber = Annotated[int, Field(strict=True)]
"""Neither `yes` nor text nor 1.0; what takes one bounds it, as databases do."""
VersionText = Annotated[str, AfterValidator(_pep440)]
Json = Annotated[dict[str, Any], AfterValidator(_json)]
A_YEAR: Final = timedelta(days=366)
MOST: Final = 10**9
"""Of whatever is counted: more than there ever is, and less than any database keeps."""


class Piece(BaseModel):
    """Part of a definition file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
