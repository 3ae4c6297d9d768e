from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait after the n-th failure in a row: doubling from `first` to `ceiling`."""

    first: timedelta = timedelta(seconds=1)
    ceiling: timedelta = timedelta(minutes=1)

    def delay(self, failures: int, *, jitter: float) -> timedelta:
        """Pause after `failures` ≥ 1; `jitter` in [0, 1] spreads it over its upper half, so that crowds disperse."""
        doublings = min(failures - 1, 32)  # past any sensible ceiling, and short of overflow
        return min(self.ceiling, self.first * (1 << doublings)) * (0.5 + 0.5 * jitter)


def first_line(error: BaseException) -> str:
    """The sentence of an error without the essay that drivers append."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
