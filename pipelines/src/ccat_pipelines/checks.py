"""Figures of reduced simulations against the truth that these were made of."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccat_pipelines.contract import Execution
from ccat_pipelines.errors import BadConfigurationError, StepError


@dataclass(frozen=True)
class Check:
    """A figure of the map and the band that it has to be in."""

    name: str
    value: float
    low: float
    high: float

    @property
    def ok(self) -> bool:
        """Whether the value is in its band."""
        return self.low <= self.value <= self.high


class TruthError(BadConfigurationError):
    """The truth file is not there, or is not that of these scans."""

    def __init__(self, path: str, *, problem: object, maker: str) -> None:
        """Name the file, what is wrong with it, and the command that writes it."""
        super().__init__(f"truth_file {path}: {problem}: give the truth.json that `{maker}` wrote with the scans")


class OutOfBandError(StepError):
    """The map disagrees with the truth."""

    def __init__(self, checks: Sequence[Check]) -> None:
        """Name every value that is out of its band."""
        super().__init__(
            "out of band: " + ", ".join(f"{c.name} = {c.value:.4g} not in {c.low:g}…{c.high:g}" for c in checks)
        )


@contextmanager
def truth(path: str, *, maker: str) -> Iterator[Any]:
    """Give the content of a truth file; whatever the block does not find in it is a TruthError."""
    try:
        yield json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise TruthError(path, problem=error.strerror, maker=maker) from error
    except KeyError as error:
        raise TruthError(path, problem=f"does not know {error}", maker=maker) from error
    except (ValueError, TypeError) as error:
        raise TruthError(path, problem=error, maker=maker) from error


def conclude(execution: Execution, checks: Sequence[Check], *, scans: set[str], fail_out_of_band: bool) -> None:
    """Write `qa/metrics.json` and `qa/report.json`, then raise OutOfBandError if that was asked for."""
    execution.write_json("metrics.json", metrics(checks))
    execution.write_json("report.json", report(checks, scans))
    failed = [check for check in checks if not check.ok]
    if failed and fail_out_of_band:
        raise OutOfBandError(failed)


def metrics(checks: Sequence[Check]) -> dict[str, float]:
    """Return every value with its band, and whether all are in theirs, as flat numbers."""
    figures: dict[str, float] = {"in_band": int(all(check.ok for check in checks))}
    for check in checks:
        figures |= {check.name: check.value, f"{check.name}_low": check.low, f"{check.name}_high": check.high}
    return figures


def report(checks: Sequence[Check], scans: set[str]) -> dict[str, Any]:
    """Return the checks for people and programs that want to know what failed."""
    rows = [{"name": c.name, "value": c.value, "band": [c.low, c.high], "ok": c.ok} for c in checks]
    return {"in_band": all(check.ok for check in checks), "scans": sorted(scans), "checks": rows}
