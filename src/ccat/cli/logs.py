"""`ccat run logs`: what the software of a run wrote, as files where these are here, else as far as it was kept."""

import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from sqlalchemy.orm import Session

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json
from ccat.cli.runs import RunId
from ccat.wiring import open_database, run_base
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.queries.runs import get_run
from ccat_service.database import DatabaseConnection
from ccat_workflow_manager.execution.layout import AttemptLayout
from ccat_workflow_manager.execution.logs import Line, Log, Stream

_PAUSE: Final = timedelta(milliseconds=300)

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt is over, as it writes.")]
Number = Annotated[int | None, typer.Option("--attempt", metavar="N", min=1, help="Of this attempt, not the last.")]
Lines = Annotated[int, typer.Option(min=0, max=1_000_000, help="So many of the last lines, of each stream.")]


class NoAttempt(CcatError):
    """The log of an attempt was asked for that does not exist."""

    code = "no_attempt"

    def __init__(self, run_id: int, number: int | None, *, made: int) -> None:
        which = "no attempt yet, and so no log" if number is None else f"no attempt {number}; it has had {made}"
        super().__init__(f"Run {run_id} has {which}: `ccat run why {run_id}` says why it is where it is.")


class LogNotHere(CcatError):
    """A log is to be followed whose files cannot be seen from here."""

    code = "log_not_here"

    def __init__(self, run_id: int, directory: str) -> None:
        super().__init__(
            f"The files of run {run_id} are not here, so its log cannot be followed: they are in {directory}, below "
            "the pipeline base directory of its location. Without --follow its last lines are shown, once it is over."
        )


@dataclass(frozen=True)
class _Attempt:
    number: int
    directory: str
    can_be_here: bool
    """Whether the run directories of its location are seen from here."""
    log: Log | None
    """None where its files are not here."""
    kept: str | None
    is_prepared: bool
    """Whether its directories were made, where it runs."""
    is_over: bool
    location: str
    """As `ccat locations` calls it."""


def logs(
    run: RunId, *, follow: Follow = False, attempt: Number = None, lines: Lines = 50, json: AsJson = False
) -> None:
    """Show what a run wrote last; errors go to standard error."""
    if follow and json:
        raise typer.BadParameter("--follow shows lines as they come: it does not go with --json")
    with reported(as_json=json), closing(open_database("run logs")) as database:
        database.require_current_schema()
        found = _find(database, run, attempt)
        if follow:
            _follow(database, run, found, lines=lines)
        else:
            _show(run, found, lines=lines, json=json)


def _find(database: DatabaseConnection, run_id: int, number: int | None) -> _Attempt:
    with database.transaction() as session:
        run = get_run(session, run_id)
        chosen = [one for one in run.attempts if number in {None, one.number}]
        if not chosen:
            raise NoAttempt(run_id, number, made=len(run.attempts))
        attempt, base = chosen[-1], run_base(session, run)
        return _Attempt(
            number=attempt.number,
            directory=attempt.directory,
            can_be_here=base is not None and base.is_dir(),
            log=_log(base, attempt),
            kept=attempt.log_tail,
            is_prepared=attempt.prepared_at is not None,
            is_over=attempt.ended_at is not None,
            location=_location(session, run),
        )


def _location(session: Session, run: models.ExecutedReductionStep) -> str:
    location = session.get_one(models.DataLocation, run.data_location_id)
    return f"{location.site.short_name}/{location.name}"


def _log(base: Path | None, attempt: models.RunAttempt) -> Log | None:
    log = Log(AttemptLayout(base / attempt.directory)) if base is not None else None
    return log if log is not None and log.is_here else None


def _show(run_id: int, found: _Attempt, *, lines: int, json: bool) -> None:
    written = found.log.last(lines) if found.log else _kept(found, lines)
    if json:
        print_json(_as_json(run_id, found, [*written, *(found.log.rest() if found.log else ())]))
        return
    _print([*written, *(found.log.rest() if found.log else ())])
    if not found.log:
        typer.echo(f"({_instead_of_files(run_id, found)})", err=True)


def _instead_of_files(run_id: int, found: _Attempt) -> str:
    """Why nothing is shown but what was kept of a log, or nothing at all."""
    if found.kept is not None:
        return f"as kept when it ended; its files are not here: {found.directory}"
    if found.is_over:
        return f"nothing of it was kept when it ended, and its files are not here: {found.directory}"
    if not found.is_prepared:
        return f"attempt {found.number} has not begun, and so has written nothing"
    away = "" if found.can_be_here else f", as location {found.location} is away, or mounted on other hosts only"
    return (
        f"attempt {found.number} is not over: nothing of its log is kept before that, and its files are not "
        f"here{away}: {found.directory}. `ccat run logs {run_id}` shows them on a host where they are"
    )


def _kept(found: _Attempt, lines: int) -> Sequence[Line]:
    kept = (found.kept or "").splitlines()
    return [Line(Stream.STDOUT, text) for text in kept[-lines:]] if lines else []


def _as_json(run_id: int, found: _Attempt, written: Iterable[Line]) -> dict[str, Any]:
    lines = [{"stream": one.stream if found.log else None, "text": one.text} for one in written]
    return {
        "run": run_id,
        "attempt": found.number,
        "directory": found.directory,
        "is_over": found.is_over,
        "lines": lines,
    }


def _follow(database: DatabaseConnection, run_id: int, found: _Attempt, *, lines: int) -> None:
    """Print what an attempt writes, until it is over; before it begins its files are waited for."""
    while found.log is None:
        if found.is_over or found.kept is not None or not found.can_be_here:
            raise LogNotHere(run_id, found.directory)
        time.sleep(_PAUSE.total_seconds())
        found = _find(database, run_id, found.number)
    log = found.log
    _print(log.last(lines))
    while True:
        is_over = _find(database, run_id, found.number).is_over
        _print(log.more())
        if is_over:
            _print(log.rest())
            return
        time.sleep(_PAUSE.total_seconds())


def _print(lines: Iterable[Line]) -> None:
    for line in lines:
        is_error = line.stream is Stream.STDERR
        typer.secho(line.text, err=is_error, fg=typer.colors.RED if is_error else None)
