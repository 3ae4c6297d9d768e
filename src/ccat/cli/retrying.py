import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from ccat.cli.errors import reported
from ccat.cli.output import LARGEST_ID, AsJson, Limit, print_json, print_table
from ccat.cli.runs import require_known
from ccat.wiring import person, transaction
from ccat_ops_db.errors import CcatError
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.failures import Alike, fingerprint_of, list_failures, runs_alike
from ccat_ops_db.queries.runs import Filter
from ccat_ops_db.verbs.retrying import Retried, retry_runs

_MANY: Final = 20
_LISTED: Final = 10
_BY_HAND: Final = "asked for by hand"

RunIds = Annotated[list[int] | None, typer.Argument(metavar="[RUN...]", min=1, max=LARGEST_ID, help="Numbers of runs.")]
Like = Annotated[
    int | None, typer.Option(metavar="RUN", min=1, max=LARGEST_ID, help="All whose failure is like that of this run.")
]
Fingerprint = Annotated[str | None, typer.Option(help="All whose failure has this fingerprint: `ccat failures`.")]
Because = Annotated[str | None, typer.Option("--because", help="Why, in words; it is kept.", show_default=_BY_HAND)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be tried again, and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help=f"Do not ask, though it is more than {_MANY}.")]


class TooManyAlike(CcatError):
    """More runs would be tried again than somebody may have thought of."""

    code = "too_many_alike"

    def __init__(self, number: int) -> None:
        super().__init__(
            f"{number:,} runs would be tried again, more than {_MANY}: `--dry-run` shows which, `--yes` does it all "
            "the same. Nothing was tried again."
        )


def retry(
    run: RunIds = None,
    *,
    like: Like = None,
    fingerprint: Fingerprint = None,
    because: Because = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: AsJson = False,
) -> None:
    """Try failed runs again, as if they had not been before: those that are named, or all whose failure is alike."""
    if [bool(run), like is not None, fingerprint is not None].count(True) != 1:
        raise typer.BadParameter("name runs, or one of --like and --fingerprint")
    with reported(as_json=json):
        chosen = sorted(set(run or ())) or _alike(like, fingerprint or "")
        _agree(len(chosen), yes=yes or dry_run, can_ask=sys.stdin.isatty() and not json)
        done = _retry(chosen, because=because or _BY_HAND, dry_run=dry_run)
    _tell(done, dry_run=dry_run, json=json)


def _alike(like: int | None, fingerprint: str) -> Sequence[int]:
    with transaction("retry") as session:
        return runs_alike(session, fingerprint if like is None else fingerprint_of(session, like))


def _retry(run_ids: Sequence[int], *, because: str, dry_run: bool) -> Retried:
    with transaction("retry") as session:
        done = retry_runs(session, run_ids, because=because, by=person())
        if dry_run:
            session.rollback()
        return done


def _agree(number: int, *, yes: bool, can_ask: bool) -> None:
    if number <= _MANY or yes:
        return
    if not can_ask:
        raise TooManyAlike(number)
    typer.confirm(f"Try {number:,} runs again?", abort=True)


def _tell(done: Retried, *, dry_run: bool, json: bool) -> None:
    if json:
        print_json({"dry_run": dry_run, "retried": done.retried, "refused": done.refused})
    else:
        typer.echo("\n".join([_said(done.retried, dry_run=dry_run), *done.refused.values()]))
    if done.refused and not done.retried:
        raise typer.Exit(1)


def _said(run_ids: Sequence[int], *, dry_run: bool) -> str:
    if not run_ids:
        return "nothing is tried again"
    listed = ", ".join(map(str, run_ids[:_LISTED])) + (", …" if len(run_ids) > _LISTED else "")
    what = counted(len(run_ids), "run", "runs")
    return f"{what} {'would be' if dry_run else 'are' if len(run_ids) > 1 else 'is'} tried again: {listed}"


def failures(
    *,
    pipeline: Annotated[str | None, typer.Option(help="Only runs of this pipeline.")] = None,
    step: Annotated[str | None, typer.Option(help="Only runs of this step.")] = None,
    limit: Limit = 50,
    json: AsJson = False,
) -> None:
    """List what failed and was not done since, those together that are alike, the most frequent first."""
    with reported(as_json=json), transaction("failures") as session:
        require_known(session, pipeline, step)
        found = list_failures(session, Filter(pipeline, step), limit=limit)
    if json:
        print_json(found)
    else:
        columns = ["runs", "tried again", "class", "steps", "last", "newest", "fingerprint", "cause"]
        print_table(counted(len(found), "kind of failure", "kinds of failures"), columns, map(_cells, found))


def _cells(one: Alike) -> list[Any]:
    steps = ", ".join(one.steps)
    return [one.runs, one.waiting, one.failure_class, steps, one.last_at, one.run_id, one.fingerprint, one.cause]
