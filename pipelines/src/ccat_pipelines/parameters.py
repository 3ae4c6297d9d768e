"""Parameters of a step: a dataclass of the step says their names, types, ranges and defaults."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from ccat_pipelines.errors import BadParameterError, UnknownParameterError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

P = TypeVar("P", bound="DataclassInstance")


@dataclass(frozen=True)
class Range:
    """The closed range that a number must be in; written as `Annotated[float, Range(0, 1)]`."""

    low: float
    high: float


Positive = Annotated[float, Range(1e-6, 1e6)]

_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text", NoneType: "null"}


def parse(kind: type[P], given: Mapping[str, Any]) -> P:
    """Make the step's parameters of what the configuration gives; anything unknown or of a wrong type is refused."""
    valid = [field.name for field in fields(kind)]
    for name in given:
        if name not in valid:
            raise UnknownParameterError(name, valid)
    hints = get_type_hints(kind, include_extras=True)
    return kind(**{field.name: _value(field, hints[field.name], given) for field in fields(kind)})


def _value(field: "Field[Any]", hint: Any, given: Mapping[str, Any]) -> Any:
    if field.name in given:
        return _checked(field.name, hint, given[field.name])
    if field.default is MISSING:
        raise BadParameterError(field.name, "given: it has no default", None)
    return field.default


def _checked(name: str, hint: Any, value: Any) -> Any:
    types, limits = _unpack(hint)
    if float in types and type(value) is int:
        value = float(value)
    if type(value) not in types or (isinstance(value, float) and not math.isfinite(value)):
        raise BadParameterError(name, " or ".join(_WORDS[kind] for kind in types), value)
    if limits and value is not None and not limits.low <= value <= limits.high:
        raise BadParameterError(name, f"between {limits.low:g} and {limits.high:g}", value)
    return value


def _unpack(hint: Any) -> tuple[list[type], Range | None]:
    """Split `Annotated[float, Range(0, 1)] | None` into its plain types and its range."""
    types: list[type] = []
    limits = None
    if get_origin(hint) is Annotated:
        return [get_args(hint)[0]], get_args(hint)[1]
    for part in get_args(hint) or (hint,):
        if get_origin(part) is Annotated:
            part, limits = get_args(part)  # noqa: PLW2901  # the bare type is what the rest is about
        types.append(part)
    return types, limits
