"""A scan on its way from counts to a map: the same FITS layout after `calibrate` and after `baseline`.

PRIMARY says what was observed; SPECTRA is antenna temperature, K, (integration, pixel, channel); POINTING has a row
for every integration, PIXELS one for every pixel. `baseline` adds WEIGHT, K⁻², (integration, pixel), 0 where flagged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccat_pipelines import fits
from ccat_pipelines.arrays import Floats
from ccat_pipelines.contract import Card, InputFile

Columns = dict[str, Any]

UNITS = {
    **dict.fromkeys(("TIME", "EXPOSURE", "OFFEXPO"), "s"),
    **dict.fromkeys(("RA", "DEC", "ELEVATION"), "deg"),
    **dict.fromkeys(("DX", "DY"), "arcsec"),
    **dict.fromkeys(("TRX", "TSYS", "RMS"), "K"),
}
OBSERVATION = ("TELESCOP", "INSTRUME", "MODULE", "OBJECT", "RA", "DEC", "VLSR", "RESTFRQ", "BMAJ")
SPECTRAL = ("CTYPE", "CUNIT", "CRPIX", "CRVAL", "CDELT")
LAYOUT = {
    "PRIMARY": (*OBSERVATION, "SCANID", "DATE-BEG", "DATE-END"),
    "SPECTRA": tuple(f"{key}1" for key in SPECTRAL),
    "POINTING": ("TIME", "EXPOSURE", "RA", "DEC", "ELEVATION"),
    "PIXELS": ("DX", "DY"),
}
AFTER_CALIBRATE = {**LAYOUT, "POINTING": (*LAYOUT["POINTING"], "OFF", "OFFEXPO")}
AFTER_BASELINE = {**AFTER_CALIBRATE, "PIXELS": (*LAYOUT["PIXELS"], "RMS", "FLAGGED"), "WEIGHT": ()}


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Spectra of one scan with all that is needed to use them."""

    header: Any
    axis: Mapping[str, Any]
    spectra: Floats
    pointing: Columns
    pixels: Columns
    weight: Floats | None = None

    @property
    def velocity_kms(self) -> Floats:
        """Velocity of every channel."""
        return velocity_kms(self.axis, self.spectra.shape[-1])


def spectral_axis(header: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the cards of the spectral axis with this number, as axis 1 of other arrays."""
    return {f"{key}1": header[f"{key}{number}"] for key in SPECTRAL}


def velocity_kms(axis: Mapping[str, Any], n_channels: int) -> Floats:
    """Return the velocity of every channel, km/s; FITS has them in m/s."""
    channels = np.arange(1, n_channels + 1) - axis["CRPIX1"]
    return (axis["CRVAL1"] + channels * axis["CDELT1"]) / 1000


def read_scan(file: InputFile, *, weighted: bool = False) -> Scan:
    """Read a reduced scan; a weighted one is a product of `baseline`."""
    units = fits.read(file, wants=AFTER_BASELINE if weighted else AFTER_CALIBRATE)
    return Scan(
        header=units["PRIMARY"].header,
        axis=spectral_axis(units["SPECTRA"].header, 1),
        spectra=fits.native(units["SPECTRA"]),
        pointing=fits.columns(units["POINTING"]),
        pixels=fits.columns(units["PIXELS"]),
        weight=fits.native(units["WEIGHT"]) if weighted else None,
    )


def write_scan(path: Path, scan: Scan, stamp: list[Card]) -> None:
    """Write a reduced scan with the stamp of the step that made it."""
    fits.write(
        path,
        fits.primary(scan.header, stamp),
        fits.image("SPECTRA", scan.spectra, {"BUNIT": "K", **scan.axis}),
        fits.table("POINTING", scan.pointing, UNITS),
        fits.table("PIXELS", scan.pixels, UNITS),
        *([] if scan.weight is None else [fits.image("WEIGHT", scan.weight, {"BUNIT": "K-2"})]),
    )
