"""What happens in the two nights, and exactly which runs must follow from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ccat.demo.instruments import CHAI, PRIME_CAM
from ccat_ops_db.states import RunReason

FIRST_VERSION: Final = "1.0.0"
NEXT_VERSION: Final = "1.1.0"
RELEASED: Final[Mapping[str, str]] = {"chai-baseline": "2", "chai-gridding": "1"}
"""Software that is released anew, and the compatibility series of its next version; the first ones are of series 1."""

ALL_SCANS: Final = "all scans"
CHECK: Final = "check"
"""Step whose quality metrics are the science values."""


@dataclass(frozen=True)
class ExpectedRun:
    """A run that must be made, and complete: of what, why, and with which version."""

    instrument: str
    step: str
    subject: str
    reason: RunReason
    version: str = FIRST_VERSION


@dataclass(frozen=True)
class ExpectedWait:
    """Something that cannot be made yet, and how it is said why."""

    pipeline: str
    step: str
    subject: str
    because: str
    """The beginning of it."""


@dataclass(frozen=True, kw_only=True)
class Act:
    """Something happens, and the system does what is necessary, and nothing else."""

    title: str
    tale: str
    observed: Sequence[str] = ()
    """Scans that the telescope executes."""
    arriving: Sequence[str] = ()
    """Scans whose raw files come, together."""
    is_release: bool = False
    expected: Sequence[ExpectedRun]
    waiting: Sequence[ExpectedWait] = ()
    """All that cannot be done yet in the end, in the pipelines that this names."""


def _of_scan(number: int) -> list[ExpectedRun]:
    """What follows from a scan of CHAI, except for maps."""
    return [ExpectedRun(CHAI.name, step, f"scan {number}", RunReason.MISSING) for step in ("calibrate", "baseline")]


def _maps(*, night: int, of_night: RunReason, of_all: RunReason) -> list[ExpectedRun]:
    """Maps of CHAI."""
    return [
        ExpectedRun(CHAI.name, "grid", ALL_SCANS, of_all),
        ExpectedRun(CHAI.name, "grid-night", f"night {night}", of_night),
        ExpectedRun(CHAI.name, CHECK, ALL_SCANS, of_all),
    ]


def _of_night(night: int) -> list[ExpectedRun]:
    """What follows once Prime-Cam has both planet and field of a night."""
    steps = ("calibrate-planet", "map", "fit", CHECK)
    return [ExpectedRun(PRIME_CAM.name, step, f"night {night}", RunReason.MISSING) for step in steps]


def _again(step: str, subject: str, reason: RunReason) -> ExpectedRun:
    """A run of CHAI with the new release."""
    return ExpectedRun(CHAI.name, step, subject, reason, NEXT_VERSION)


_FIELD: Final = {
    1: ("science scan 1", "science scan 2", "science scan 3"),
    2: ("science scan 4", "science scan 5", "science scan 6"),
}
"""Scans of Prime-Cam's field, by night."""
_WITHOUT_PLANET: Final = tuple(
    ExpectedWait("prime-cam-maps", step, "night 1", f"waits for {what} ")
    for step, what in (("map", "calibration of prime-cam-calibration/calibrate-planet"), ("fit", "map"), (CHECK, "fit"))
)
"""What is held up while the planet of night one is late."""

STORY: Final = (
    Act(
        title="Night one",
        tale="CHAI observes three scans, of which two arrive; the file of scan 3 is late. Each is calibrated and "
        "baselined at once; the maps rest a little, as more scans may follow. Prime-Cam observes a planet and then "
        "its field; the file of the planet is late too, so the map of the field waits for a calibration.",
        observed=("scan 1", "scan 2", "scan 3", "planet scan 1", *_FIELD[1]),
        arriving=("scan 1", "scan 2", *_FIELD[1]),
        expected=[*_of_scan(1), *_of_scan(2), *_maps(night=1, of_night=RunReason.MISSING, of_all=RunReason.MISSING)],
        waiting=_WITHOUT_PLANET,
    ),
    Act(
        title="Night two",
        tale="Scan 4 of CHAI is observed and arrives. The map of this night is new, the map of all scans has to be "
        "made again; that of night one is left alone. All of Prime-Cam arrives: its map takes the calibration of this "
        "night. The map of night one still waits: a calibration of another night is none for it.",
        observed=("scan 4", "planet scan 2", *_FIELD[2]),
        arriving=("scan 4", "planet scan 2", *_FIELD[2]),
        expected=[
            *_of_scan(4),
            *_maps(night=2, of_night=RunReason.MISSING, of_all=RunReason.INPUTS_CHANGED),
            *_of_night(2),
        ],
        waiting=_WITHOUT_PLANET,
    ),
    Act(
        title="The late files",
        tale="Scan 3 of night one arrives at last, and so does the planet. Only what depends on them runs: new maps of "
        "CHAI, and the map of Prime-Cam that waited; the maps of night two stay.",
        arriving=("scan 3", "planet scan 1"),
        expected=[
            *_of_scan(3),
            *_maps(night=1, of_night=RunReason.INPUTS_CHANGED, of_all=RunReason.INPUTS_CHANGED),
            *_of_night(1),
        ],
    ),
    Act(
        title="A new release",
        tale="chai-baseline 1.1.0 has a new compatibility series, so every baseline is done again, and every map made "
        "of them. chai-gridding 1.1.0 keeps its series: that alone is no reason, but the new maps are made with it. "
        "Calibrations stay, and so does all of Prime-Cam.",
        is_release=True,
        expected=[
            *(_again("baseline", f"scan {n}", RunReason.RECIPE_CHANGED) for n in (1, 2, 3, 4)),
            _again("grid", ALL_SCANS, RunReason.UPSTREAM_CHANGED),
            *(_again("grid-night", f"night {n}", RunReason.UPSTREAM_CHANGED) for n in (1, 2)),
            ExpectedRun(CHAI.name, CHECK, ALL_SCANS, RunReason.UPSTREAM_CHANGED),
        ],
    ),
)


class FaultName(StrEnum):
    """What may be made to go wrong, so that one sees that the demo notices it."""

    OLD_OPACITY = "old-opacity"
    SKIP_BASELINE = "skip-baseline"
    SCAN_TWICE = "scan-twice"
    DROP_SCAN = "drop-scan"
    OLD_EPHEMERIS = "old-ephemeris"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """How the performance departs from the story; what is expected stays the same."""

    tale: str = ""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Config name → parameters that it has instead of its own."""
    dropped: frozenset[str] = frozenset()
    """Scans that never arrive."""
    doubled: frozenset[str] = frozenset()
    """Scans whose raw file is registered a second time, as another scan."""


FAULTS: Final[Mapping[FaultName | None, Fault]] = {
    None: Fault(),
    FaultName.OLD_OPACITY: Fault(
        tale="Calibration of CHAI uses an opacity of 0.4 that was measured long ago.",
        parameters={"chai-calibration": {"opacity": 0.4}},
    ),
    FaultName.SKIP_BASELINE: Fault(
        tale="Baselines and standing waves are left in the spectra.",
        parameters={"chai-baseline": {"enabled": False}},
    ),
    FaultName.SCAN_TWICE: Fault(
        tale="The raw file of scan 1 is registered a second time, as a scan of its own.", doubled=frozenset({"scan 1"})
    ),
    FaultName.DROP_SCAN: Fault(tale="Scan 2 never arrives.", dropped=frozenset({"scan 2"})),
    FaultName.OLD_EPHEMERIS: Fault(
        tale="Prime-Cam is calibrated with the flux that the planet had long ago: 24 Jy.",
        parameters={"prime-cam-planet": {"planet_flux_jy": 24.0}},
    ),
}
