"""A rule as a sentence, so that people can read what they are about to select. Pure."""

from datetime import timedelta
from enum import StrEnum
from typing import Final

from ccat_ops_db.grouping.checking import Json, Now, Test, Value
from ccat_ops_db.grouping.rules import AllOf, AnyOf, Cone, Node, Not, Operator

_WORDS: Final = {
    Operator.EQ: "is",
    Operator.NEQ: "is not",
    Operator.IN: "is one of",
    Operator.NOT_IN: "is none of",
    Operator.GT: "is above",
    Operator.GTE: "is at least",
    Operator.LT: "is below",
    Operator.LTE: "is at most",
    Operator.LIKE: "is like",
    Operator.ILIKE: "is like, in any case,",
    Operator.BETWEEN: "is between",
    Operator.CONTAINS: "contains",
}


def sentence(rules: AllOf) -> str:
    """What checked rules select, in one sentence."""
    if not rules.members:
        return "All archived packages."
    return f"Archived packages for which {_told(rules, nested=False)}."


def _told(node: Node | Test, *, nested: bool = True) -> str:
    match node:
        case AllOf():
            return _joined(node.members, " and ", nested=nested)
        case AnyOf():
            return _joined(node.members, " or ", nested=nested)
        case Not():
            return f"it is not so that {_told(node.member)}"
        case Cone():
            centre = f"RA {node.ra_deg:g}°, Dec {node.dec_deg:g}°"
            return f"the source is within {node.radius_deg:g}° of {centre}"
        case Test():
            return _test(node)
        case _:
            raise TypeError(f"{node} was not checked")


def _joined(members: tuple[Node, ...], word: str, *, nested: bool) -> str:
    text = word.join(_told(member) for member in members)
    return f"({text})" if nested and len(members) > 1 else text


def _test(test: Test) -> str:
    what = f"{test.table}.{test.column}" + "".join(f".{part}" for part in test.json_path)
    if test.operator is Operator.IS_NULL:
        return f"{what} is {'not ' if not test.values[0] else ''}missing"
    values = [_value(value) for value in test.values]
    if test.operator is Operator.BETWEEN:
        return f"{what} is between {' and '.join(values)}"
    return f"{what} {_WORDS[test.operator]} {', '.join(values)}"


def _value(value: Value) -> str:
    match value:
        case Now():
            return _moment(value.offset)
        case Json():
            return value.text
        case StrEnum() | str():
            return f"`{value}`"
        case _:
            return str(value)


def _moment(offset: timedelta) -> str:
    if not offset:
        return "now"
    length = str(abs(offset)).removesuffix(", 0:00:00")
    return f"{length} {'ago' if offset < timedelta() else 'from now'}"
