"""Step `baseline`: take off the baseline and the standing wave, flag broken pixels, weigh every spectrum."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from ccat_pipelines.arrays import Booleans, Floats
from ccat_pipelines.chai import spectra
from ccat_pipelines.chai.scan import Scan, read_scan, write_scan
from ccat_pipelines.contract import Execution
from ccat_pipelines.errors import BadConfigurationError
from ccat_pipelines.parameters import Positive, Range

AFTER_CALIBRATE = "make the step depend on one `chai calibrate` step and group both alike"
SEARCHED_SPECTRA = 256


class LineWindowError(BadConfigurationError):
    """The line window leaves too few channels for a baseline."""

    def __init__(self, half_width_kms: float) -> None:
        """Name the width that was asked for."""
        super().__init__(f"line_half_width_kms {half_width_kms:g} leaves less than a quarter of the band: narrow it")


@dataclass(frozen=True)
class Parameters:
    """What the configuration may say.

    Attributes:
        enabled: false leaves the spectra as they are.
        order: of the polynomial.
        sinusoids: pairs of cosine and sine: the standing wave and its harmonics; 0 for none.
        line_half_width_kms: channels this near to the source's velocity are not fitted.
        flag_threshold: a pixel this many times noisier than the median one is flagged.
    """

    enabled: bool = True
    order: Annotated[int, Range(0, 12)] = 3
    sinusoids: Annotated[int, Range(0, 4)] = 2
    line_half_width_kms: Positive = 100.0
    flag_threshold: Annotated[float, Range(1, 100)] = 1.5


def run(execution: Execution) -> None:
    """Read `calibrated.fits`, write `baselined.fits`."""
    parameters = execution.parameters(Parameters)
    calibrated = execution.only("upstream", "calibrated.fits", remedy=AFTER_CALIBRATE)
    scan = read_scan(calibrated)
    free = spectra.line_free(
        scan.velocity_kms, center_kms=scan.header["VLSR"], half_width_kms=parameters.line_half_width_kms
    )
    if np.count_nonzero(free) < free.size // 4:
        raise LineWindowError(parameters.line_half_width_kms)
    write_scan(
        execution.product("science", "baselined.fits"), baseline(scan, free, parameters), execution.stamp(parameters)
    )


def baseline(scan: Scan, free: Booleans, parameters: Parameters) -> Scan:
    """Return the scan less its baselines, with weights 1/rms², K⁻², which are 0 for flagged pixels."""
    basis = _basis(scan, free, parameters)
    flat = spectra.subtract_baseline(scan.spectra, basis, free)
    rms = spectra.noise(flat, free, fitted_terms=basis.shape[1])
    pixel_rms = np.median(rms, axis=0)
    flagged = spectra.broken(pixel_rms, threshold=parameters.flag_threshold)
    return replace(
        scan,
        spectra=flat,
        pixels={**scan.pixels, "RMS": pixel_rms, "FLAGGED": flagged},
        weight=np.where(flagged, 0, rms**-2.0),
    )


def _basis(scan: Scan, free: Booleans, parameters: Parameters) -> Floats:
    """Return the functions to fit, (channel, term); none at all if the step is not enabled."""
    if not parameters.enabled:
        return np.empty((free.size, 0))
    smooth = spectra.polynomials(free.size, order=parameters.order)
    if not parameters.sinusoids:
        return smooth
    every = scan.spectra.reshape(-1, free.size)
    some = every[:: max(1, len(every) // SEARCHED_SPECTRA)]
    alive = some[np.isfinite(some).all(axis=-1)]
    cycles = spectra.find_wave(alive, free, order=parameters.order, pairs=parameters.sinusoids)
    return np.hstack([smooth, spectra.waves(free.size, cycles=cycles, pairs=parameters.sinusoids)])
