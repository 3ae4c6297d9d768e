"""What becomes of products that were deleted and that a run takes: which are made again, and what is told meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from ccat_ops_db.plan.sentences import Names

_NAMED: Final = 3


class Remake(StrEnum):
    """What is done about a sub-group whose products are gone and wanted."""

    CREATE = "create"
    UNDER_WAY = "under_way"
    """A run of it is active, whose products will do."""
    GIVEN_UP = "given_up"
    """It was tried with this recipe and these inputs, and failed for good or was cancelled."""
    UNRELEASED = "unreleased"
    """No version may make it."""
    CHANGED = "changed"
    """What it was made of is not to be had any more."""


@dataclass(frozen=True)
class Tried:
    """A run that was given up."""

    run_id: int
    failure: str | None
    """None of one that was cancelled."""


@dataclass(frozen=True, kw_only=True)
class Gone:
    """A sub-group whose newest completed run made something that a run takes, and of which nobody has a copy."""

    id: int
    place: str
    """Step and sub-group, as people read it."""
    command: str
    """What has it made of what is there now."""
    last_run_id: int
    """The run that is repeated."""
    active_run_id: int | None
    tried: Tried | None
    """The last one with the recipe and the inputs that a run would have, if that was given up."""
    is_released: bool
    """Whether some version may make it."""
    is_repeatable: bool
    """Whether all that the run took that made it is there, or can be made again itself."""


def remake(gone: Gone) -> Remake:
    """What is done to have the products of a sub-group again."""
    if gone.active_run_id is not None:
        return Remake.UNDER_WAY
    if not gone.is_released:
        return Remake.UNRELEASED
    if gone.tried is not None:
        return Remake.GIVEN_UP
    return Remake.CREATE if gone.is_repeatable else Remake.CHANGED


def waits(gone: Sequence[Gone]) -> str:
    """What a run waits for that takes products of some sub-groups, as a sentence; what nobody makes comes first."""
    order = sorted(gone, key=lambda one: (not _is_stuck(one), one.place))
    names = Names([_name(one) for one in order[:_NAMED]], len(order))
    return f"waits for products to be made again: {names}{_trouble(order[0])}"


def _name(gone: Gone) -> str:
    return gone.place if gone.active_run_id is None else f"{gone.place} (run {gone.active_run_id})"


def _is_stuck(gone: Gone) -> bool:
    return remake(gone) not in {Remake.CREATE, Remake.UNDER_WAY}


def _trouble(gone: Gone) -> str:
    """What keeps a sub-group from being made again, and what helps, as the end of a sentence."""
    match remake(gone):
        case Remake.CREATE | Remake.UNDER_WAY:
            return ""
        case Remake.GIVEN_UP:
            assert gone.tried is not None  # noqa: S101 - or it would not be given up; narrows the type
            return f"; {gone.place}: {_given_up(gone.tried, gone.command)}"
        case Remake.UNRELEASED:
            return f"; {gone.place}: no version of its software is released"
        case Remake.CHANGED:
            return f"; {gone.place}: what it was made of is gone, and `{gone.command}` makes it of what there is"
        case never:
            assert_never(never)


def _given_up(tried: Tried, command: str) -> str:
    if tried.failure is None:
        return f"run {tried.run_id} was cancelled, and `{command}` makes a new one"
    return f"run {tried.run_id} failed ({tried.failure}), and `ccat run retry {tried.run_id}` tries it again"
