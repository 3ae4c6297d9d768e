"""What telescope, camera and sky would have recorded: pure functions of a seed, with known truth.

In the counts: resonators of unknown responsivity, which changes from night to night; a common atmosphere with 1/f noise
to which every detector couples by itself; photon and amplifier noise; cables; and two broken detectors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ccat_pipelines.arrays import Floats
from ccat_pipelines.primecam.resonators import Complexes
from ccat_pipelines.primecam.timestreams import beam

ROWS, COLUMNS = 10, 12
N_DETECTORS = ROWS * COLUMNS
SPACING_ARCSEC = (52.0, 45.0)  # of columns and rows, which are staggered
BEAM_ARCSEC = 47.0
RATE_HZ = 50.0
DURATION_S = 360.0
SPEED_ARCSEC_S = 240.0
REACH_ARCSEC = {"planet": 390.0, "science": 480.0}  # of the boresight; every detector passes over a planet

PLANET_JY = 20.0
FLUXES_JY = (1.0, 0.6, 0.4, 0.2, 0.2)
FIELD_ARCSEC = 360.0  # half the side of the square with the sources
SEPARATION_ARCSEC = 180.0  # of any two sources, at least

NEFD_JY_S = 0.05  # √s
AMPLIFIER_SHARE = 0.2  # of the noise in the first night; in quadrature photons make the rest
ATMOSPHERE_JY = 5.0  # rms over a scan
SPECTRAL_INDEX = -8 / 3  # of its power: Kolmogorov turbulence
SWEEP_STEPS, SWEEP_WIDTHS = 201, 8.0  # of the resonance
SWEEP_NOISE = 100.0  # counts; a step of the sweep takes longer than a sample

# Of the whole array by night: more water above it, more load on it. Neighboring nights differ by a sixth at least.
NIGHTS_HZ_PER_JY = (200.0, 130.0, 160.0)
FAULTS = ("no resonance", "response", "noise")
N_BROKEN = 2
DEAF, LOUD = 0.02, 8.0  # what is left of the responsivity, and how much noise there is, of a broken detector


@dataclass(frozen=True, kw_only=True)
class Source:
    """The truth about a point source: where it is beside the center of the field, and its flux density."""

    east_arcsec: float
    north_arcsec: float
    flux_jy: float


@dataclass(frozen=True, kw_only=True)
class Camera:
    """The truth about the detectors, which stays the same from night to night; arrays by detector."""

    names: tuple[str, ...]
    dx: Floats  # arcsec
    dy: Floats
    resonance: Floats  # Hz
    quality: Floats  # Qr
    depth: Floats  # Qr/Qc
    mismatch: Floats  # φ, rad: turns the circle around its point off resonance
    gain: Complexes  # counts off resonance, with the phase of the line
    detuning: Floats  # of the tone, in widths of the resonance
    responsivity: Floats  # relative to the array's
    coupling: Floats  # to the atmosphere
    cable_s: float
    faults: Mapping[int, str]  # of the broken detectors


@dataclass(frozen=True, kw_only=True)
class RawScan:
    """What a scan recorded, by the names of its data sets, but for the pointing."""

    data: Mapping[str, Any]
    boresight: tuple[Floats, Floats]  # arcsec east and north of the center


def make_sources(seed: int) -> list[Source]:
    """Draw where the sources are; none is near another."""
    rng = np.random.default_rng([seed, 1])
    places: list[Floats] = []
    while len(places) < len(FLUXES_JY):
        place = rng.uniform(-FIELD_ARCSEC, FIELD_ARCSEC, 2)
        if all(np.hypot(*(place - other)) > SEPARATION_ARCSEC for other in places):
            places.append(place)
    return [
        Source(east_arcsec=float(place[0]), north_arcsec=float(place[1]), flux_jy=flux)
        for place, flux in zip(places, FLUXES_JY, strict=True)
    ]


def make_camera(seed: int) -> Camera:
    """Draw resonators, their readout, and which of them are broken."""
    rng = np.random.default_rng([seed, 2])
    row, column = np.divmod(np.arange(N_DETECTORS), COLUMNS)
    turn = np.exp(1j * rng.uniform(-np.pi, np.pi, N_DETECTORS))
    broken = np.sort(rng.choice(N_DETECTORS, N_BROKEN, replace=False)).tolist()
    return Camera(
        names=tuple(f"kid-{number:04}" for number in range(1, N_DETECTORS + 1)),
        dx=(column - (COLUMNS - 1) / 2 + row % 2 / 2 - 0.25) * SPACING_ARCSEC[0],
        dy=(row - (ROWS - 1) / 2) * SPACING_ARCSEC[1],
        resonance=500e6 + 2e6 * (np.arange(N_DETECTORS) + rng.uniform(-0.3, 0.3, N_DETECTORS)),
        quality=rng.uniform(15e3, 25e3, N_DETECTORS),
        depth=rng.uniform(0.5, 0.7, N_DETECTORS),
        mismatch=rng.uniform(-0.2, 0.2, N_DETECTORS),
        gain=turn * rng.uniform(1.5e5, 2.5e5, N_DETECTORS),
        detuning=rng.uniform(-0.1, 0.1, N_DETECTORS),
        responsivity=rng.uniform(0.8, 1.2, N_DETECTORS),
        coupling=rng.normal(1, 0.05, N_DETECTORS),
        cable_s=float(rng.uniform(20e-9, 40e-9)),
        faults=dict(zip(broken, rng.permutation(FAULTS).tolist(), strict=False)),
    )


def make_responsivity(seed: int, night: int) -> Floats:
    """Return how far a resonance moves by light, Hz/Jy, by detector; nights are numbered from 1."""
    rng = np.random.default_rng([seed, 4, night])
    camera, array = make_camera(seed), NIGHTS_HZ_PER_JY[(night - 1) % len(NIGHTS_HZ_PER_JY)]
    responsivity = array * rng.uniform(0.99, 1.01) * camera.responsivity * rng.normal(1, 0.03, N_DETECTORS)
    for detector, fault in camera.faults.items():
        responsivity[detector] *= DEAF if fault == "response" else 1
    return np.asarray(responsivity)


def make_scan(number: int, kind: str, *, seed: int, night: int) -> RawScan:
    """Observe once, `planet` or `science`; scans are numbered from 1 and do not depend on each other."""
    rng = np.random.default_rng([seed, 3, number])
    camera, responsivity = make_camera(seed), make_responsivity(seed, night)
    time, boresight = scan_pattern(kind, along_north=number % 2 == 0)
    east, north = (axis + offset[:, None] for axis, offset in zip(boresight, (camera.dx, camera.dy), strict=True))
    light = _sky(kind, east, north, seed=seed) + np.multiply.outer(camera.coupling, _atmosphere(time.size, rng))
    data: dict[str, Any] = {"DETECTOR": np.array(camera.names, dtype="S"), "DX": camera.dx, "DY": camera.dy}
    data |= {"TONE": camera.resonance * (1 + camera.detuning / camera.quality), "TIME": time}
    step = np.linspace(-1, 1, SWEEP_STEPS) * SWEEP_WIDTHS / 2
    data["FSWEEP"] = data["TONE"][:, None] * (1 + step / camera.quality[:, None])
    for name, shape in (("SWEEP", data["FSWEEP"].shape), ("", light.shape)):
        data |= {f"{part}{name}": np.empty(shape, dtype=np.int32) for part in "IQ"}
    for detector in range(N_DETECTORS):
        moves = (responsivity[detector], light[detector])
        for name, counts in _record(camera, detector, data, moves=moves, rng=rng).items():
            data[f"I{name}"][detector] = np.rint(counts.real)
            data[f"Q{name}"][detector] = np.rint(counts.imag)
    return RawScan(data=data, boresight=boresight)


def scan_pattern(kind: str, *, along_north: bool) -> tuple[Floats, tuple[Floats, Floats]]:
    """Return time, s, and boresight, arcsec: to and fro along one axis, while the other is crossed once."""
    time = np.arange(round(DURATION_S * RATE_HZ)) / RATE_HZ
    reach = REACH_ARCSEC[kind]
    along = np.abs((time * SPEED_ARCSEC_S) % (4 * reach) - 2 * reach) - reach
    across = (2 * time / DURATION_S - 1) * reach
    return time, ((across, along) if along_north else (along, across))


def _sky(kind: str, east: Floats, north: Floats, *, seed: int) -> Floats:
    """Return the flux density, Jy, in the beam of every detector."""
    if kind == "planet":
        return PLANET_JY * beam(east, north, fwhm=BEAM_ARCSEC)
    light = np.zeros(east.shape)
    for source in make_sources(seed):
        light += source.flux_jy * beam(east - source.east_arcsec, north - source.north_arcsec, fwhm=BEAM_ARCSEC)
    return light


def _atmosphere(n_samples: int, rng: np.random.Generator) -> Floats:
    """Return the emission of the atmosphere beside its mean, Jy."""
    frequency = np.fft.rfftfreq(n_samples, 1 / RATE_HZ)
    height = np.zeros(frequency.size)
    height[1:] = frequency[1:] ** (SPECTRAL_INDEX / 2)
    phases = np.exp(1j * rng.uniform(0, 2 * np.pi, frequency.size)) * rng.rayleigh(1, frequency.size)
    emission = np.fft.irfft(height * phases, n_samples)
    return np.asarray(ATMOSPHERE_JY * emission / emission.std())


def _record(
    camera: Camera, detector: int, data: Mapping[str, Any], *, moves: tuple[float, Floats], rng: np.random.Generator
) -> dict[str, Complexes]:
    """Return sweep and timestream of one detector, complex counts, that light, Jy, moves by so many Hz/Jy."""
    responsivity, light = moves
    sample_jy = NEFD_JY_S * np.sqrt(RATE_HZ) * (LOUD if camera.faults.get(detector) == "noise" else 1)
    rest, sweep = camera.resonance[detector], data["FSWEEP"][detector]
    tone = np.full(light.size, data["TONE"][detector])
    # On resonance the tone runs along its circle by so many counts per Hz
    slope = 2 * abs(camera.gain[detector]) * camera.depth[detector] * camera.quality[detector] / rest
    usual = NIGHTS_HZ_PER_JY[0] * camera.responsivity[detector]
    amplifier = AMPLIFIER_SHARE * sample_jy * slope * usual
    share = min(1, AMPLIFIER_SHARE * usual / responsivity)  # more of the noise where light moves the tone less
    photons = rng.normal(0, sample_jy * np.sqrt(1 - share**2), light.size)
    recorded = {
        "SWEEP": (_transmission(camera, detector, sweep, resonance=rest), SWEEP_NOISE),
        "": (_transmission(camera, detector, tone, resonance=rest - responsivity * (light + photons)), amplifier),
    }
    return {
        name: counts + rng.normal(0, noise, counts.size) + 1j * rng.normal(0, noise, counts.size)
        for name, (counts, noise) in recorded.items()
    }


def _transmission(camera: Camera, detector: int, frequency: Floats, *, resonance: Floats | float) -> Complexes:
    """Return what arrives of a tone, complex counts: the resonator's S21, amplifiers and cables."""
    x = frequency / resonance - 1
    depth = 0.0 if camera.faults.get(detector) == "no resonance" else camera.depth[detector]
    s21 = 1 - depth * np.exp(1j * camera.mismatch[detector]) / (1 + 2j * camera.quality[detector] * x)
    return np.asarray(camera.gain[detector] * np.exp(-2j * np.pi * frequency * camera.cable_s) * s21)
