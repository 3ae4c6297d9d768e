"""Simulated nights of the camera, and small scans that are cut out of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.io import fits
from harness import Bench, Outcome

from ccat_pipelines import hdf5
from ccat_pipelines.primecam.__main__ import main
from ccat_pipelines.primecam.scan import DATA

FEW_DETECTORS, FEW_SAMPLES = slice(24), slice(None, None, 9)


@dataclass
class Camera:
    """Raw scans of one seed, with the calibrations and maps that are made of them."""

    bench: Bench
    raw: Path

    @cached_property
    def described(self) -> list[dict[str, Any]]:
        """What the instrument says of its scans."""
        scans: list[dict[str, Any]] = json.loads((self.raw / "scans.json").read_text())["scans"]
        return scans

    @cached_property
    def truth(self) -> dict[str, Any]:
        """What the scans were made of."""
        content: dict[str, Any] = json.loads((self.raw / "truth.json").read_text())
        return content

    @property
    def truth_file(self) -> str:
        return str(self.raw / "truth.json")

    def scans(self, kind: str, night: int) -> list[Path]:
        """Return the raw files of a night, counted from 1."""
        nights = sorted({scan["observing_night"] for scan in self.described})
        wanted = (kind, nights[night - 1])
        chosen = (scan for scan in self.described if (scan["kind"], scan["observing_night"]) == wanted)
        return [self.raw / scan["file"] for scan in chosen]

    @cached_property
    def first_night(self) -> Path:
        """Calibration product of the first night."""
        return self.calibrate(1)

    @cached_property
    def second_night(self) -> Path:
        """Calibration product of the second night."""
        return self.calibrate(2)

    @cached_property
    def mapped(self) -> Path:
        """Products of the first night's map."""
        return self.map(self.first_night, *self.scans("science", 1))

    @cached_property
    def fitted(self) -> Path:
        """Products of the fit to that map."""
        return self.fit(self.mapped)

    def calibrate(self, night: int, **parameters: Any) -> Path:
        """Calibrate on a night's planet; return the product."""
        planets = self.scans("planet", night)
        return self.done("primecam calibrate-planet", raw=planets, **parameters) / "science" / "calibration.fits"

    def map(self, calibration: Path, *scans: Path, **parameters: Any) -> Path:
        """Map these scans; return the directory of the products."""
        return self.done("primecam map", raw=scans, auxiliary=[calibration], **parameters)

    def fit(self, mapped: Path, **parameters: Any) -> Path:
        """Fit the sources of a map; return the directory of the products."""
        return self.done("primecam fit", upstream=files(mapped, "science"), **parameters)

    def check(self, mapped: Path, fitted: Path, **parameters: Any) -> Outcome:
        """Compare a map and its sources with the truth."""
        upstream = [*files(mapped, "science"), *files(fitted, "science"), *files(fitted, "statistics")]
        given = {"truth_file": self.truth_file, **parameters}
        return self.bench.run("primecam check", upstream=upstream, final=True, **given)

    def done(self, command: str, **given: Any) -> Path:
        """Execute a step that has to succeed; return the directory of its products."""
        outcome = self.bench.run(command, final=True, **given)
        assert (outcome.exit_code, outcome.message) == (0, ""), outcome
        return outcome.output


@dataclass(frozen=True)
class Small:
    """A planet scan, two science scans, and the calibration of the one for the others."""

    planet: Path
    science: tuple[Path, Path]
    calibration: Path


@dataclass(frozen=True)
class Workshop:
    """Where small scans are spoilt and reduced."""

    bench: Bench
    small: Small

    def altered(
        self, path: Path, *, attributes: Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None
    ) -> Path:
        """Write a scan that differs from another in these attributes and data sets; None leaves one out."""
        given, arrays = content(path)
        changed = {**given, **(attributes or {})}, {**arrays, **(data or {})}
        kept, rest = ({name: value for name, value in one.items() if value is not None} for one in changed)
        target = self.bench.root / f"altered-{path.name}"
        hdf5.write(target, attributes=kept, data=rest)
        return target

    def flipped(self, path: Path, *, byte: int, bit: int = 0) -> Path:
        """Write a copy of a file that differs in one bit."""
        target, changed = self.bench.root / path.name, bytearray(path.read_bytes())
        changed[byte] ^= 1 << bit
        target.write_bytes(changed)
        return target

    def recalibrated(self, **cards: Any) -> Path:
        """Write a calibration with another header."""
        target = self.bench.root / self.small.calibration.name
        with fits.open(self.small.calibration) as units:
            units[0].header.update(cards)
            units.writeto(target, checksum=True)
        return target

    def calibrate(self, *planets: Path, **parameters: Any) -> Outcome:
        """Calibrate on these planet scans."""
        return self.bench.run("primecam calibrate-planet", raw=planets, final=True, **parameters)

    def map(self, *scans: Path, calibration: Path | None = None, **parameters: Any) -> Outcome:
        """Map these scans, coarsely as they have few samples."""
        given = {"pixel_arcsec": 60, **parameters}
        calibrations = [calibration or self.small.calibration]
        return self.bench.run("primecam map", raw=scans, auxiliary=calibrations, final=True, **given)


def observe_nights(root: Path, seed: int, *, nights: int) -> Camera:
    """Simulate nights of a seed."""
    assert main(["make-raw", "--seed", str(seed), "--out", str(root / "raw"), "--nights", str(nights)]) == 0
    return Camera(Bench(root), root / "raw")


def small_scans(camera: Camera, root: Path) -> Small:
    """Cut a few detectors and samples out of scans of the first night."""
    planet, *science = (
        cut(path, root / path.name) for kind in ("planet", "science") for path in camera.scans(kind, 1)[:2]
    )
    calibrated = Bench(root).run("primecam calibrate-planet", raw=[planet], final=True)
    assert (calibrated.exit_code, calibrated.message) == (0, ""), calibrated
    return Small(planet, (science[0], science[1]), calibrated.output / "science" / "calibration.fits")


def files(output: Path, kind: str) -> list[Path]:
    """Return the products of a kind."""
    return sorted((output / kind).iterdir())


def content(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return attributes and data sets of a raw file."""
    with h5py.File(path) as tree:
        attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in tree.attrs.items()}
        return attributes, {name: np.asarray(values) for name, values in tree.items()}


def cut(path: Path, target: Path) -> Path:
    """Write a scan with a few of the detectors and samples of another."""
    attributes, data = content(path)
    few = {"detector": FEW_DETECTORS, "sample": FEW_SAMPLES, "step": slice(None)}
    small = {name: data[name][tuple(few[axis] for axis in axes)] for name, axes in DATA.items()}
    hdf5.write(target, attributes={**attributes, "RATE": attributes["RATE"] / FEW_SAMPLES.step}, data=small)
    return target
