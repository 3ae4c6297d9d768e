"""Write simulated raw scans as the instrument would, with a description for whoever registers them, and the truth."""

from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from ccat_pipelines import fits
from ccat_pipelines.chai import simulate
from ccat_pipelines.chai.scan import UNITS
from ccat_pipelines.chai.simulate import RawScan, Source
from ccat_pipelines.simulated import Exposure, moment, write_json
from ccat_pipelines.sky import deproject

INSTRUMENT, MODULE = "CHAI", "LFA"
SCANS_PER_NIGHT = 3


def make_raw(out: Path, *, seed: int, scans: int, first_night: date) -> None:
    """Write `scans` raw files, `scans.json` and `truth.json` to a directory."""
    out.mkdir(parents=True, exist_ok=True)
    source = simulate.make_source(seed)
    described = [_write(out, number, seed=seed, first_night=first_night) for number in range(1, scans + 1)]
    place = {"name": source.name, "ra_deg": source.ra_deg, "dec_deg": source.dec_deg}
    observed = {"instrument": INSTRUMENT, "instrument_module": MODULE, "source": place, "scans": described}
    write_json(out / "scans.json", observed)
    write_json(out / "truth.json", _truth(source, described, seed))


def _write(out: Path, number: int, *, seed: int, first_night: date) -> dict[str, Any]:
    """Simulate and write one scan; return its description."""
    nights, position = divmod(number - 1, SCANS_PER_NIGHT)
    night = first_night + timedelta(days=nights)
    start = moment(night, timedelta(hours=position))
    raw = simulate.make_scan(number, seed=seed)
    duration = timedelta(seconds=float(raw.pointing["TIME"][-1] + raw.pointing["EXPOSURE"][-1] / 2))
    name = f"{INSTRUMENT}-{MODULE}-{night}-{number:04}".lower()
    scan = Exposure(name=name, seed=seed, night=night, start=start, end=start + duration, module=MODULE)
    path = out / f"{name}.fits"
    _write_fits(path, raw, {**scan.cards(), **_cards(simulate.make_source(seed), raw)})
    return scan.describe(path)


def _cards(source: Source, raw: RawScan) -> dict[str, Any]:
    return {
        "TELESCOP": "FYST",
        "INSTRUME": INSTRUMENT,
        "MODULE": MODULE,
        "OBJECT": source.name,
        "RA": (source.ra_deg, "[deg] of the map center, ICRS"),
        "DEC": (source.dec_deg, "[deg] of the map center, ICRS"),
        "VLSR": (source.velocity_kms, "[km/s] LSR velocity of the source"),
        "RESTFRQ": (simulate.REST_FREQUENCY_HZ, "[Hz] CO(4-3)"),
        "BMAJ": (simulate.BEAM_ARCSEC / 3600, "[deg] FWHM of the beam"),
        "TAU": (raw.measured_opacity, "[neper] zenith opacity, by the radiometer"),
        "FEFF": (simulate.FORWARD_EFFICIENCY, "forward efficiency"),
        "THOT": (simulate.T_HOT, "[K] hot load"),
        "TCOLD": (simulate.T_COLD, "[K] cold load"),
    }


def _write_fits(path: Path, raw: RawScan, cards: dict[str, Any]) -> None:
    axis = simulate.velocity_axis_kms() * 1000
    spectral = {"CTYPE1": "VRAD", "CUNIT1": "m/s", "CRPIX1": 1.0, "CRVAL1": axis[0], "CDELT1": axis[1] - axis[0]}
    pointing = dict(raw.pointing)
    east, north = pointing.pop("DX"), pointing.pop("DY")
    pointing["RA"], pointing["DEC"] = deproject(east, north, center=(cards["RA"][0], cards["DEC"][0]))
    fits.write(
        path,
        fits.primary(cards),
        fits.image("SPECTRA", raw.counts, {"BUNIT": "count", **spectral}),
        fits.table("POINTING", pointing, UNITS),
        fits.table("PIXELS", raw.pixels, UNITS),
    )


def _truth(source: Source, described: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Return what only `chai check` may know."""
    broken: dict[str, list[int]] = {scan["scan_id"]: [] for scan in described}
    if len(described) >= simulate.SCAN_WITH_BROKEN_PIXELS:
        scan = described[simulate.SCAN_WITH_BROKEN_PIXELS - 1]["scan_id"]
        broken[scan] = list(simulate.make_receiver(seed).broken)
    return {"seed": seed, "source": asdict(source), "broken_pixels": broken}
