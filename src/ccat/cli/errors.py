import json
import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import typer
from typer.exceptions import Abort, Exit, TyperException

from ccat_ops_db.errors import CcatError
from ccat_service.trouble import is_transient

_DEBUG = "CCAT_DEBUG"
_USAGE = 2


@contextmanager
def reported(*, as_json: bool = False, last_resort: bool = True) -> Iterator[None]:
    """End the command with exit code 1 and one line on stderr where the block raises an error.

    The line is `error: …` for people, an object with `code` and `message` for programs. What nobody foresaw is told in
    one line too, with its traceback where CCAT_DEBUG is set; without `last_resort` it is left to the log.
    """
    try:
        yield
    except CcatError as error:
        _end(error.code, str(error), as_json=as_json)
    except (Abort, Exit, TyperException):
        raise
    except Exception as error:
        if not last_resort:
            raise
        if os.environ.get(_DEBUG):
            traceback.print_exc()
        code, message = _told(error)
        _end(code, message, as_json=as_json)


def _told(error: Exception) -> tuple[str, str]:
    first_line = str(error).strip().partition("\n")[0]
    if isinstance(error, OSError):
        return "system", f"{first_line}; nothing more was done"
    if is_transient(error):
        return "trouble", f"{first_line}; try it again"
    hint = f"This is a defect, please report it; {_DEBUG}=1 shows where it is"
    return "unexpected", f"unexpected {type(error).__name__}: {first_line}. {hint}"


def _end(code: str, message: str, *, as_json: bool) -> NoReturn:
    line = " ".join(message.splitlines())
    typer.echo(_for_programs(code, line) if as_json else f"error: {line}", err=True)
    raise SystemExit(1)


def run_for_programs(app: typer.Typer, arguments: Sequence[str]) -> NoReturn:
    """Run a command line that asks for JSON: what is wrong with its usage is an object on stderr too."""
    try:
        code = app(args=list(arguments), standalone_mode=False)
    except TyperException as error:
        typer.echo(_for_programs("usage", error.format_message()), err=True)
        raise SystemExit(_USAGE) from error
    raise SystemExit(code or 0)


def refuse_unreadable(arguments: Sequence[str]) -> None:
    """End the command where an argument has bytes that are no text: no database keeps them, no terminal shows them."""
    as_json = "--json" in arguments
    for one in arguments:
        if any("\ud800" <= letter <= "\udfff" for letter in one):
            message = f"argument `{one.encode('utf-8', 'replace').decode()}` has bytes that are no UTF-8; type it anew"
            typer.echo(_for_programs("usage", message) if as_json else f"error: {message}", err=True)
            raise SystemExit(_USAGE)


def _for_programs(code: str, message: str) -> str:
    return json.dumps({"code": code, "message": message}, ensure_ascii=False)
