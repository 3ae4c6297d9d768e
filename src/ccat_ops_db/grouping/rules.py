import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final, cast

from ccat_ops_db.errors import CcatError
from ccat_ops_db.naming import nearest

Value = str | int | float | bool | date | datetime | uuid.UUID
Catalogue = Mapping[str, Mapping[str, type]]
"""Table → column → type of its values: everything that a rule may name."""


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


_SETS: Final = frozenset({Operator.IN, Operator.NOT_IN})
_LARGEST_INTEGER: Final = 2**63 - 1
_ORDER: Final = frozenset({Operator.GT, Operator.GTE, Operator.LT, Operator.LTE})
_KEYS: Final = ("table", "column", "operator", "value")


@dataclass(frozen=True)
class Rule:
    """One checked condition on one column."""

    table: str
    column: str
    operator: Operator
    value: Value | tuple[Value, ...]


class InvalidRule(CcatError):
    """A filter rule that says nothing that could be meant."""

    code = "invalid_rule"

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")


def parse_rules(rules: Sequence[Mapping[str, Any]], catalogue: Catalogue, *, where: str = "rules") -> tuple[Rule, ...]:
    """Checked rules, which a package must all match; raises InvalidRule with the place and the nearest valid name."""
    return tuple(_parse(rule, catalogue, f"{where}[{index}]") for index, rule in enumerate(rules))


def _parse(rule: Mapping[str, Any], catalogue: Catalogue, where: str) -> Rule:
    for key in rule:
        if key not in _KEYS:
            raise InvalidRule(f"{where}.{key}", f"a rule has no key `{key}`.{nearest(key, _KEYS)}")
    for key in _KEYS:
        if key not in rule:
            raise InvalidRule(where, f"`{key}` is missing; a rule has {', '.join(f'`{one}`' for one in _KEYS)}.")
    table = _known(rule["table"], catalogue, what="table", where=f"{where}.table")
    column = _known(rule["column"], catalogue[table], what=f"column of {table}", where=f"{where}.column")
    operator = Operator(_known(rule["operator"], list(Operator), what="operator", where=f"{where}.operator"))
    kind = catalogue[table][column]
    if not fits(operator, kind):
        problem = f"`{operator}` does not go with {table}.{column}, which is of type {kind.__name__}."
        raise InvalidRule(f"{where}.operator", problem)
    value = _value(rule["value"], kind, takes_list=operator in _SETS, where=f"{where}.value")
    return Rule(table, column, operator, value)


def fits(operator: Operator, kind: type) -> bool:
    """Whether values of this type can be compared so: `like` is for text, and what is true or false has no order."""
    if operator is Operator.LIKE:
        return kind is str
    return kind is not bool or operator not in _ORDER


def _known(name: object, known: Collection[str], *, what: str, where: str) -> str:
    if not isinstance(name, str) or name not in known:
        raise InvalidRule(where, f"there is no {what} `{name}`.{nearest(str(name), known)}")
    return name


def _value(value: object, kind: type, *, takes_list: bool, where: str) -> Value | tuple[Value, ...]:
    if not takes_list:
        return _scalar(value, kind, where)
    if not isinstance(value, list) or not value:
        raise InvalidRule(where, f"this operator takes a list of values, not {value!r}.")
    return tuple(_scalar(one, kind, f"{where}[{index}]") for index, one in enumerate(value))


def _scalar(value: object, kind: type, where: str) -> Value:
    if issubclass(kind, StrEnum):
        members = [member.value for member in kind]
        if not isinstance(value, str) or value.lower() not in members:
            raise InvalidRule(where, f"`{value}` is no {kind.__name__}.{nearest(str(value).lower(), members)}")
        return kind(value.lower())
    if issubclass(kind, date | uuid.UUID) and isinstance(value, str):
        return _from_text(value, kind, where)
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InvalidRule(where, f"{value!r} is not of type {kind.__name__}, as the column is.")
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise InvalidRule(where, f"{value} is larger than any value of the column.")
    return cast("Value", value)


def _from_text(value: str, kind: type[date] | type[uuid.UUID], where: str) -> Value:
    try:
        parsed = kind(value) if issubclass(kind, uuid.UUID) else kind.fromisoformat(value)
    except ValueError as error:
        raise InvalidRule(where, f"`{value}` is no {kind.__name__}; moments and dates are ISO 8601.") from error
    if isinstance(parsed, datetime) and parsed.tzinfo is None:
        raise InvalidRule(where, f"`{value}` has no time zone; write `{parsed.isoformat()}Z` for UTC.")
    return parsed
