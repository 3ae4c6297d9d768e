"""The simulated telescope: raw scans, and what the instrument does with them."""

import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ccat.demo.commands import Ccat, CommandFailed, run
from ccat.demo.software import made_once
from ccat.demo.story import ALL_SCANS

DISK: Final = "ccat/chai_raw_data"
"""Location where the instrument writes."""
OBSERVATION: Final = "demo-source-co43"
MODULE: Final = "CHAI/LFA"
_CHECKSUMS: Final = "checksums.sha256"


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One scan with its raw file, as the instrument describes it."""

    name: str
    id: uuid.UUID
    file: Path
    checksum: str
    start: str
    end: str
    night: str


def observe(environment: Path, directory: Path, *, seed: int) -> Mapping[int, Scan]:
    """Scans by number, counted from 1; simulated with the reductions' own `chai make-raw` unless they are there."""
    with made_once(directory) as is_there:
        if not is_there:
            command = [str(environment / "bin" / "chai"), "make-raw", "--seed", str(seed), "--out", str(directory)]
            exit_code, _, news = run(command)
            if exit_code:
                raise CommandFailed(command, exit_code=exit_code, reason=" ".join(news))
            scans = read_scans(directory)
            lines = [f"{scan.checksum.removeprefix('sha256:')}  {scan.file.name}\n" for scan in scans.values()]
            (directory / _CHECKSUMS).write_text("".join(lines))
    return read_scans(directory)


def read_scans(directory: Path) -> Mapping[int, Scan]:
    """Scans by number, from what `chai make-raw` says about them."""
    described = json.loads((directory / "scans.json").read_text())["scans"]
    return {
        number: Scan(
            name=f"scan {number}",
            id=uuid.UUID(one["id"]),
            file=directory / one["file"],
            checksum=one["checksum"],
            start=one["start"],
            end=one["end"],
            night=one["observing_night"],
        )
        for number, one in enumerate(described, 1)
    }


def another_of(scan: Scan) -> Scan:
    """The same raw file as a scan of its own."""
    return replace(scan, name=f"{scan.name} again", id=uuid.uuid5(scan.id, "again"))


def names_of(scans: Iterable[Scan]) -> Mapping[str, str]:
    """What the story calls the values of dimensions: ids of scans, nights, and the source for all scans."""
    scans = list(scans)
    nights = sorted({scan.night for scan in scans})
    return {
        **{str(scan.id): scan.name for scan in scans},
        **{night: f"night {number}" for number, night in enumerate(nights, 1)},
        "source": ALL_SCANS,
    }


def observe_and_deliver(ccat: Ccat, *, observed: Iterable[Scan], arriving: Iterable[Scan], disk: Path) -> None:
    """Tell that scans start, write raw files to the instrument's disk and register them, tell that the scans end.

    A scan is packed when it has ended and its file is there, whichever comes last. All scans are told side by side, so
    that they are archived together however slow this machine is.
    """
    observed, files = list(observed), [(scan, _write(scan, disk)) for scan in arriving]
    with ThreadPoolExecutor() as side_by_side:
        list(side_by_side.map(lambda scan: _start(ccat, scan), observed))
        list(side_by_side.map(lambda one: _add(ccat, *one), files))
        list(side_by_side.map(lambda scan: _end(ccat, scan), observed))


def _write(scan: Scan, disk: Path) -> Path:
    target = disk / scan.night / scan.file.name
    target.parent.mkdir(exist_ok=True)
    return shutil.copyfile(scan.file, target)


def _start(ccat: Ccat, scan: Scan) -> None:
    ccat.ask("scan", "start", OBSERVATION, "--started-at", scan.start, "--id", str(scan.id))


def _add(ccat: Ccat, scan: Scan, file: Path) -> None:
    listed = ("--checksums", str(scan.file.with_name(_CHECKSUMS)))
    ccat.ask("scan", "add", str(scan.id), str(file), "--module", MODULE, "--location", DISK, *listed)


def _end(ccat: Ccat, scan: Scan) -> None:
    ccat.ask("scan", "end", str(scan.id), "--ended-at", scan.end, "--files", "1")
