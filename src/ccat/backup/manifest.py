"""What a backup says about itself: `manifest.json`, written last."""

from datetime import datetime
from pathlib import Path
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from ccat.backup.errors import NotABackup

MANIFEST: Final = "manifest.json"
DUMP: Final = "database.dump"
DEFINITIONS: Final = "definitions.yaml"
PARTS: Final = (DUMP, DEFINITIONS)


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Told):
    """One file of a backup."""

    size_bytes: int
    sha256: str


class Manifest(_Told):
    """Of which installation it is, as of when, and what it must look like."""

    format: Literal[1] = 1
    taken_at: datetime
    installation_id: UUID
    program_version: str
    schema_revision: str
    postgresql: int
    """Major version of the `pg_dump` that wrote it; only one as new reads it."""
    database_bytes: int
    """Size of the whole database, indexes and all."""
    data_dir: str | None
    """Of an embedded stack."""
    rows: dict[str, int]
    """How many the main tables had."""
    parts: dict[Literal["database.dump", "definitions.yaml"], Part]


def read_manifest(backup: Path) -> Manifest:
    """The manifest of a backup; raises NotABackup."""
    path = backup / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise NotABackup(backup, f"{MANIFEST} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"]))
        raise NotABackup(backup, f"{MANIFEST}: {place + ': ' if place else ''}{detail['msg']}") from error
    if missing := set(PARTS) - manifest.parts.keys():
        raise NotABackup(backup, f"{MANIFEST} lacks {', '.join(sorted(missing))}")
    return manifest
