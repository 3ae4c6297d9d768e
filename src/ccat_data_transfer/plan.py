"""What goes into which raw package, and when it is time to pack."""

import hashlib
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Final, TypeAlias

from ccat_ops_db.plan.numbers import counted

PACKAGE_LIMIT_BYTES: Final = 50 * 10**9
"""Size that no tar of a raw package exceeds, unless one file alone does."""
QUIET_PERIOD: Final = timedelta(minutes=5)
"""After this long without a new file, what is there is packed."""

GROUPS_AT_ONCE: Final = 200
FILES_AT_ONCE: Final = 10_000
"""That are planned in one transaction; one group may have more files."""

Group: TypeAlias = tuple[uuid.UUID, int]
"""A scan and a module: what has packages of its own."""

RAW: Final = "raw"
"""Directory of all tars, below the root of a buffer or archive."""
_BLOCK: Final = 512
_END_OF_TAR: Final = 10240
_NOT_PATH_SAFE: Final = re.compile(r"[^A-Za-z0-9]+")
_LONGEST_NAME: Final = 60
"""Characters of an instrument or a module in the name of a package: file systems take 255 bytes in all."""


@dataclass(frozen=True)
class UnpackedFile:
    """A raw file that is in no package yet."""

    id: uuid.UUID
    relative_path: str
    size_bytes: int
    location_id: int
    """SOURCE location that it is read from."""


@dataclass(frozen=True, kw_only=True)
class UnpackedFiles:
    """The files of one scan and module that are in no package yet, seen as a whole."""

    group: Group
    number: int
    last_file_at: datetime
    """When the newest of them was registered."""
    scan_ended: bool
    expected_files: int | None
    """Number of files of the scan, of all its modules; None where its instrument does not know."""
    registered_files: int
    """How many of those were registered so far, packed or not."""


def is_time_to_pack(files: UnpackedFiles, *, now: datetime, quiet_period: timedelta) -> bool:
    """Whether the scan is complete, or nothing came for the quiet period."""
    return _is_complete(files) or files.last_file_at + quiet_period <= now


def _is_complete(files: UnpackedFiles) -> bool:
    return files.scan_ended and files.expected_files is not None and files.registered_files >= files.expected_files


def waits_for(files: UnpackedFiles, *, now: datetime, quiet_period: timedelta) -> str:
    """What has to happen before they are packed; they are packed without it once nothing came for the quiet period."""
    if is_time_to_pack(files, now=now, quiet_period=quiet_period):
        return "a transfer-manager, which packs them now; is one up?"
    if not files.scan_ended:
        return "the end of the scan"
    if files.expected_files is None:
        return "the number of its files"
    return f"{counted(files.expected_files - files.registered_files, 'more file', 'more files')} of the scan"


def batches(groups: Iterable[UnpackedFiles]) -> Iterator[Sequence[Group]]:
    """What is planned together, all of it in the order in which it comes."""
    batch: list[Group] = []
    taken = 0
    for files in groups:
        if batch and (taken + files.number > FILES_AT_ONCE or len(batch) == GROUPS_AT_ONCE):
            yield batch
            batch, taken = [], 0
        batch.append(files.group)
        taken += files.number
    if batch:
        yield batch


def divide(files: Iterable[UnpackedFile], *, limit_bytes: int) -> list[list[UnpackedFile]]:
    """The files of each package, in the order of their paths, whatever order they come in.

    A package is packed where its files lie, so that files of two locations never share one.
    """
    ordered = sorted(files, key=lambda file: (file.location_id, file.relative_path))
    return [
        package
        for _, of_location in groupby(ordered, key=lambda file: file.location_id)
        for package in _fill(of_location, limit_bytes - _END_OF_TAR)
    ]


def _fill(files: Iterable[UnpackedFile], room: int) -> Iterator[list[UnpackedFile]]:
    package: list[UnpackedFile] = []
    taken = 0
    for file in files:
        size = tar_member_bytes(file.relative_path, file.size_bytes)
        if package and taken + size > room:
            yield package
            package, taken = [], 0
        package.append(file)
        taken += size
    if package:
        yield package


def tar_bytes(files: Iterable[tuple[str, int]]) -> int:
    """Upper bound of the size of a tar of files, given as path and size."""
    return _END_OF_TAR + sum(tar_member_bytes(path, size) for path, size in files)


def tar_member_bytes(relative_path: str, size_bytes: int) -> int:
    """Upper bound of what a file takes in a tar: its header, an extended one for a long path or size, its blocks."""
    extended = 2 * _BLOCK + _in_blocks(len(relative_path.encode()) + _BLOCK)
    return _BLOCK + extended + _in_blocks(size_bytes)


def _in_blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def package_name(instrument: str, module: str, *, started_at: datetime, scan_id: uuid.UUID, part: int) -> str:
    """Path-safe, unique and readable name: `CHAI-LFA-20260401T021500Z-9f86d081-p1`.

    Where several modules would be called alike, as `A.B` and `A-B`, part of a digest of their names tells them apart.
    """
    start = started_at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{_path_safe(instrument, module)}-{start}-{scan_id.hex[:8]}-p{part}"


def tar_path(name: str, observing_night: date) -> str:
    """Path of a package's tar below the root of a buffer or archive: a directory per night keeps each of them small."""
    return f"{RAW}/{observing_night.isoformat()}/{name}.tar"


def staged_path(name: str) -> str:
    """Path of the directory that a package is unpacked to, below the root of a processing location."""
    return f"raw/{name}"


def _path_safe(instrument: str, module: str) -> str:
    safe = [_NOT_PATH_SAFE.sub("-", name[:_LONGEST_NAME]).strip("-") or "x" for name in (instrument, module)]
    is_plain = safe == [instrument, module] and "-" not in module
    digest = () if is_plain else (hashlib.sha256(f"{instrument}/{module}".encode()).hexdigest()[:6],)
    return "-".join((*safe, *digest))
