import json
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ccat_ops_db.errors import CcatError


@contextmanager
def reported(*, as_json: bool = False) -> Iterator[None]:
    """End the command with exit code 1 and one line on stderr where the block raises a CcatError.

    The line is `error: …` for people, an object with `code` and `message` for programs.
    """
    try:
        yield
    except CcatError as error:
        message = " ".join(str(error).splitlines())
        shown = json.dumps({"code": error.code, "message": message}, ensure_ascii=False)
        typer.echo(shown if as_json else f"error: {message}", err=True)
        raise SystemExit(1) from error
