"""What telescope, receiver and sky would have recorded: pure functions of a seed, with known truth.

In the counts: radiometer noise, gain and band-pass by pixel, receiver temperatures, the atmosphere, gain drift,
a standing wave, and in one scan broken pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ccat_pipelines.arrays import Floats
from ccat_pipelines.chai.spectra import bandwidth_hz, polynomials, transmission, waves

N_PIXELS, N_CHANNELS = 64, 1024
CHANNEL_KMS = 1.0
REST_FREQUENCY_HZ = 461.0407682e9  # CO(4-3)
BEAM_ARCSEC = 26.0
PIXEL_SPACING_ARCSEC = 52.0
RASTER, RASTER_STEP_ARCSEC = 10, 5.2  # fills the gaps between the pixels
DITHER_ARCSEC = ((0.0, 0.0), (26.0, 0.0), (0.0, 26.0), (26.0, 26.0))

T_HOT, T_COLD, T_ATMOSPHERE, T_AMBIENT = 293.0, 77.0, 258.0, 273.0
FORWARD_EFFICIENCY = 0.95
EXPOSURE_S = {"HOT": 20.0, "COLD": 20.0, "OFF": 20.0, "ON": 2.0}
OVERHEAD_S = 0.25
SEQUENCE = ["HOT", "COLD", *(RASTER // 2 * [*RASTER * ["ON"], "OFF", *RASTER * ["ON"]])]

SCAN_WITH_BROKEN_PIXELS = 3
N_BROKEN = 8


@dataclass(frozen=True, kw_only=True)
class Source:
    """The truth about the source: a Gaussian on the sky, as the telescope's beam shows it, and in velocity."""

    name: str
    ra_deg: float
    dec_deg: float
    east_arcsec: float
    north_arcsec: float
    fwhm_arcsec: float = 40.0
    peak_k: float = 8.0
    line_fwhm_kms: float = 60.0
    velocity_kms: float = 10.0

    def temperature(self, east: Floats, north: Floats, velocity_kms: Floats) -> Floats:
        """Return the antenna temperature, K, at offsets from the catalog position; the velocity is the last axis."""
        square = (east - self.east_arcsec) ** 2 + (north - self.north_arcsec) ** 2
        on_sky = np.exp(-4 * np.log(2) * square / self.fwhm_arcsec**2)
        in_line = np.exp(-4 * np.log(2) * ((velocity_kms - self.velocity_kms) / self.line_fwhm_kms) ** 2)
        return (self.peak_k * on_sky[..., None] * in_line).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """The truth about the receiver, which stays the same from scan to scan."""

    gain: Floats  # counts/K, (pixel, channel)
    trx: Floats  # K, (pixel, channel)
    wave_cycles: float  # of the standing wave over the band
    wave_k: Floats  # its amplitude by pixel
    broken: tuple[int, ...]  # pixels in the scan that has them
    broken_noise: Floats  # how much noisier these are


@dataclass(frozen=True, kw_only=True)
class RawScan:
    """Counts of one scan, (integration, pixel, channel), with the pointing of every integration."""

    counts: Floats
    pointing: Mapping[str, Any]
    pixels: Mapping[str, Any]
    measured_opacity: float


def make_source(seed: int) -> Source:
    """Draw where the source really is, a few arcseconds from its catalog position."""
    east, north = np.random.default_rng([seed, 1]).uniform(-6, 6, 2).tolist()
    return Source(name="Demo source", ra_deg=187.5, dec_deg=-23.0, east_arcsec=east, north_arcsec=north)


def make_receiver(seed: int) -> Receiver:
    """Draw gains, band-passes, receiver temperatures, the standing wave and the pixels that break."""
    rng = np.random.default_rng([seed, 2])
    shape = polynomials(N_CHANNELS, order=6)[:, 1:].T
    bandpass = 1 + rng.normal(0, 0.05, (N_PIXELS, 6)) @ shape
    trx = rng.normal(120, 10, (N_PIXELS, 1)) * (1 + rng.normal(0, 0.02, (N_PIXELS, 6)) @ shape)
    return Receiver(
        gain=(rng.lognormal(np.log(50), 0.2, (N_PIXELS, 1)) * bandpass).astype(np.float32),
        trx=trx.astype(np.float32),
        wave_cycles=rng.uniform(8, 12),
        wave_k=rng.uniform(1, 2, N_PIXELS),
        broken=tuple(sorted(rng.choice(N_PIXELS, N_BROKEN, replace=False).tolist())),
        broken_noise=rng.uniform(2.5, 5, N_BROKEN).astype(np.float32),
    )


def make_scan(number: int, *, seed: int, opacity: float = 0.8) -> RawScan:
    """Observe the source once; scans are numbered from 1 and do not depend on each other."""
    rng = np.random.default_rng([seed, 3, number])
    source, receiver = make_source(seed), make_receiver(seed)
    pointing, pixels = _pointing(number), _pixels()
    mode = np.array(SEQUENCE)
    on, on_sky = mode == "ON", np.isin(mode, ["ON", "OFF"])

    passes = FORWARD_EFFICIENCY * transmission(opacity, pointing["ELEVATION"])
    sky = T_ATMOSPHERE * (FORWARD_EFFICIENCY - passes) + T_AMBIENT * (1 - FORWARD_EFFICIENCY)
    load = np.select([mode == "HOT", mode == "COLD"], [T_HOT, T_COLD], sky)
    received = receiver.trx + load.astype(np.float32)[:, None, None]
    received[on_sky] += _standing_wave(receiver, pointing["TIME"][on_sky], rng)
    east, north = (pointing[axis][on, None] + pixels[axis] for axis in ("DX", "DY"))
    received[on] += passes.astype(np.float32)[on, None, None] * source.temperature(east, north, velocity_axis_kms())
    received *= 1 + _noise(receiver, number, rng)
    received *= receiver.gain * _drift(pointing["TIME"], rng)[:, :, None]
    return RawScan(
        counts=received,
        pointing={"MODE": mode, **pointing},
        pixels=pixels,
        measured_opacity=round(opacity * rng.normal(1, 0.005), 4),
    )


def velocity_axis_kms() -> Floats:
    """Return the velocity of every channel; the band is centered on 0."""
    return (np.arange(N_CHANNELS) - (N_CHANNELS - 1) / 2) * CHANNEL_KMS


def _pixels() -> dict[str, Floats]:
    """Return the offsets of the 8 by 8 pixels from the boresight, arcsec east and north."""
    rows, cols = np.divmod(np.arange(N_PIXELS), 8)
    return {"DX": (cols - 3.5) * PIXEL_SPACING_ARCSEC, "DY": (rows - 3.5) * PIXEL_SPACING_ARCSEC}


def _pointing(number: int) -> dict[str, Floats]:
    """Return time, exposure and boresight of every integration; rows are scanned to and fro."""
    exposure = np.array([EXPOSURE_S[mode] for mode in SEQUENCE])
    time = np.cumsum(exposure + OVERHEAD_S) - exposure / 2
    row, step = np.divmod(np.arange(RASTER**2), RASTER)
    step = np.where(row % 2, RASTER - 1 - step, step)
    dither = DITHER_ARCSEC[(number - 1) % len(DITHER_ARCSEC)]
    on = np.array(SEQUENCE) == "ON"
    east, north = np.full(on.size, 1800.0), np.zeros(on.size)  # OFF half a degree away
    east[on] = (step - (RASTER - 1) / 2) * RASTER_STEP_ARCSEC + dither[0]
    north[on] = (row - (RASTER - 1) / 2) * RASTER_STEP_ARCSEC + dither[1]
    elevation = 65 - 6 * ((number - 1) % 3) + time * 15 / 3600
    return {"TIME": time, "EXPOSURE": exposure, "DX": east, "DY": north, "ELEVATION": elevation}


def _standing_wave(receiver: Receiver, time_s: Floats, rng: np.random.Generator) -> Floats:
    """Return the standing wave, K; its phase wanders, so that ON - OFF does not take it away."""
    phase = rng.uniform(0, 2 * np.pi, N_PIXELS) + 0.01 * time_s[:, None]
    pairs = [np.cos(phase), 0.3 * np.cos(2 * phase), -np.sin(phase), -0.3 * np.sin(2 * phase)]
    coefficients = np.stack(pairs, axis=-1) * receiver.wave_k[:, None]
    wave = waves(N_CHANNELS, cycles=receiver.wave_cycles, pairs=2)
    return coefficients.astype(np.float32) @ wave.T.astype(np.float32)


def _noise(receiver: Receiver, number: int, rng: np.random.Generator) -> Floats:
    """Return relative radiometer noise: Gaussian, 1 / sqrt(bandwidth · exposure), more in broken pixels."""
    exposure = np.array([EXPOSURE_S[mode] for mode in SEQUENCE])
    relative = 1 / np.sqrt(bandwidth_hz(CHANNEL_KMS, REST_FREQUENCY_HZ) * exposure)
    noise = rng.standard_normal((len(SEQUENCE), N_PIXELS, N_CHANNELS), dtype=np.float32)
    noise *= relative.astype(np.float32)[:, None, None]
    if number == SCAN_WITH_BROKEN_PIXELS:
        noise[:, receiver.broken] *= receiver.broken_noise[:, None]
    return noise


def _drift(time_s: Floats, rng: np.random.Generator) -> Floats:
    """Return the gain relative to the scan's beginning, (integration, pixel): about half a percent over a scan."""
    slope = rng.normal(0, 0.005, N_PIXELS)
    return (1 + slope * time_s[:, None] / time_s[-1]).astype(np.float32)
