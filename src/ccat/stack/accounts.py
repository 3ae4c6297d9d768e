"""PostgreSQL refuses to run as root; root runs it as a user who owns nothing else."""

import os
import pwd
import stat
import subprocess
from pathlib import Path

from ccat.stack.errors import AccountMissing, UnreachableForAccount

_NAME = "pgserver"


def server_account() -> pwd.struct_passwd | None:
    """The account to run PostgreSQL as, created where it is missing; None where we are not root."""
    if os.geteuid() != 0:
        return None
    return _find() or _create()


def _find() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(_NAME)
    except KeyError:
        return None


def _create() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _NAME]
    try:
        reason = subprocess.run(command, check=False, capture_output=True, text=True).stderr.strip()
    except OSError as error:
        reason = str(error)
    account = _find()  # also there when another process created it at the same moment
    if account is None:
        raise AccountMissing(_NAME, reason)
    return account


def check_reachable(program: Path, account: pwd.struct_passwd | None) -> None:
    """Raise where one of the program's parent directories is closed to the account."""
    if account is None:
        return
    closed = next((parent for parent in program.resolve().parents if not _lets_pass(parent)), None)
    if closed:
        raise UnreachableForAccount(program, closed=closed, account=account.pw_name)


def _lets_pass(directory: Path) -> bool:
    return bool(directory.stat().st_mode & stat.S_IXOTH)
