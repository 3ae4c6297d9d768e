"""Write simulated raw scans as the camera would, with a description for whoever registers them, and the truth."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from ccat_pipelines import hdf5
from ccat_pipelines.primecam import simulate
from ccat_pipelines.simulated import Exposure, moment, write_json
from ccat_pipelines.sky import deproject

INSTRUMENT, MODULE = "Prime-Cam", "280GHz"
SEQUENCE = ("planet", "science", "science", "science")  # every night
SPACING = timedelta(minutes=30)


@dataclass(frozen=True)
class Target:
    """What is observed, and the name of that observation."""

    name: str
    ra_deg: float
    dec_deg: float
    observation: str


TARGETS = {
    "planet": Target("Demo planet", 195.0, -6.0, "demo-planet"),
    "science": Target("Demo field", 150.1, 2.2, "demo-field"),
}


def make_raw(out: Path, *, seed: int, nights: int, first_night: date) -> None:
    """Write four raw files for each night, `scans.json` and `truth.json` to a directory."""
    out.mkdir(parents=True, exist_ok=True)
    dates = [first_night + timedelta(days=later) for later in range(nights)]
    described = [
        _write(out, kind, seed=seed, number=(night - 1) * len(SEQUENCE) + place, nights=(night, evening))
        for night, evening in enumerate(dates, 1)
        for place, kind in enumerate(SEQUENCE, 1)
    ]
    sources = [{"name": one.name, "ra_deg": one.ra_deg, "dec_deg": one.dec_deg} for one in TARGETS.values()]
    observed = {"instrument": INSTRUMENT, "instrument_module": MODULE, "sources": sources, "scans": described}
    write_json(out / "scans.json", observed)
    write_json(out / "truth.json", _truth(seed, dates, described))


def _write(out: Path, kind: str, *, seed: int, number: int, nights: tuple[int, date]) -> dict[str, Any]:
    """Simulate and write one scan of a night, of which number and date are given; return its description."""
    night, evening = nights
    start = moment(evening, SPACING * ((number - 1) % len(SEQUENCE)))
    end = start + timedelta(seconds=simulate.DURATION_S)
    name = f"{INSTRUMENT}-{MODULE}-{evening}-{number:04}".lower()
    exposure = Exposure(name=name, seed=seed, night=evening, start=start, end=end, module=MODULE)
    scan = simulate.make_scan(number, kind, seed=seed, night=night)
    path, target = out / f"{name}.h5", TARGETS[kind]
    ra, dec = deproject(*scan.boresight, center=(target.ra_deg, target.dec_deg))
    attributes = {**exposure.cards(), "NIGHT": evening.isoformat(), **_attributes(kind, seed)}
    hdf5.write(path, attributes=attributes, data={**scan.data, "RA": ra, "DEC": dec})
    return {**exposure.describe(path), "source": target.name, "observation": target.observation, "kind": kind}


def _attributes(kind: str, seed: int) -> dict[str, Any]:
    target = TARGETS[kind]
    return {
        "TELESCOP": "FYST",
        "INSTRUME": INSTRUMENT,
        "MODULE": MODULE,
        "OBJECT": target.name,
        "RA": target.ra_deg,
        "DEC": target.dec_deg,
        "BMAJ": simulate.BEAM_ARCSEC / 3600,
        "KIND": kind,
        "RATE": simulate.RATE_HZ,
        "CABLE": simulate.make_camera(seed).cable_s,
        **({"FLUX": simulate.PLANET_JY} if kind == "planet" else {}),
    }


def _truth(seed: int, dates: Sequence[date], described: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what only `primecam check` may know."""
    camera = simulate.make_camera(seed)
    responsivity = {
        evening.isoformat(): dict(zip(camera.names, simulate.make_responsivity(seed, night).tolist(), strict=True))
        for night, evening in enumerate(dates, 1)
    }
    return {
        "seed": seed,
        "nefd_jy_sqrt_s": simulate.NEFD_JY_S,
        "sources": [asdict(source) for source in simulate.make_sources(seed)],
        "broken_detectors": {camera.names[detector]: fault for detector, fault in camera.faults.items()},
        "scans": {scan["scan_id"]: scan["observing_night"] for scan in described},
        "responsivity_hz_per_jy": responsivity,
    }
