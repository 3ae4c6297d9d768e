from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ccat_ops_db.states import Verdict

RECIPE_CHANGED: Final = "outdated: the recipe changed since its last attempt"
INPUTS_CHANGED: Final = "outdated: the inputs changed since its last attempt"
SAME_INPUTS: Final = "tried again with the same inputs"
FIXED_INPUTS: Final = "its inputs are fixed"
INPUTS_GONE: Final = "outdated: what it takes is gone, and nothing makes the same again"
UNAWAITED: Final = "not needed: no run waits for what it would make, where and as it would make it"
GONE: Final = "its sub-group is gone"


class Start(StrEnum):
    """What becomes of a PENDING run."""

    FRESH = "fresh"
    """It starts with the inputs of now."""
    AGAIN = "again"
    """It starts with the inputs of its earlier attempts."""
    FIXED = "fixed"
    """It starts with the inputs that were fixed when it was created."""
    WAIT = "wait"
    HOLD = "hold"
    """Only a limit is in the way."""
    NOT_NEEDED = "not_needed"


@dataclass(frozen=True)
class PendingRun:
    """What the decision depends on, beside its sub-group."""

    recipe_digest: str
    input_digest: str
    is_frozen: bool
    held: str | None = None
    """Why nothing of its pipeline starts, where that is so."""


@dataclass(frozen=True)
class Place:
    """The sub-group of a run as it is now."""

    verdict: Verdict
    because: str
    recipe_digest: str | None
    """What a run would be made with; None where no version is released."""
    input_digest: str
    lost_inputs: bool
    """Whether what a run would take from upstream is damaged or lost."""


def start(run: PendingRun, place: Place | None) -> tuple[Start, str]:
    """What becomes of a PENDING run, given its sub-group as it is now, and why."""
    if place is None:
        return Start.NOT_NEEDED, GONE
    if run.held is not None:
        return Start.WAIT, run.held
    if run.is_frozen:
        return _start_again(run, place)
    match place.verdict:
        case Verdict.WANTED:
            return Start.FRESH, place.because
        case Verdict.BLOCKED | Verdict.COOLING:
            return Start.WAIT, place.because
        case _:
            return Start.NOT_NEEDED, f"not needed: {place.because}"


def start_trial(run: PendingRun) -> tuple[Start, str]:
    """What becomes of a PENDING trial, and why: whatever its sub-group needs now."""
    return (Start.WAIT, run.held) if run.held is not None else (Start.FIXED, FIXED_INPUTS)


def start_recompute(run: PendingRun, place: Place | None, *, is_needed: bool) -> tuple[Start, str]:
    """What becomes of a PENDING run that makes again what was deleted, and why: it is others that need it."""
    if place is None:
        return Start.NOT_NEEDED, GONE
    if run.held is not None:
        return Start.WAIT, run.held
    return (Start.FIXED, FIXED_INPUTS) if is_needed else (Start.NOT_NEEDED, UNAWAITED)


def _start_again(run: PendingRun, place: Place) -> tuple[Start, str]:
    if place.recipe_digest is None:
        return Start.WAIT, place.because
    if place.lost_inputs:
        return Start.WAIT, "waits for what it takes to be made again: it is damaged or lost"
    if place.verdict is Verdict.UP_TO_DATE:
        return Start.NOT_NEEDED, f"not needed: {place.because}"
    if place.recipe_digest != run.recipe_digest:
        return Start.NOT_NEEDED, RECIPE_CHANGED
    if place.input_digest != run.input_digest:
        return Start.NOT_NEEDED, INPUTS_CHANGED
    return Start.AGAIN, SAME_INPUTS
