"""Whether what a rule says can be meant: names that exist, values of the type of their column. Pure."""

import json
import math
import re
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias, cast

from ccat_ops_db.grouping.rules import (
    AllOf,
    AnyOf,
    Condition,
    Cone,
    InvalidRule,
    Node,
    Not,
    Operator,
    is_number,
    is_storable,
)
from ccat_ops_db.naming import listed, nearest, read_as, shown, unknown

Catalogue: TypeAlias = Mapping[str, Mapping[str, type]]
"""Table → column → type of its values, `dict` for JSON: everything that a rule may name."""


@dataclass(frozen=True)
class Now:
    """A moment relative to that of the evaluation."""

    offset: timedelta


@dataclass(frozen=True)
class Json:
    """A JSON value as its text, so that it can be a key: a list cannot, and `true` would be taken for 1."""

    text: str


Scalar: TypeAlias = str | int | float | bool | date | datetime | uuid.UUID
Value: TypeAlias = Scalar | Now | Json


@dataclass(frozen=True)
class Test:
    """A checked condition; `values` are one, or as many as `in` and `between` take."""

    table: str
    column: str
    kind: type
    operator: Operator
    values: tuple[Value, ...]
    json_path: tuple[str, ...] = ()


Checked: TypeAlias = "Test | Cone | AnyOf | AllOf | Not"

ORDER: Final = frozenset({Operator.GT, Operator.GTE, Operator.LT, Operator.LTE, Operator.BETWEEN})
"""Operators that ask which of two values comes first."""
_SETS: Final = frozenset({Operator.IN, Operator.NOT_IN})
_PATTERNS: Final = frozenset({Operator.LIKE, Operator.ILIKE})
_LARGEST_INTEGER: Final = 2**63 - 1
_UNITS: Final = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_OFFSET: Final = re.compile(
    r"(?P<sign>[+-]?)(?=[0-9])(?P<parts>" + "".join(f"(?:[0-9]{{1,6}}{unit})?" for unit in _UNITS) + ")"
)
_PART: Final = re.compile(r"([0-9]+)([wdhms])")
_HELD: Final[Mapping[type, str]] = {
    str: "text",
    int: "whole numbers",
    float: "numbers",
    bool: "true or false",
    datetime: "moments, such as `2026-04-01T18:30:00Z`",
    date: "dates, such as `2026-04-01`",
    uuid.UUID: "UUIDs, such as `5a0c0a4e-0000-4000-8000-000000000001`",
}
_EXAMPLES: Final[Mapping[type, str]] = {
    datetime: "moment that there is, such as `2026-04-01T18:30:00Z`",
    date: "date that there is, such as `2026-04-01`",
    uuid.UUID: "UUID, such as `5a0c0a4e-0000-4000-8000-000000000001`",
}
"""What is written as text, and how."""


def check_rules(rules: AllOf, catalogue: Catalogue) -> AllOf:
    """The same tree with a Test for each condition; raises InvalidRule with the place and the nearest valid name."""
    checked = _check(rules, catalogue)
    return checked if isinstance(checked, AllOf) else AllOf((checked,))


def uses_now(node: Node | Test) -> bool:
    """Whether what a rule selects changes with time alone."""
    return any(isinstance(value, Now) for test in tests(node) for value in test.values)


def without_now(node: Node, *, selects: bool = True) -> AllOf:
    """The tree that selects what this one selects at any moment; within `not` that is turned round."""
    return AllOf((_without_now(node, selects=selects),))


def _without_now(node: Node | Test, *, selects: bool) -> Node:
    match node:
        case Test() if any(isinstance(value, Now) for value in node.values):
            return AllOf(()) if selects else AnyOf(())
        case AnyOf():
            return AnyOf(tuple(_without_now(member, selects=selects) for member in node.members))
        case AllOf():
            return AllOf(tuple(_without_now(member, selects=selects) for member in node.members))
        case Not():
            return Not(_without_now(node.member, selects=not selects))
        case _:
            return cast("Node", node)


def tests(node: Node | Test) -> Iterator[Test]:
    """Every condition of a checked tree."""
    match node:
        case Test():
            yield node
        case AnyOf() | AllOf():
            for member in node.members:
                yield from tests(member)
        case Not():
            yield from tests(node.member)
        case Cone() | Condition():
            return


def _check(node: Node, catalogue: Catalogue) -> Node:
    match node:
        case Condition():
            return cast("Node", _test(node, catalogue))
        case Cone():
            return node
        case AnyOf():
            return AnyOf(tuple(_check(member, catalogue) for member in node.members))
        case AllOf():
            return AllOf(tuple(_check(member, catalogue) for member in node.members))
        case Not():
            return Not(_check(node.member, catalogue))


def _test(said: Condition, catalogue: Catalogue) -> Test:
    where = said.place
    table = _table(said.table, catalogue, where=f"{where}.table")
    column = _known(said.column, catalogue[table], what=f"column of {table}", where=f"{where}.column")
    operator = Operator(_known(said.operator, list(Operator), what="operator", where=f"{where}.operator"))
    kind = catalogue[table][column]
    if said.json_path and kind is not dict:
        raise InvalidRule(f"{where}.json_path", f"{table}.{column} holds no JSON, but {_held(kind)}.")
    if not fits(operator, kind, is_path=bool(said.json_path)):
        raise InvalidRule(f"{where}.operator", _misfit(operator, f"{table}.{column}", kind))
    values = tuple(_values(operator, said, kind))
    return Test(table, column, kind, operator, values, said.json_path)


def fits(operator: Operator, kind: type, *, is_path: bool = False) -> bool:
    """Whether values of this type can be compared so; `is_path` says that they lie within JSON."""
    if operator is Operator.IS_NULL or is_path:
        return True
    if kind is dict:
        return operator is Operator.CONTAINS
    if operator in _PATTERNS or operator is Operator.CONTAINS:
        return kind is str
    return operator not in ORDER or not issubclass(kind, bool | StrEnum | uuid.UUID)


def _misfit(operator: Operator, column: str, kind: type) -> str:
    if kind is dict:
        return f"{column} is JSON: name what lies in it by `json_path`, or use `contains` or `is_null`."
    those = listed(other for other in Operator if fits(other, kind))
    return f"`{operator}` does not go with {column}, which holds {_held(kind)}; these do: {those}."


def _held(kind: type) -> str:
    """What a column of this type holds, in words of people."""
    return _HELD.get(kind) or f"one of {listed(cast('type[StrEnum]', kind))}"


def _table(name: object, catalogue: Catalogue, *, where: str) -> str:
    ways = [one for one in sorted(catalogue) if one.endswith(f".{name}")]
    if name not in list(catalogue) and len(ways) > 1:
        choices = " or ".join(f"`{way}`" for way in ways)
        raise InvalidRule(where, f"several ways lead to `{name}`; say which one is meant: {choices}.")
    return _known(name, catalogue, what="table", where=where)


def _known(name: object, known: Collection[str], *, what: str, where: str) -> str:
    if not isinstance(name, str) or name not in known:
        raise InvalidRule(where, unknown(what, name, known))
    return name


def _values(operator: Operator, said: Condition, kind: type) -> Iterator[Value]:
    where, value = f"{said.place}.value", said.value
    scalar = _json_value if said.json_path else _column_value
    if operator is Operator.IS_NULL:
        yield _boolean(value, where)
    elif operator in _SETS:
        if not isinstance(value, list) or not value:
            raise InvalidRule(where, f"this operator takes a list of values, not {shown(value)}.")
        for index, one in enumerate(value):
            yield scalar(one, kind, f"{where}[{index}]", operator=operator)
    elif operator is Operator.BETWEEN:
        ends = enumerate(_pair(value, where))
        found = [scalar(one, kind, f"{where}[{index}]", operator=operator) for index, one in ends]
        yield from _range(value, found, where)
    else:
        yield scalar(value, kind, where, operator=operator)


def _boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidRule(where, f"this operator takes true or false, not {shown(value)}.")
    return value


def _pair(value: object, where: str) -> list[object]:
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 - the two ends
        raise InvalidRule(where, f"this operator takes a list of the lower and the upper end, not {shown(value)}.")
    return value


def _range(said: object, ends: list[Value], where: str) -> list[Value]:
    if isinstance(ends[0], str) is not isinstance(ends[1], str):
        raise InvalidRule(where, f"both ends are of one type, not {shown(said)}.")
    low, high = (one.offset if isinstance(one, Now) else one for one in ends)
    if type(low) is type(high) and low > high:  # type: ignore[operator]  # of one type, which has an order
        raise InvalidRule(where, f"the lower end comes first: {shown(said)} is an empty range.")
    return ends


def _json_value(value: object, _kind: type, where: str, *, operator: Operator) -> Value:
    """A value to be compared with what lies within JSON; it must be of a type that the comparison makes sense for."""
    is_plain = is_number(value) or isinstance(value, str)
    if operator in _PATTERNS and not isinstance(value, str):
        raise InvalidRule(where, f"this operator takes text, not {shown(value)}.")
    _check_text(value, operator, where)
    if operator in ORDER and not is_plain:
        raise InvalidRule(where, f"this operator takes a number or text, not {shown(value)}.")
    may_be = (str, int, float, dict, list) if operator is Operator.CONTAINS else (str, int, float)
    if not isinstance(value, may_be):
        raise InvalidRule(where, f"this operator takes a number, text, true or false, not {shown(value)}.")
    frozen = _frozen(value, where)
    return cast("Scalar", value) if is_plain else frozen


def _check_text(value: object, operator: Operator, where: str) -> None:
    """Refuse what is no pattern, and what every text contains."""
    if operator in _PATTERNS and isinstance(value, str) and (len(value) - len(value.rstrip("\\"))) % 2:
        problem = f"`{value}` ends in a backslash with nothing after it; a backslash itself is written `\\\\`."
        raise InvalidRule(where, problem)
    if operator is Operator.CONTAINS and value == "":
        raise InvalidRule(where, "it is empty, and every text contains that; `is_null` says whether there is one.")


def _frozen(value: object, where: str) -> Json:
    try:
        text = json.dumps(value, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRule(where, f"{shown(value)} is no value that JSON can hold.") from error
    if not all(map(is_storable, _texts(value))):
        raise InvalidRule(where, f"{shown(value)} has a character that the database cannot hold.")
    return Json(text)


def _texts(value: object) -> Iterator[str]:
    """All text within a JSON value, also its keys."""
    match value:
        case str():
            yield value
        case dict():
            for part in (*value, *value.values()):
                yield from _texts(part)
        case list():
            for part in value:
                yield from _texts(part)


def _column_value(value: object, kind: type, where: str, *, operator: Operator) -> Value:
    if kind is dict:
        frozen = _frozen(value, where)
        if not isinstance(value, dict | list):
            raise InvalidRule(where, f"without `json_path` this operator takes a part of JSON, not {shown(value)}.")
        return frozen
    if isinstance(value, Mapping):
        return _now(value, kind, where)
    scalar = _scalar(value, kind, where)
    _check_text(scalar, operator, where)
    return scalar


def _now(value: Mapping[object, object], kind: type, where: str) -> Now:
    if not issubclass(kind, date):
        raise InvalidRule(where, f"the column holds {_held(kind)}, not {shown(value)}.")
    for key in value:
        if key != "now":
            raise InvalidRule(f"{where}.{key}", f"a relative time has no key `{key}`.{nearest(str(key), ['now'])}")
    offset = value.get("now")
    found = _OFFSET.fullmatch(offset) if isinstance(offset, str) else None
    if found is None:
        wanted = 'a relative time is written {"now": "-7d"}, in units of w, d, h, m and s, the larger ones first'
        raise InvalidRule(where, f"{wanted}, not {shown(value)}.")
    total = sum((timedelta(**{_UNITS[unit]: int(n)}) for n, unit in _PART.findall(found["parts"])), timedelta())
    if total > timedelta(days=36525):
        raise InvalidRule(where, f"`{offset}` is more than a hundred years.")
    return Now(-total if found["sign"] == "-" else total)


def _scalar(value: object, kind: type, where: str) -> Scalar:
    if issubclass(kind, StrEnum):
        members = [member.value for member in kind]
        if not isinstance(value, str) or value.lower() not in members:
            said = value if isinstance(value, str) else shown(value)
            hint = f" {read_as(value)}." if isinstance(value, bool) else nearest(said, members)
            raise InvalidRule(where, f"`{said:.80}` is no {kind.__name__}.{hint}")
        return kind(value.lower())
    if issubclass(kind, date | uuid.UUID) and isinstance(value, str):
        return _from_text(value, kind, where)
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        hint = f" {read_as(value)}." if isinstance(value, bool) and kind is str else ""
        raise InvalidRule(where, f"the column holds {_held(kind)}, not {shown(value)}.{hint}")
    _check_range(value, where)
    return cast("Scalar", value)


def _check_range(value: object, where: str) -> None:
    """Refuse what no column can be compared with."""
    if isinstance(value, str) and not is_storable(value):
        raise InvalidRule(where, f"{shown(value)} has a character that the database cannot hold.")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRule(where, f"{value} is no finite number.")
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise InvalidRule(where, f"{shown(value)} is beyond any value of the column.")


def _from_text(value: str, kind: type[date] | type[uuid.UUID], where: str) -> Scalar:
    try:
        parsed = kind(value) if issubclass(kind, uuid.UUID) else kind.fromisoformat(value)
    except ValueError as error:
        raise InvalidRule(where, f"`{value:.80}` is no {_EXAMPLES[kind]}.") from error
    if isinstance(parsed, datetime) and parsed.tzinfo is None:
        raise InvalidRule(where, f"`{value}` has no time zone; write `{parsed.isoformat()}Z` for UTC.")
    return parsed
