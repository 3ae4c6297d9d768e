from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from ccat.backup.errors import BackupDamaged, ProgramFailed
from ccat.backup.manifest import DUMP, Manifest, Part, read_manifest
from ccat.backup.programs import contents
from ccat.backup.telling import progress

_CHUNK: Final = 1 << 20


def measure(file: Path) -> Part:
    """Size and digest of a file, read from the disk."""
    digest, done = sha256(), 0
    with file.open("rb") as source, progress(f"Reading {file.name}", total=file.stat().st_size) as show:
        while data := source.read(_CHUNK):
            digest.update(data)
            done += len(data)
            show(done)
    return Part(size_bytes=done, sha256=digest.hexdigest())


def verify(backup: Path) -> Manifest:
    """Read all of a backup, and let `pg_restore` list its dump; raises NotABackup and BackupDamaged."""
    manifest = read_manifest(backup)
    if problems := list(_problems(backup, manifest)):
        raise BackupDamaged(backup, problems)
    try:
        contents(backup / DUMP, version=manifest.postgresql)
    except ProgramFailed as error:
        raise BackupDamaged(backup, [str(error)]) from error
    return manifest


def _problems(backup: Path, manifest: Manifest) -> Iterator[str]:
    for name, recorded in manifest.parts.items():
        try:
            found = measure(backup / name)
        except OSError as error:
            yield f"{name} cannot be read ({error.strerror})"
            continue
        if found.size_bytes != recorded.size_bytes:
            yield f"{name} has {found.size_bytes:,} bytes, and {recorded.size_bytes:,} were written"
        elif found.sha256 != recorded.sha256:
            yield f"the bytes of {name} are others than were written"
