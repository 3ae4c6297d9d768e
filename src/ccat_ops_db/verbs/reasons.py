"""The reason that somebody gives for a decision; those who read it later have nothing else."""

from ccat_ops_db.errors import CcatError


class ReasonMissing(CcatError):
    """Something was decided without a word why."""

    code = "reason_missing"

    def __init__(self, outcome: str) -> None:
        super().__init__(f"Say why, for those who read it later: `--because` is empty. {outcome}")


def require_reason(because: str, *, outcome: str) -> None:
    """Raise ReasonMissing where nothing is said; `outcome` is a sentence, such as `Nothing was accepted.`."""
    if not because.strip():
        raise ReasonMissing(outcome)
