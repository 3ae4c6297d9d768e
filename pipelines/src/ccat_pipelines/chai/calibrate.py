"""Step `calibrate`: one raw scan, from counts to antenna temperature above the atmosphere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ccat_pipelines import fits
from ccat_pipelines.arrays import Floats
from ccat_pipelines.chai import spectra
from ccat_pipelines.chai.scan import LAYOUT, Scan, spectral_axis, write_scan
from ccat_pipelines.contract import Execution
from ccat_pipelines.errors import BadDataError
from ccat_pipelines.parameters import Range

RAW = {
    **LAYOUT,
    "PRIMARY": (*LAYOUT["PRIMARY"], "TAU", "FEFF", "THOT", "TCOLD"),
    "POINTING": (*LAYOUT["POINTING"], "MODE"),
}
ONE_SCAN = "group the step by executed_obs_unit and instrument_module, so that it gets one scan at a time"


class IncompleteScanError(BadDataError):
    """A scan cannot be calibrated, as a kind of integration is missing."""

    def __init__(self, path: Path, missing: set[str]) -> None:
        """Name the file and what it lacks."""
        super().__init__(f"{path}, HDU POINTING: no integration {' or '.join(sorted(missing))}: withdraw the scan")


@dataclass(frozen=True)
class Parameters:
    """What the configuration may say; null means: as the observatory measured it, from the header.

    Attributes:
        opacity: at zenith, neper.
        forward_efficiency: coupling to the sky.
    """

    opacity: Annotated[float, Range(0, 5)] | None = None
    forward_efficiency: Annotated[float, Range(0.1, 1)] | None = None


def run(execution: Execution) -> None:
    """Read the raw scan, write `calibrated.fits`."""
    parameters = execution.parameters(Parameters)
    raw = execution.only("raw", "*.fits", remedy=ONE_SCAN)
    units = fits.read(raw, wants=RAW)
    missing = {"HOT", "COLD", "OFF", "ON"} - set(fits.columns(units["POINTING"])["MODE"])
    if missing:
        raise IncompleteScanError(raw.path, missing)
    with np.errstate(divide="ignore", invalid="ignore"):  # a dead pixel has no gain; `baseline` flags it
        scan = calibrate(units, parameters)
    write_scan(execution.product("science", "calibrated.fits"), scan, execution.stamp(parameters))


def calibrate(units: Any, parameters: Parameters) -> Scan:
    """Return the ON integrations of a raw scan as antenna temperature, K, each less its nearest OFF."""
    header, counts, pointing = units["PRIMARY"].header, fits.native(units["SPECTRA"]), fits.columns(units["POINTING"])
    mode = pointing.pop("MODE")
    hot, cold = counts[mode == "HOT"].mean(axis=0), counts[mode == "COLD"].mean(axis=0)
    loads = {"t_hot": header["THOT"], "t_cold": header["TCOLD"]}
    gain = spectra.counts_per_kelvin(hot, cold, **loads)
    trx = spectra.receiver_temperature(hot, cold, **loads)
    on, off = {k: v[mode == "ON"] for k, v in pointing.items()}, {k: v[mode == "OFF"] for k, v in pointing.items()}
    nearest = spectra.nearest_in_time(on["TIME"], off["TIME"])
    coupling = _coupling(header, parameters, on["ELEVATION"])
    t_off = counts[mode == "OFF"] / gain
    signal = counts[mode == "ON"] / gain
    signal -= t_off[nearest]
    signal /= coupling[:, None, None]
    t_sys = np.median(t_off, axis=(0, 2)) / np.median(coupling)
    return Scan(
        header=header,
        axis=spectral_axis(units["SPECTRA"].header, 1),
        spectra=signal,
        pointing={**on, "OFF": nearest, "OFFEXPO": off["EXPOSURE"][nearest]},
        pixels={**fits.columns(units["PIXELS"]), "TRX": np.median(trx, axis=-1), "TSYS": t_sys},
    )


def _coupling(header: Any, parameters: Parameters, elevation_deg: Floats) -> Floats:
    """Return which fraction of a source's temperature reaches the receiver, by integration."""
    opacity = header["TAU"] if parameters.opacity is None else parameters.opacity
    efficiency = header["FEFF"] if parameters.forward_efficiency is None else parameters.forward_efficiency
    return (efficiency * spectra.transmission(opacity, elevation_deg)).astype(np.float32)
