"""The instruments that observe in the demo: how each is simulated, reduced and checked. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """What the demo has to know of one; all else is in its example of definitions."""

    name: str
    module: str
    """As `instrument/module`."""
    disk: str
    """Location where it writes."""
    program: str
    """Command of its reductions."""
    example: str
    """File of their definitions, among the examples."""
    simulated: Sequence[str]
    """What `make-raw` is told besides seed and place."""
    observation: str
    """What its scans execute where their description does not say it."""
    check_config: str
    """The one that says where the truth lies."""
    pipelines: Sequence[str]
    """Of that example."""
    first_step: str
    """The one that takes raw data and has no cooldown."""
    final_map: tuple[str, str]
    """Step and path."""
    figures: Sequence[str]
    """Quality metrics of its step `check`, each with its band."""


CHAI: Final = Instrument(
    name="CHAI",
    module="CHAI/LFA",
    disk="ccat/chai_raw_data",
    program="chai",
    example="chai.yaml",
    simulated=("--scans", "4"),
    observation="demo-source-co43",
    check_config="chai-check",
    pipelines=("chai-co43",),
    first_step="calibrate",
    final_map=("grid", "science/moment0.fits"),
    figures=(
        "peak_ratio",
        "flux_ratio",
        "position_error_arcsec",
        "width_arcsec",
        "rms_ratio",
        "broken_pixels_found",
        "good_pixels_flagged",
    ),
)
PRIME_CAM: Final = Instrument(
    name="Prime-Cam",
    module="Prime-Cam/280GHz",
    disk="ccat/primecam_raw_data",
    program="primecam",
    example="prime-cam.yaml",
    simulated=("--nights", "2"),
    observation="demo-field",
    check_config="prime-cam-check",
    pipelines=("prime-cam-calibration", "prime-cam-maps"),
    first_step="calibrate-planet",
    final_map=("map", "science/map.fits"),
    figures=(
        "bright_flux_ratio",
        "faint_flux_pull",
        "sources_found",
        "sources_too_many",
        "nefd_ratio",
        "responsivity_ratio",
        "responsivity_scatter",
        "broken_detectors_dropped",
        "good_detectors_dropped",
        "null_pull",
        "empty_pull",
    ),
)
INSTRUMENTS: Final = (CHAI, PRIME_CAM)
INSTRUMENT_OF: Final = {pipeline: one.name for one in INSTRUMENTS for pipeline in one.pipelines}
"""Name of a pipeline → of the instrument."""
