"""A verdict and the sentence that goes with it."""

from collections.abc import Sequence
from typing import Final

from ccat_workflow_manager.contract.values import Verdict

Said = tuple[Verdict, str]
_MOST: Final = 3


def kept(said: str) -> Said:
    """It is as the contract says."""
    return Verdict.KEPT, said


def warned(said: str) -> Said:
    """It works, but."""
    return Verdict.WARNED, said


def broken(said: str) -> Said:
    """It is not as the contract says."""
    return Verdict.BROKEN, said


def not_judged(said: str) -> Said:
    """Nothing can be said, and why."""
    return Verdict.NOT_JUDGED, said


def printable(text: str) -> str:
    """Text that a line can hold, whatever names software has given: what no terminal shows is written as an escape."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def some(names: Sequence[str]) -> str:
    """The first of several names, and how many others there are."""
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
