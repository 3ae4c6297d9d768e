"""Bits that change in copies behind everybody's back: in any copy, but never in the last one that is intact."""

import io
import os
import random
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PhysicalCopyStatus
from tests.transfer.object_store import ObjectStore
from tests.transfer.support import Observatory, digest

BUFFERS: Final = ("ccat/buffer", "cologne/buffer")
BUCKET_ARCHIVE, DISK_ARCHIVE = "cologne/s3", "cologne/lta"
ARCHIVES: Final = (BUCKET_ARCHIVE, DISK_ARCHIVE)
_PREFIX: Final = "fyst/"
_Copy = models.PhysicalCopy


def read_archived(observatory: Observatory, store: ObjectStore, location: str, path: str) -> bytes:
    """What an archive has under a path."""
    if location == BUCKET_ARCHIVE:
        return store.get(_PREFIX + path)
    return (observatory.directory(location) / path).read_bytes()


@dataclass
class Rot:
    """What makes bits change."""

    observatory: Observatory
    store: ObjectStore
    random: random.Random

    def flip(self, *, only_at: str | None = None) -> str | None:
        """Change one bit of a tar somewhere; where, None where there is none that may rot."""
        where = only_at or self.random.choice((*BUFFERS, *ARCHIVES))
        return self._flip_archived(where) if where in ARCHIVES else self._flip_buffered(where)

    def _flip_buffered(self, where: str) -> str | None:
        """Of any tar, finished or not: what is not in an archive yet is at its source."""
        found = sorted(self.observatory.directory(where).rglob("*.tar*"))
        if not found:
            return None
        file = self.random.choice(found)
        with suppress(OSError):  # it went on its way
            self._flip_on_disk(file)
            return f"{where}/{file.name}"
        return None

    def _flip_archived(self, where: str) -> str | None:
        """Of a package that both archives have, and have whole."""
        both = self._in_both()
        if not both:
            return None
        package_id = self.random.choice(sorted(both))
        paths, checksum = both[package_id]
        if {digest(read_archived(self.observatory, self.store, *one)) for one in paths.items()} != {checksum}:
            return None
        if where == BUCKET_ARCHIVE:
            self.store.damage(_PREFIX + paths[where], self._flipped)
        else:
            self._flip_on_disk(self.observatory.directory(where) / paths[where])
        return f"{where}/{Path(paths[where]).name}"

    def _in_both(self) -> dict[int, tuple[dict[str, str], str]]:
        """Packages whose copies count in both archives: the paths there by archive, and the digest."""
        package = models.RawDataPackage
        query = (
            LOCATION.rows.with_only_columns(package.id, package.checksum, LOCATION.label, _Copy.path)
            .join(_Copy, _Copy.data_location_id == models.DataLocation.id)
            .join(package, package.id == _Copy.raw_data_package_id)
            .where(LOCATION.label.in_(ARCHIVES), _Copy.status == PhysicalCopyStatus.PRESENT)
            .where(_Copy.verified_at.is_not(None))
        )
        found: dict[int, tuple[dict[str, str], str]] = {}
        with transaction(self.observatory.engine) as session:
            for package_id, checksum, where, path in session.execute(query):
                found.setdefault(package_id, ({}, checksum or ""))[0][where] = path
        return {number: one for number, one in found.items() if len(one[0]) == len(ARCHIVES)}

    def _flip_on_disk(self, file: Path) -> None:
        """As rot does it: nothing says that somebody wrote there."""
        before = file.stat()
        file.chmod(0o600)
        with file.open("r+b") as opened:
            opened.seek(self.random.randrange(max(1, file.stat().st_size)))
            [byte] = opened.read(1) or b"\0"
            opened.seek(-1, io.SEEK_CUR)
            opened.write(bytes([byte ^ 1 << self.random.randrange(8)]))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _flipped(self, data: bytes) -> bytes:
        at, bit = self.random.randrange(len(data)), 1 << self.random.randrange(8)
        return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def damaged(observatory: Observatory, store: ObjectStore) -> list[str]:
    """Archive copies that count, and are not what was archived."""
    package = models.RawDataPackage
    query = (
        LOCATION.rows.with_only_columns(LOCATION.label, _Copy.path, package.checksum)
        .join(_Copy, _Copy.data_location_id == models.DataLocation.id)
        .join(package, package.id == _Copy.raw_data_package_id)
        .where(LOCATION.label.in_(ARCHIVES), _Copy.status == PhysicalCopyStatus.PRESENT)
    )
    with transaction(observatory.engine) as session:
        rows = session.execute(query.order_by(sa.desc(_Copy.id))).all()
    return [
        f"{where}/{path}"
        for where, path, checksum in rows
        if digest(read_archived(observatory, store, where, path)) != checksum
    ]
