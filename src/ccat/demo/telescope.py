"""The simulated telescope: raw scans, and what the instruments do with them."""

import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ccat.demo.commands import Ccat, CommandFailed, run
from ccat.demo.instruments import Instrument
from ccat.demo.software import made_once
from ccat.demo.story import ALL_SCANS

_CHECKSUMS: Final = "checksums.sha256"


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One scan with its raw file, as the instrument describes it."""

    name: str
    instrument: Instrument
    observation: str
    id: uuid.UUID
    file: Path
    checksum: str
    start: str
    end: str
    night: str
    shares_file: bool = False
    """Whether its raw file is that of another scan too."""


def observe(instrument: Instrument, directory: Path, *, environment: Path, seed: int) -> Mapping[str, Scan]:
    """Scans of an instrument by name; simulated with its reductions' own `make-raw` unless they are there."""
    with made_once(directory) as is_there:
        if not is_there:
            make_raw = [str(environment / "bin" / instrument.program), "make-raw"]
            command = [*make_raw, *instrument.simulated, "--seed", str(seed), "--out", str(directory)]
            exit_code, _, news = run(command)
            if exit_code:
                raise CommandFailed(command, exit_code=exit_code, reason=" ".join(news))
            scans = read_scans(instrument, directory)
            lines = [f"{scan.checksum.removeprefix('sha256:')}  {scan.file.name}\n" for scan in scans.values()]
            (directory / _CHECKSUMS).write_text("".join(lines))
    return read_scans(instrument, directory)


def read_scans(instrument: Instrument, directory: Path) -> Mapping[str, Scan]:
    """Scans by name, from what `make-raw` says about them."""
    described = json.loads((directory / "scans.json").read_text())["scans"]
    return {
        name: Scan(
            name=name,
            instrument=instrument,
            observation=one.get("observation", instrument.observation),
            id=uuid.UUID(one["id"]),
            file=directory / one["file"],
            checksum=one["checksum"],
            start=one["start"],
            end=one["end"],
            night=one["observing_night"],
        )
        for name, one in zip(_names(described), described, strict=True)
    }


def _names(described: Iterable[Mapping[str, str]]) -> list[str]:
    """What the story calls scans: each kind is counted from 1."""
    kinds = [f"{one.get('kind', '')} scan".strip() for one in described]
    return [f"{kind} {kinds[: place + 1].count(kind)}" for place, kind in enumerate(kinds)]


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


def observe_and_deliver(ccat: Ccat, *, observed: Iterable[Scan], arriving: Iterable[Scan], storage: Path) -> None:
    """Tell that scans start, write raw files to the instruments' disks and register them, tell that the scans end.

    A scan is packed when it has ended and its file is there, whichever comes last. All scans are told side by side, so
    that they are archived together however slow this machine is.
    """
    observed, files = list(observed), [(scan, _write(scan, storage)) for scan in arriving]
    with ThreadPoolExecutor(len(observed) + len(files)) as side_by_side:
        list(side_by_side.map(lambda scan: _start(ccat, scan), observed))
        list(side_by_side.map(lambda one: _add(ccat, *one), files))
        list(side_by_side.map(lambda scan: _end(ccat, scan), observed))


def _write(scan: Scan, storage: Path) -> Path:
    target = storage / scan.instrument.disk / scan.night / scan.file.name
    target.parent.mkdir(exist_ok=True)
    return shutil.copyfile(scan.file, target)


def _start(ccat: Ccat, scan: Scan) -> None:
    ccat.ask("scan", "start", scan.observation, "--started-at", scan.start, "--id", str(scan.id))


def _add(ccat: Ccat, scan: Scan, file: Path) -> None:
    listed = ("--checksums", str(scan.file.with_name(_CHECKSUMS)))
    place = ("--module", scan.instrument.module, "--location", scan.instrument.disk)
    again = ("--again",) if scan.shares_file else ()
    ccat.ask("scan", "add", str(scan.id), str(file), *place, *listed, *again)


def _end(ccat: Ccat, scan: Scan) -> None:
    ccat.ask("scan", "end", str(scan.id), "--ended-at", scan.end, "--files", "1")
