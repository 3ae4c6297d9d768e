"""The arithmetic of kinetic inductance detectors: from I and Q to how far a resonance has moved.

A resonator coupled to a line transmits S21 = 1 - (Qr/Qc)·exp(iφ) / (1 + 2i·Qr·x) with x = f/fr - 1
(Khalil et al. 2012). While the frequency f passes the resonance fr, S21 runs along a circle; seen from the center of
that circle its phase is θ = θ0 - 2·arctan(2·Qr·x). Light lowers fr; a tone that stays at f then sees θ move.
Arrays have the axes (detector, step of the sweep) or (detector, sample).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ccat_pipelines.arrays import Floats

Complexes = NDArray[np.complexfloating]
Counts = NDArray[np.integer]

ITERATIONS = 10
HALF_WIDTH = np.sqrt(0.5)  # of the circle's diameter: as far as that S21 is from off resonance at 2·Qr·x = ±1
STEEPNESS = (1e-2, 1e3)  # 2·Qr·(half the sweep)/fr: outside, a sweep is much narrower or wider than the resonance


@dataclass(frozen=True, kw_only=True)
class Resonators:
    """Resonances as a target sweep shows them, by detector."""

    center: Complexes
    """Of the circle, counts."""
    phase: Floats
    """θ0, on resonance as seen from the center, rad."""
    quality: Floats
    """Qr, loaded quality factor."""
    frequency: Floats
    """fr during the sweep, Hz."""
    misfit: Floats
    """Rms distance of the sweep from its model, in radii: noise alone has about 1."""


def without_delay(s21: Complexes, frequency: Floats, *, delay_s: float) -> Complexes:
    """Return S21 less the phase that the cables add."""
    return s21 * np.exp(2j * np.pi * frequency * delay_s)


def fit_resonators(frequency: Floats, sweep: Complexes) -> Resonators:
    """Fit circle and phase of every detector's sweep; a tone without a resonance gets a large misfit, or none (NaN)."""
    center, radius = fit_circles(sweep)
    middle, half = frequency.mean(axis=1, keepdims=True), np.ptp(frequency, axis=1, keepdims=True) / 2
    step = (frequency - middle) / half
    phase, steepness, position = fit_phases(step, sweep, center)
    resonance = (middle + half * position)[:, 0]
    model = center + radius * np.exp(1j * (phase - 2 * np.arctan(steepness * (step - position))))
    distance = np.sqrt(np.mean(np.abs(sweep - model) ** 2, axis=1))
    return Resonators(
        center=center[:, 0],
        phase=phase[:, 0],
        quality=steepness[:, 0] * resonance / (2 * half[:, 0]),
        frequency=resonance,
        misfit=distance / radius[:, 0],
    )


def fit_circles(points: Complexes) -> tuple[Complexes, Floats]:
    """Return centers and radii, (detector, 1), of the circles nearest to the points in algebraic least squares.

    |z|² = 2·Re(z·conj(c)) + r² - |c|² is linear in what is sought (Kåsa 1976).
    """
    shift = points.mean(axis=1, keepdims=True)
    z = points - shift
    scale = np.sqrt(np.mean(np.abs(z) ** 2, axis=1, keepdims=True)) + np.finfo(float).tiny
    z = z / scale
    known = np.stack([2 * z.real, 2 * z.imag, np.ones_like(z.real)], axis=-1)
    x, y, rest = np.moveaxis(np.linalg.pinv(known) @ (np.abs(z) ** 2)[..., None], 1, 0)[..., 0][:, :, None]
    return shift + scale * (x + 1j * y), scale * np.sqrt(np.maximum(rest + x**2 + y**2, 0))


def fit_phases(step: Floats, sweep: Complexes, center: Complexes) -> tuple[Floats, Floats, Floats]:
    """Return θ0, k and t0, (detector, 1), of the phase θ0 - 2·arctan(k·(t - t0)) around the centers.

    Args:
        step: t, the sweep's frequency from -1 to 1.
        sweep: S21 at these steps.
        center: of the circles, (detector, 1).
    """
    seen = sweep - center
    away = np.abs(sweep - (sweep[:, :1] + sweep[:, -1:]) / 2)  # both ends of a sweep are nearly off resonance
    deepest = np.argmax(away, axis=1)[:, None]
    inside = np.mean(away > HALF_WIDTH * np.max(away, axis=1, keepdims=True), axis=1, keepdims=True)
    phase, position = np.angle(np.take_along_axis(seen, deepest, 1)), np.take_along_axis(step, deepest, 1)
    steepness = 1 / np.maximum(inside, 1e-3)
    for _ in range(ITERATIONS):  # Gauss-Newton
        u = steepness * (step - position)
        missing = np.angle(seen * np.exp(-1j * (phase - 2 * np.arctan(u))))
        slope = 2 / (1 + u**2)
        by = np.stack([np.ones_like(u), -slope * (step - position), slope * steepness], axis=-1)
        normal = np.swapaxes(by, 1, 2) @ by + 1e-12 * np.eye(3)  # invertible even where there is no resonance
        change = np.linalg.solve(normal, np.swapaxes(by, 1, 2) @ missing[..., None])
        phase = phase + change[:, 0]
        steepness = np.clip(steepness + change[:, 1], *STEEPNESS)
        position = np.clip(position + change[:, 2], -1, 1)
    return phase, steepness, position


def frequency_shift(counts: tuple[Counts, Counts], tone: Floats, resonators: Resonators, *, delay_s: float) -> Floats:
    """Return how far below its place in the sweep every resonance is, Hz.

    Args:
        counts: I and Q of the tones, as they come out of the cables.
        tone: frequency of each, Hz.
        resonators: from a sweep without the delay of the cables.
        delay_s: that delay.
    """
    cables = np.exp(-2j * np.pi * tone * delay_s)
    center, turn = resonators.center * cables, np.exp(-1j * resonators.phase) / cables
    shift = np.empty(counts[0].shape)
    for detector, (i, q) in enumerate(zip(*counts, strict=True)):  # one by one, as these arrays are large
        seen = (i + 1j * q - center[detector]) * turn[detector]
        x = -seen.imag / (np.abs(seen) + seen.real) / (2 * resonators.quality[detector])  # tan of half the phase
        shift[detector] = resonators.frequency[detector] - tone[detector] / (1 + x)
    return shift
