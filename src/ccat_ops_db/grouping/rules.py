"""What a rule says, as written: its shape is checked here, its names and values in `checking`."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias, TypeGuard

from ccat_ops_db.errors import CcatError
from ccat_ops_db.naming import listed, nearest, shown

MOST_NESTED: Final = 20
"""Levels of any, all and not within one another."""


class Operator(StrEnum):
    """How a column is compared with the value of a rule."""

    EQ = "eq"
    NEQ = "neq"
    IN = "in"
    NOT_IN = "not_in"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    LIKE = "like"
    ILIKE = "ilike"
    BETWEEN = "between"
    IS_NULL = "is_null"
    CONTAINS = "contains"


@dataclass(frozen=True)
class Condition:
    """One column compared with a value; with `json_path`, what lies there within the column."""

    place: str
    table: Any
    column: Any
    operator: Any
    value: Any
    json_path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cone:
    """A circle on the sky: ICRS, degrees."""

    place: str
    ra_deg: float
    dec_deg: float
    radius_deg: float


@dataclass(frozen=True)
class AnyOf:
    """What at least one of these selects."""

    members: tuple["Node", ...]


@dataclass(frozen=True)
class AllOf:
    """What all of these select; none of them select everything."""

    members: tuple["Node", ...]


@dataclass(frozen=True)
class Not:
    """Every package that this does not select."""

    member: "Node"


Node: TypeAlias = Condition | Cone | AnyOf | AllOf | Not


class InvalidRule(CcatError):
    """A filter rule that says nothing that could be meant."""

    code = "invalid_rule"

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where, self.problem = where, problem


_REQUIRED: Final = ("table", "column", "operator", "value")
_CONDITION: Final = (*_REQUIRED, "json_path")
_CIRCLE: Final[Mapping[str, tuple[float, float]]] = {
    "ra_deg": (0, 360),
    "dec_deg": (-90, 90),
    "radius_deg": (0, 180),
}
"""Keys of a cone, and the range of each; the right ascension stays below its upper end."""
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
"""NUL, and halves of characters, which no text in PostgreSQL has."""
_OF_OTHERS: Final = re.compile(r"^[$/{]|(^|\.)\*(\.|$)|\[([0-9]+|\*|'.*'|\".*\")\]|->")
"""Paths of JSONPath, JSON Pointer and PostgreSQL, which would be taken for names of keys."""
_JOINTS: Final = re.compile(r"->>?|[$./{},'\"\[\]]+")


def parse_rules(rules: object, *, where: str = "rules") -> AllOf:
    """The rules of a list, which a package must all match; raises InvalidRule with the place."""
    return AllOf(_members(rules, where, 0))


def _members(rules: object, where: str, depth: int) -> tuple[Node, ...]:
    if not isinstance(rules, list | tuple):
        raise InvalidRule(where, f"it is a list of rules, not {shown(rules)}.")
    if depth > MOST_NESTED:
        raise InvalidRule(where, f"rules are nested more than {MOST_NESTED} levels deep.")
    return tuple(_parse(rule, f"{where}[{index}]", depth) for index, rule in enumerate(rules))


def _parse(rule: object, where: str, depth: int) -> Node:
    if not isinstance(rule, Mapping):
        raise InvalidRule(where, f"a rule is a mapping, not {shown(rule)}.")
    for key, parse in _COMPOUND.items():
        if key in rule:
            for other in rule:
                if other != key:
                    raise InvalidRule(f"{where}.{other}", f"beside `{key}` a rule has no other key.")
            return parse(rule[key], f"{where}.{key}", depth + 1)
    return _condition(rule, where)


def _any(value: object, where: str, depth: int) -> Node:
    members = _members(value, where, depth)
    if not members:
        raise InvalidRule(where, "it is empty, and would select nothing.")
    return AnyOf(members)


def _all(value: object, where: str, depth: int) -> Node:
    members = _members(value, where, depth)
    if not members:
        raise InvalidRule(where, "it is empty, and would select everything.")
    return AllOf(members)


def _not(value: object, where: str, depth: int) -> Node:
    if depth > MOST_NESTED:
        raise InvalidRule(where, f"rules are nested more than {MOST_NESTED} levels deep.")
    return Not(_parse(value, where, depth))


def _cone(value: object, where: str, _depth: int) -> Node:
    if not isinstance(value, Mapping):
        raise InvalidRule(where, f"a cone is a mapping with {listed(_CIRCLE)}, not {shown(value)}.")
    _refuse_unknown(value, list(_CIRCLE), what="cone", where=where)
    numbers = {key: _coordinate(value, key, where) for key in _CIRCLE}
    return Cone(where, **numbers)


def _coordinate(cone: Mapping[str, Any], key: str, where: str) -> float:
    low, high = _CIRCLE[key]
    if key not in cone:
        raise InvalidRule(where, f"`{key}` is missing; a cone has {listed(_CIRCLE)}.")
    value = cone[key]
    if not is_number(value) or not low <= value <= high or (key == "ra_deg" and value == high):
        raise InvalidRule(f"{where}.{key}", f"it is a number of degrees from {low:g} to {high:g}, not {shown(value)}.")
    return float(value)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a number as people mean it, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_storable(text: str) -> bool:
    """Whether the database can hold this text."""
    return _UNSTORABLE.search(text) is None


_COMPOUND: Final[Mapping[str, Callable[[object, str, int], Node]]] = {
    "any": _any,
    "all": _all,
    "not": _not,
    "cone": _cone,
}


def _condition(rule: Mapping[str, Any], where: str) -> Condition:
    _refuse_unknown(rule, [*_CONDITION, *_COMPOUND, "preset"], what="rule", where=where)
    for key in _REQUIRED:
        if key not in rule:
            others = f"or one of {listed(_COMPOUND)}"
            raise InvalidRule(where, f"`{key}` is missing; a rule has {listed(_REQUIRED)}, {others}.")
    path = _json_path(rule["json_path"], f"{where}.json_path") if "json_path" in rule else ()
    table, column, operator, value = (rule[key] for key in _REQUIRED)
    return Condition(where, table, column, operator, value, path)


def _json_path(path: object, where: str) -> tuple[str, ...]:
    if isinstance(path, str) and _is_json_path(path):
        return tuple(path.split("."))
    meant = ".".join(filter(None, map(str.strip, _JOINTS.split(path)))) if isinstance(path, str) else ""
    hint = f" Did you mean `{meant}`?" if _is_json_path(meant) else ""
    wanted = "names joined by dots, with numbers for items of lists, such as `spectra.0.frequency_ghz`"
    raise InvalidRule(where, f"it is {wanted}, not {shown(path)}.{hint}")


def _is_json_path(path: str) -> bool:
    parts = path.split(".")
    return is_storable(path) and not _OF_OTHERS.search(path) and all(part and part == part.strip() for part in parts)


def _refuse_unknown(mapping: Mapping[str, Any], known: Sequence[str], *, what: str, where: str) -> None:
    for key in mapping:
        if key not in known:
            raise InvalidRule(f"{where}.{key}", f"a {what} has no key `{key}`.{nearest(str(key), known)}")
