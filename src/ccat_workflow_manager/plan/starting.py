from dataclasses import dataclass
from enum import StrEnum

from ccat_ops_db.plan.evaluation import Candidate
from ccat_ops_db.plan.gap import Verdict


class Start(StrEnum):
    """What becomes of a PENDING run."""

    FRESH = "fresh"
    """It starts with the inputs of now."""
    AGAIN = "again"
    """It starts with the inputs of its earlier attempts."""
    WAIT = "wait"
    NOT_NEEDED = "not_needed"


@dataclass(frozen=True)
class PendingRun:
    """What the decision depends on, beside the gap."""

    recipe_digest: str
    input_digest: str
    is_frozen: bool
    is_enabled: bool
    """Whether its pipeline is."""


def start(run: PendingRun, candidate: Candidate | None) -> tuple[Start, str]:
    """What becomes of a PENDING run, given its sub-group as it is now, and why."""
    if candidate is None:
        return Start.NOT_NEEDED, "its sub-group is gone"
    decision = candidate.decision
    if not run.is_enabled:
        return Start.WAIT, "its pipeline is disabled"
    if run.is_frozen:
        return _start_again(run, candidate)
    match decision.verdict:
        case Verdict.WANTED:
            return Start.FRESH, decision.because
        case Verdict.BLOCKED | Verdict.COOLING:
            return Start.WAIT, decision.because
        case _:
            return Start.NOT_NEEDED, f"not needed: {decision.because}"


def _start_again(run: PendingRun, candidate: Candidate) -> tuple[Start, str]:
    if candidate.step.recipe is None:
        return Start.WAIT, candidate.decision.because
    if candidate.lost_inputs:
        return Start.WAIT, "waits for what it takes to be made again: it is damaged or lost"
    if candidate.decision.verdict is Verdict.UP_TO_DATE:
        return Start.NOT_NEEDED, f"not needed: {candidate.decision.because}"
    change = outdated(candidate, recipe_digest=run.recipe_digest, input_digest=run.input_digest)
    return (Start.NOT_NEEDED, change) if change else (Start.AGAIN, "tried again with the same inputs")


def outdated(candidate: Candidate, *, recipe_digest: str, input_digest: str) -> str | None:
    """What makes another try with this recipe and these inputs pointless; None where nothing does."""
    recipe = candidate.step.recipe
    if recipe is not None and recipe.digest != recipe_digest:
        return "outdated: the recipe changed since its last attempt"
    if candidate.input_digest != input_digest:
        return "outdated: the inputs changed since its last attempt"
    return None
