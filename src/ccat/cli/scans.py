import hashlib
import os
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from ccat.cli.cancelling import Because
from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json
from ccat.wiring import person, process_name, transaction
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.verbs.scans import NewFile, add_files, correct_scan, finish_scan, source_location, start_scan

app = typer.Typer(no_args_is_help=True, help="What an instrument tells: a scan starts, writes files, ends.")

_CHECKSUM_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](.+)")
"""As `sha256sum` writes it."""

_FIRST_YEAR: Final = 1900

ScanId = Annotated[uuid.UUID, typer.Argument(metavar="SCAN", help="UUID of the scan.")]


class OutsideOfLocation(CcatError):
    """A raw file does not lie where its location is."""

    code = "outside_of_location"

    def __init__(self, file: Path, location: str, root: Path) -> None:
        super().__init__(
            f"{file} is not below {root}, the root of location {location}; raw files are registered there."
        )


class StillWritten(CcatError):
    """A raw file changed while it was read."""

    code = "still_written"

    def __init__(self, file: Path) -> None:
        super().__init__(f"{file} is still being written; register it when it is complete. Nothing was registered.")


class NotAFile(CcatError):
    """What is to be registered is no regular file, such as a pipe or a device."""

    code = "not_a_file"

    def __init__(self, file: Path) -> None:
        super().__init__(f"{file} is no regular file, and cannot be archived. Nothing was registered.")


class UnprintableName(CcatError):
    """The name of a raw file has control characters, or is not UTF-8."""

    code = "unprintable_name"

    def __init__(self, path: str) -> None:
        super().__init__(f"The file name {path!r} is not printable UTF-8; give it another one. Nothing was registered.")


class NotListed(CcatError):
    """A raw file is missing from the list of checksums."""

    code = "not_listed"

    def __init__(self, file: Path, checksums: Path) -> None:
        super().__init__(
            f"{checksums} has no line for {file}; add it as `sha256sum` writes it, or leave out --checksums."
        )


class NotAChecksum(CcatError):
    """A line of a list of checksums says nothing that can be used."""

    code = "not_a_checksum"

    def __init__(self, checksums: Path, number: int, problem: str) -> None:
        super().__init__(
            f"{checksums}, line {number}: {problem}. Write the list with `sha256sum FILE...`; nothing was registered."
        )


def moment(text: str) -> datetime:
    """Aware moment from ISO 8601 text; UTC where it names no time zone."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"`{text}` is no ISO 8601 moment, such as 2026-04-01T02:00:00Z") from error
    if parsed.year < _FIRST_YEAR:
        raise typer.BadParameter(f"`{text}` is before {_FIRST_YEAR}, when nobody observed at these wavelengths")
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def aware_moment(text: str) -> datetime:
    """Aware moment from ISO 8601 text that names its time zone."""
    parsed = moment(text)
    if datetime.fromisoformat(text).tzinfo is None:
        utc, local = f"{parsed:%Y-%m-%dT%H:%M:%S}Z", f"{parsed:%Y-%m-%dT%H:%M:%S}-04:00"
        raise typer.BadParameter(f"`{text}` names no time zone; write {utc} for UTC, or such as {local}")
    return parsed


Moment = Annotated[datetime, typer.Option(parser=moment, metavar="ISO8601")]


@app.command()
def start(
    observation: Annotated[str, typer.Argument(help="Name of the planned observation.")],
    *,
    started_at: Moment,
    scan: Annotated[uuid.UUID | None, typer.Option("--id", help="UUID that the instrument made.")] = None,
    telescope: Annotated[str | None, typer.Option(help="Needed where there are several.")] = None,
    json: AsJson = False,
) -> None:
    """Record that a planned observation began to be executed."""
    with reported(as_json=json), transaction("scan") as session:
        row = start_scan(session, scan or uuid.uuid4(), observation, started_at=started_at, telescope=telescope)
        told = {"scan": row.id, "observing_night": row.observing_night}
    print_json(told) if json else typer.echo(f"scan {told['scan']}, night {told['observing_night']}")


@app.command()
def add(
    scan: ScanId,
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Raw files of one module.")],
    *,
    module: Annotated[str, typer.Option(metavar="INSTRUMENT/MODULE")],
    location: Annotated[str, typer.Option(metavar="SITE/NAME", help="SOURCE location where they lie.")],
    checksums: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="List by `sha256sum`, made where the files were written."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Correct files that are not packed yet.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also files that are those of another scan already.")] = False,
    json: AsJson = False,
) -> None:
    """Register raw files of a scan; without --checksums they are read now."""
    with reported(as_json=json):
        with transaction("scan") as session:
            root = root_of(source_location(session, location), location)
        described = describe(files, scan, root=root, location=location, checksums=checksums)  # may take long
        with transaction("scan") as session:
            tell = partial(add_files, session, scan, described, module=module, location=location)
            told = tell(replace=replace, again=again, by=process_name("scan"))
    counts = {"new": told.new, "replaced": told.replaced}
    print_json({"scan": scan, **counts}) if json else typer.echo(_registered(counts, len(files)))


@app.command()
def end(
    scan: ScanId,
    *,
    ended_at: Moment,
    files: Annotated[int | None, typer.Option(min=0, help="Number of raw files that belong to it.")] = None,
    json: AsJson = False,
) -> None:
    """Record the end of a scan; it is packed once all its files are registered."""
    with reported(as_json=json), transaction("scan") as session:
        finish_scan(session, scan, ended_at=ended_at, expected_files=files)
    print_json({"scan": scan}) if json else typer.echo(f"scan {scan} ended")


@app.command()
def correct(
    scan: ScanId,
    *,
    files: Annotated[int, typer.Option(min=0, help="Number of raw files that belong to it.")],
    because: Because,
    json: AsJson = False,
) -> None:
    """Say how many raw files belong to a scan, where a wrong number was told at its end."""
    with reported(as_json=json), transaction("scan") as session:
        changed = correct_scan(session, scan, files=files, because=because, by=person())
    told = f"{counted(files, 'raw file belongs', 'raw files belong')} to scan {scan}"
    print_json({"scan": scan, "changed": changed}) if json else typer.echo(told if changed else f"{told} already")


def _registered(counts: Mapping[str, int], total: int) -> str:
    return (
        f"{counts['new']} new"
        + (f", {counts['replaced']} replaced" if counts["replaced"] else "")
        + f" of {total} files"
    )


def root_of(location: models.DataLocation, name: str) -> Path:
    """Root directory of a disk location."""
    if not isinstance(location, models.DiskDataLocation):
        raise OutsideOfLocation(Path(), name, Path(f"({location.storage_type})"))
    return Path(location.path)


def describe(files: list[Path], scan: uuid.UUID, *, root: Path, location: str, checksums: Path | None) -> list[NewFile]:
    """Raw files as they are registered; a file's UUID follows from scan and path, so that repeating is harmless."""
    known = read_checksums(checksums) if checksums else None
    described = []
    for file in files:
        if not file.resolve().is_relative_to(root.resolve()):
            raise OutsideOfLocation(file, location, root)
        if not file.is_file():
            raise NotAFile(file)
        path = str(file.resolve().relative_to(root.resolve()))
        if not path.isprintable():
            raise UnprintableName(path)
        if known is not None and checksums is not None and file.name not in known:
            raise NotListed(file, checksums)
        size, checksum = measure(file) if known is None else (file.stat().st_size, known[file.name])
        described.append(NewFile(uuid.uuid5(scan, path), path, size, checksum))
    return described


def read_checksums(file: Path) -> Mapping[str, str]:
    """File name → checksum, from the output of `sha256sum`; raises NotAChecksum."""
    known: dict[str, str] = {}
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
        found = _CHECKSUM_LINE.fullmatch(line)
        if found is None:
            raise NotAChecksum(file, number, f"`{line:.80}` is no SHA-256 with a file name")
        name, checksum = Path(found[2]).name, f"sha256:{found[1]}"
        if known.setdefault(name, checksum) != checksum:
            raise NotAChecksum(file, number, f"{name} has another checksum in a line before")
    return known


def measure(file: Path) -> tuple[int, str]:
    """Size in bytes and `sha256:…` of a file; raises StillWritten where somebody writes to it meanwhile."""
    with file.open("rb") as stream:
        before = os.fstat(stream.fileno())
        checksum = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
        after = os.fstat(stream.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise StillWritten(file)
    return after.st_size, checksum
