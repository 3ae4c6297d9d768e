from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ccat_ops_db.errors import CcatError


class BackupError(CcatError):
    """A backup cannot be made, trusted or restored."""

    code: ClassVar[str] = "backup"


class NoPlaceForBackups(BackupError):
    """Nothing can be written where backups were to lie."""

    code = "no_place_for_backups"

    def __init__(self, directory: Path, problem: str) -> None:
        super().__init__(f"No backup can be made in {directory}: {problem}. Name another directory.")


class BackupUnderWay(BackupError):
    """Somebody else is making a backup in the same place."""

    code = "backup_under_way"

    def __init__(self, directory: Path) -> None:
        super().__init__(f"Another backup is being made in {directory}. Wait for its end, or name another directory.")


class BackupExists(BackupError):
    """There is a backup of this second."""

    code = "backup_exists"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already, and no backup is overwritten. Try again in a second.")


class BackupNotWritten(BackupError):
    """The disk did not take a backup."""

    code = "backup_not_written"

    def __init__(self, directory: Path, problem: str) -> None:
        super().__init__(
            f"The backup could not be written to {directory}: {problem}. Nothing of it was kept; make room there or "
            "name another directory, and try again."
        )


class NotABackup(BackupError):
    """What was named is no backup, or one of a newer kind."""

    code = "not_a_backup"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"{path} is no backup that can be read: {problem}. Name a directory that `ccat backup` made, such as "
            "ccat-20260405T120000Z."
        )


class BackupDamaged(BackupError):
    """A backup is not what it was when it was made."""

    code = "backup_damaged"

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__(f"The backup {path} is damaged: {'; '.join(problems)}. Take another one; nothing was changed.")


class BackupTooNew(BackupError):
    """A newer version of the software made the backup."""

    code = "backup_too_new"

    def __init__(self, path: Path, *, revision: str, known: str, version: str) -> None:
        super().__init__(
            f"The backup {path} has schema revision {revision}, and this version of the software knows them up to "
            f"{known}. Restore it with version {version} or a newer one; nothing was changed."
        )


class ProgramTooOld(BackupError):
    """PostgreSQL's own programs are older than the server, or than what wrote the dump."""

    code = "postgresql_program_too_old"

    def __init__(self, program: str, *, found: int | None, needed: int) -> None:
        there = f"the {program} on PATH is of PostgreSQL {found}" if found else f"there is no {program} on PATH"
        super().__init__(
            f"{program} of PostgreSQL {needed} or newer is needed, and {there}. Install the clients of that version "
            f"(package postgresql-client-{needed} of Debian and others) and put its {program} on PATH."
        )


class ProgramFailed(BackupError):
    """`pg_dump` or `pg_restore` did not do what it should."""

    code = "postgresql_program_failed"

    def __init__(self, program: str, *, how: str, said: str) -> None:
        super().__init__(f"{program} {how}: {said or 'it said nothing'}. Nothing of what it did was kept.")


class DatabaseNotEmpty(BackupError):
    """A backup was to be restored over something."""

    code = "database_not_empty"

    def __init__(self, database: str, tables: Sequence[str]) -> None:
        shown = ", ".join(tables[:3]) + (" …" if len(tables) > len(tables[:3]) else "")
        super().__init__(
            f"{database} holds {len(tables)} tables ({shown}), and a backup is restored into an empty database only. "
            "Name a new --data-dir, or in CCAT_OPS_DB_URL a database that `createdb` has just made; the old one can "
            "be looked at until then. Nothing was changed."
        )


class RestoredDiffers(BackupError):
    """What was restored is not what was backed up."""

    code = "restored_differs"

    def __init__(self, differing: Mapping[str, tuple[int, int]]) -> None:
        told = ", ".join(f"{wanted:,} rows of {name} and not {found:,}" for name, (found, wanted) in differing.items())
        super().__init__(
            f"The database does not hold what the backup says: it should have {told}. It cannot be used as it is; "
            "restore another backup there."
        )
