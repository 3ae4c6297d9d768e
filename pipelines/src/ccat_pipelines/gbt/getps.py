"""Step `getps`: an ON and an OFF scan with the noise diode switched, from counts to antenna temperature.

The textbook reduction, which reproduces GBTIDL's `getps`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccat_pipelines import fits
from ccat_pipelines.arrays import Floats
from ccat_pipelines.contract import Execution
from ccat_pipelines.errors import BadDataError

ONE_FILE = "group the step so that it gets one SDFITS file at a time"
TABLE = "SINGLE DISH"
EDGE = 0.1  # fraction of the band at either end that does not count for the system temperature
KEPT = ("OBJECT", "DATE-OBS", "SCAN", "EXPOSURE", "CTYPE1", "CRVAL1", "CRPIX1", "CDELT1", "RESTFREQ", "VELOCITY")
WANTS = ("PROCSCAN", "CAL", "TCAL", "DATA", *KEPT)


@dataclass(frozen=True)
class Parameters:
    """This step has none."""


class NotPositionSwitchedError(BadDataError):
    """The file does not hold one ON and one OFF, each with the noise diode on and off."""

    def __init__(self, path: Path, *, position: str, cal: str, found: int) -> None:
        """Name the file and the row that is not there, or not alone."""
        wanted = f"wants one row with PROCSCAN {position} and CAL {cal}, has {found}"
        super().__init__(f"{path}, HDU {TABLE}: {wanted}: give one ON and one OFF integration of one spectral window")


def run(execution: Execution) -> None:
    """Read the raw SDFITS file, write `getps.fits`: a row with DATA (antenna temperature, K) and TSYS."""
    parameters = execution.parameters(Parameters)
    raw = execution.only("raw", "*.fits", remedy=ONE_FILE)
    rows = fits.read(raw, wants={TABLE: WANTS}, checksums=False)[TABLE].data
    on, off = ({cal: _row(raw.path, rows, position=position, cal=cal) for cal in "TF"} for position in ("ON", "OFF"))
    t_sys = system_temperature(counts(off["T"]), counts(off["F"]), t_cal=float(off["F"]["TCAL"]))
    spectrum = antenna_temperature(
        (counts(on["T"]) + counts(on["F"])) / 2, (counts(off["T"]) + counts(off["F"])) / 2, t_sys=t_sys
    )
    kept = {name: [on["F"][name]] for name in KEPT}
    result = fits.table(TABLE, {**kept, "TSYS": [t_sys], "DATA": spectrum[None]}, {"TSYS": "K", "DATA": "K"})
    fits.write(execution.product("science", "getps.fits"), fits.primary({}, execution.stamp(parameters)), result)


def _row(path: Path, rows: Any, *, position: str, cal: str) -> Any:
    chosen = rows[(np.char.strip(rows["PROCSCAN"]) == position) & (rows["CAL"] == cal)]
    if len(chosen) != 1:
        raise NotPositionSwitchedError(path, position=position, cal=cal, found=len(chosen))
    return chosen[0]


def counts(row: Any) -> Floats:
    """Return the spectrum of a row."""
    return np.ravel(row["DATA"]).astype(np.float64)


def system_temperature(cal_on: Floats, cal_off: Floats, *, t_cal: float) -> float:
    """Return the system temperature, K, from the counts of OFF with and without the diode of `t_cal` kelvin.

    The spectrometer blanks bad channels with NaN; these do not count.
    """
    edge = int(EDGE * cal_off.size)
    inner = slice(edge, cal_off.size - edge + 1)  # as in IDL, the last channel is included
    return float(t_cal * np.nanmean(cal_off[inner]) / np.nanmean((cal_on - cal_off)[inner]) + t_cal / 2)


def antenna_temperature(on: Floats, off: Floats, *, t_sys: float) -> Floats:
    """Return the antenna temperature, K, from the counts at either position."""
    return t_sys * (on - off) / off
