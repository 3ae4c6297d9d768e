"""What happens in the two nights, and exactly which runs must follow from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ccat_ops_db.states import RunReason

FIRST_VERSION: Final = "1.0.0"
NEXT_VERSION: Final = "1.1.0"
RELEASED: Final[Mapping[str, str]] = {"chai-baseline": "2", "chai-gridding": "1"}
"""Software that is released anew, and the compatibility series of its next version; the first ones are of series 1."""

ALL_SCANS: Final = "all scans"
CHECK: Final = "check"
"""Step whose quality metrics are the science values."""
FIGURES: Final = (
    "peak_ratio",
    "flux_ratio",
    "position_error_arcsec",
    "width_arcsec",
    "rms_ratio",
    "broken_pixels_found",
    "good_pixels_flagged",
)
"""Quality metrics of that step, each with its band."""


@dataclass(frozen=True)
class ExpectedRun:
    """A run that must be made, and complete: of what, why, and with which version."""

    step: str
    subject: str
    reason: RunReason
    version: str = FIRST_VERSION


@dataclass(frozen=True, kw_only=True)
class Act:
    """Something happens, and the system does what is necessary, and nothing else."""

    title: str
    tale: str
    observed: Sequence[int] = ()
    """Scans that the telescope executes."""
    arriving: Sequence[int] = ()
    """Scans whose raw files come, together."""
    is_release: bool = False
    expected: Sequence[ExpectedRun]


def _scan(number: int) -> list[ExpectedRun]:
    return [ExpectedRun(step, f"scan {number}", RunReason.MISSING) for step in ("calibrate", "baseline")]


def _maps(*, night: int, of_night: RunReason, of_all: RunReason) -> list[ExpectedRun]:
    return [
        ExpectedRun("grid", ALL_SCANS, of_all),
        ExpectedRun("grid-night", f"night {night}", of_night),
        ExpectedRun(CHECK, ALL_SCANS, of_all),
    ]


STORY: Final = (
    Act(
        title="Night one",
        tale="Three scans are observed, two of them arrive; the file of scan 3 is late. Each is calibrated and "
        "baselined at once; the maps rest a little, as more scans may follow.",
        observed=(1, 2, 3),
        arriving=(1, 2),
        expected=[*_scan(1), *_scan(2), *_maps(night=1, of_night=RunReason.MISSING, of_all=RunReason.MISSING)],
    ),
    Act(
        title="Night two",
        tale="Scan 4 is observed and arrives. The map of this night is new, the map of all scans has to be made again; "
        "that of night one is left alone.",
        observed=(4,),
        arriving=(4,),
        expected=[*_scan(4), *_maps(night=2, of_night=RunReason.MISSING, of_all=RunReason.INPUTS_CHANGED)],
    ),
    Act(
        title="The late scan",
        tale="Scan 3 of night one arrives at last. Only what depends on it runs; the map of night two stays.",
        arriving=(3,),
        expected=[*_scan(3), *_maps(night=1, of_night=RunReason.INPUTS_CHANGED, of_all=RunReason.INPUTS_CHANGED)],
    ),
    Act(
        title="A new release",
        tale="chai-baseline 1.1.0 has a new compatibility series, so every baseline is done again, and every map made "
        "of them. chai-gridding 1.1.0 keeps its series: that alone is no reason, but the new maps are made with it. "
        "Calibrations stay.",
        is_release=True,
        expected=[
            *(ExpectedRun("baseline", f"scan {n}", RunReason.RECIPE_CHANGED, NEXT_VERSION) for n in (1, 2, 3, 4)),
            ExpectedRun("grid", ALL_SCANS, RunReason.UPSTREAM_CHANGED, NEXT_VERSION),
            *(ExpectedRun("grid-night", f"night {n}", RunReason.UPSTREAM_CHANGED, NEXT_VERSION) for n in (1, 2)),
            ExpectedRun(CHECK, ALL_SCANS, RunReason.UPSTREAM_CHANGED),
        ],
    ),
)


class FaultName(StrEnum):
    """What may be made to go wrong, so that one sees that the demo notices it."""

    OLD_OPACITY = "old-opacity"
    SKIP_BASELINE = "skip-baseline"
    SCAN_TWICE = "scan-twice"
    DROP_SCAN = "drop-scan"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """How the performance departs from the story; what is expected stays the same."""

    tale: str = ""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Config name → parameters that it has instead of its own."""
    dropped: frozenset[int] = frozenset()
    """Scans that never arrive."""
    doubled: frozenset[int] = frozenset()
    """Scans whose raw file is registered a second time, as another scan."""


FAULTS: Final[Mapping[FaultName | None, Fault]] = {
    None: Fault(),
    FaultName.OLD_OPACITY: Fault(
        tale="Calibration uses an opacity of 0.4 that was measured long ago.",
        parameters={"chai-calibration": {"opacity": 0.4}},
    ),
    FaultName.SKIP_BASELINE: Fault(
        tale="Baselines and standing waves are left in the spectra.",
        parameters={"chai-baseline": {"enabled": False}},
    ),
    FaultName.SCAN_TWICE: Fault(
        tale="The raw file of scan 1 is registered a second time, as a scan of its own.", doubled=frozenset({1})
    ),
    FaultName.DROP_SCAN: Fault(tale="Scan 2 never arrives.", dropped=frozenset({2})),
}
