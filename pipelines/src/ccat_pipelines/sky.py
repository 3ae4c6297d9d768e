"""The sky as a plane: tangential projection and the grid of a map. Offsets in arcsec, positions in degrees, ICRS."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ccat_pipelines.arrays import Floats


def project(ra_deg: Floats, dec_deg: Floats, *, center: tuple[float, float]) -> tuple[Floats, Floats]:
    """Return offsets east and north of the center (ra, dec in deg), arcsec, in the gnomonic projection (TAN)."""
    ra, dec, ra0, dec0 = np.radians(ra_deg), np.radians(dec_deg), *np.radians(center)
    depth = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
    east = np.cos(dec) * np.sin(ra - ra0) / depth
    north = (np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra - ra0)) / depth
    return np.degrees(east) * 3600, np.degrees(north) * 3600


def deproject(east: Floats, north: Floats, *, center: tuple[float, float]) -> tuple[Floats, Floats]:
    """Return right ascension and declination, deg: the inverse of `project`."""
    x, y, ra0, dec0 = np.radians(east / 3600), np.radians(north / 3600), *np.radians(center)
    depth = np.cos(dec0) - y * np.sin(dec0)
    ra = ra0 + np.arctan2(x, depth)
    dec = np.arctan2((np.sin(dec0) + y * np.cos(dec0)) * np.cos(ra - ra0), depth)
    return np.degrees(ra) % 360, np.degrees(dec)


@dataclass(frozen=True, kw_only=True)
class MapGrid:
    """A square of `size` by `size` map pixels around a center; east is left, north is up."""

    center: tuple[float, float]
    pixel: float
    size: int

    @property
    def axis(self) -> Floats:
        """Offsets of the pixel centers along either axis; columns run towards the west."""
        return (np.arange(self.size) - (self.size - 1) / 2) * self.pixel

    def cards(self) -> dict[str, Any]:
        """Return the celestial part of the world coordinate system."""
        middle, step = (self.size + 1) / 2, self.pixel / 3600
        return {
            "RADESYS": "ICRS",
            **_axis_cards(1, "RA---TAN", center=self.center[0], middle=middle, step=-step),
            **_axis_cards(2, "DEC--TAN", center=self.center[1], middle=middle, step=step),
        }

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> "MapGrid":
        """Return the grid of a map from its header."""
        return cls(center=(header["CRVAL1"], header["CRVAL2"]), pixel=header["CDELT2"] * 3600, size=header["NAXIS2"])

    def offsets(self) -> tuple[Floats, Floats]:
        """Return the offsets east and north of every map pixel, (row, column)."""
        return np.meshgrid(-self.axis, self.axis)


def _axis_cards(number: int, kind: str, *, center: float, middle: float, step: float) -> dict[str, Any]:
    cards = {"CTYPE": kind, "CUNIT": "deg", "CRPIX": middle, "CRVAL": center, "CDELT": step}
    return {f"{key}{number}": value for key, value in cards.items()}
