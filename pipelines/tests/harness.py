"""Runs steps as the workflow manager does: a manifest, a few variables, an exit code."""

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ccat_pipelines import fits
from ccat_pipelines.chai.__main__ import main
from ccat_pipelines.chai.scan import UNITS

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Outcome:
    """What one execution of a step left behind."""

    exit_code: int
    message: str
    output: Path

    def json(self, name: str) -> dict[str, Any]:
        """Return the content of a QA file."""
        content: dict[str, Any] = json.loads((self.output / "qa" / name).read_text())
        return content


@dataclass
class Bench:
    """A directory in which steps are executed one after the other."""

    root: Path
    number: "count[int]" = field(default_factory=count)

    def prepare(
        self, step: str, *, inputs: Mapping[str, Any], parameters: Mapping[str, Any], final: bool
    ) -> dict[str, str]:
        """Write a manifest and return the environment that goes with it."""
        here = self.root / f"{next(self.number)}-{step}"
        (here / "output").mkdir(parents=True)
        manifest = {
            "schema_version": 1,
            "run": {"id": 1, "attempt": 1},
            "step": {"name": step, "is_final": final},
            "sub_group": {"key": "source=1", "dimensions": {}},
            "config": {"name": "test", "digest": "", "parameters": dict(parameters)},
            "inputs": inputs,
        }
        (here / "manifest.json").write_text(json.dumps(manifest))
        return {"WORKFLOW_MANIFEST": str(here / "manifest.json"), "WORKFLOW_OUTPUT_DIR": str(here / "output")}

    def run(
        self,
        command: str,
        *,
        raw: Sequence[Path] = (),
        upstream: Sequence[Path] = (),
        auxiliary: Sequence[Path] = (),
        final: bool = False,
        **parameters: Any,
    ) -> Outcome:
        """Execute `chai baseline` or the like in this process, which spares its start."""
        program, step = command.split()
        inputs = {
            "raw": [package(path) for path in raw],
            "upstream": [product(path) for path in upstream],
            "auxiliary": [{"name": "calibration", **product(path)} for path in auxiliary],
        }
        return self.execute(program, step, self.prepare(step, inputs=inputs, parameters=parameters, final=final))

    def execute(self, program: str, step: str, environ: Mapping[str, str]) -> Outcome:
        """Execute a prepared step in this process."""
        with redirect_stderr(io.StringIO()) as stderr:
            exit_code = import_module(f"ccat_pipelines.{program}.__main__").main([step], environ)
        return Outcome(exit_code, stderr.getvalue(), Path(environ.get("WORKFLOW_OUTPUT_DIR", "")))

    def spawn(self, arguments: Sequence[str], environ: Mapping[str, str]) -> Outcome:
        """Execute a prepared step as a process of its own."""
        done = subprocess.run(arguments, env={**os.environ, **environ}, capture_output=True, text=True, check=False)
        return Outcome(done.returncode, done.stderr, Path(environ["WORKFLOW_OUTPUT_DIR"]))


def checksum(path: Path) -> str:
    """Return the checksum under which a file is registered."""
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def package(path: Path) -> dict[str, Any]:
    """Return the manifest's entry for a raw data package with one file."""
    return {
        "package_id": 1,
        "path": str(path.parent),
        "files": [{"path": path.name, "size_bytes": path.stat().st_size, "checksum": checksum(path)}],
    }


def product(path: Path) -> dict[str, Any]:
    """Return the manifest's entry for an upstream product."""
    return {"product_id": 1, "step": "before", "run_id": 1, "path": str(path), "checksum": checksum(path)}


@dataclass
class Observation:
    """Simulated scans of one seed, reduced once by scan, and mapped in any combination."""

    bench: Bench
    raw: Path
    calibrated: dict[int, Path]
    baselined: dict[int, Path]

    def check(self, *scans: int) -> dict[str, Any]:
        """Map these scans and return the figures of the check."""
        return self.judge(self.grid(*(self.baselined[number] for number in scans))).json("metrics.json")

    def grid(self, *baselined: Path) -> Path:
        """Map these scans and return the directory of the products."""
        gridded = self.bench.run("chai grid", upstream=baselined, final=True)
        assert (gridded.exit_code, gridded.message) == (0, ""), gridded
        return gridded.output

    def judge(self, output: Path, **parameters: Any) -> Outcome:
        """Check the products of a grid step."""
        upstream = sorted((output / "science").iterdir())
        truth = str(self.raw / "truth.json")
        return self.bench.run("chai check", upstream=upstream, final=True, truth_file=truth, **parameters)

    def scan(self, number: int) -> Path:
        """Return the raw file of a scan."""
        (path,) = self.raw.glob(f"*-{number:04}.fits")
        return path

    def calibrate(self, number: int, **parameters: Any) -> Path:
        """Calibrate a raw scan; return the product."""
        return self._one("chai calibrate", "calibrated.fits", raw=[self.scan(number)], **parameters)

    def baseline(self, calibrated: Path, **parameters: Any) -> Path:
        """Take off the baselines of a calibrated scan; return the product."""
        return self._one("chai baseline", "baselined.fits", upstream=[calibrated], **parameters)

    def _one(self, command: str, name: str, **given: Any) -> Path:
        outcome = self.bench.run(command, **given)
        assert (outcome.exit_code, outcome.message) == (0, ""), outcome
        assert [path.name for path in outcome.output.iterdir()] == [name]
        return outcome.output / name


def observe(root: Path, seed: int, scans: int = 4) -> Observation:
    """Simulate the scans of a seed and reduce each."""
    assert main(["make-raw", "--seed", str(seed), "--out", str(root / "raw"), "--scans", str(scans)]) == 0
    observation = Observation(Bench(root), root / "raw", {}, {})
    for number in range(1, scans + 1):
        observation.calibrated[number] = observation.calibrate(number)
        observation.baselined[number] = observation.baseline(observation.calibrated[number])
    return observation


def write_small_raw(path: Path) -> Path:
    """Write a valid raw scan that is small enough to be damaged a hundred times."""
    mode = ["HOT", "COLD", "ON", "OFF", "ON"]
    level = np.array([400.0, 200.0, 301.0, 300.0, 301.0])
    counts = level[:, None, None] + np.random.default_rng(0).normal(0, 0.1, (5, 4, 32))
    cards = {
        **dict.fromkeys(("TELESCOP", "INSTRUME", "MODULE", "OBJECT", "SCANID"), "test"),
        **dict.fromkeys(("DATE-BEG", "DATE-END"), "2026-04-02T02:00:00.000"),
        **dict.fromkeys(("RA", "DEC", "VLSR"), 10.0),
        "RESTFRQ": 4.6e11,
        "BMAJ": 0.007,
        "TAU": 0.5,
        "FEFF": 0.9,
        "THOT": 293.0,
        "TCOLD": 77.0,
    }
    pointing = {key: np.full(5, 10.0) for key in ("EXPOSURE", "RA", "DEC", "ELEVATION")}
    fits.write(
        path,
        fits.primary(cards),
        fits.image("SPECTRA", counts, {"CTYPE1": "VRAD", "CUNIT1": "m/s", "CRPIX1": 1, "CRVAL1": 0, "CDELT1": 1e4}),
        fits.table("POINTING", {"MODE": mode, "TIME": np.arange(5.0), **pointing}, UNITS),
        fits.table("PIXELS", {"DX": np.zeros(4), "DY": np.zeros(4)}, UNITS),
    )
    return path
