"""Raw data that are known to be bad are kept out of what is made, and let in again."""

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Final

import typer
from sqlalchemy.orm import Session

from ccat.cli.errors import reported
from ccat.cli.foreseen import by_step, listed, show_runs
from ccat.cli.output import LARGEST_ID, AsJson, Before, Limit, print_json, print_table
from ccat.cli.scans import aware_moment
from ccat.wiring import person, transaction
from ccat_ops_db.errors import CcatError
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.plan.spaces import size
from ccat_ops_db.queries.exclusions import Concerned, ListedExclusion, concerned, list_exclusions
from ccat_ops_db.verbs.excluding import BadData, exclude, lift
from ccat_ops_db.verbs.foreseeing import Caused
from ccat_ops_db.verbs.weighing import Weighed, weigh

Because = Annotated[str, typer.Option(help="Why, for those who read it later.")]
Pixels = Annotated[
    list[str] | None, typer.Option("--pixel", help="A pixel, as its instrument calls it; may be given several times.")
]
Night = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], metavar="DATE", help="Scans of this observing night: the date of its evening."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what that would mean, and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it however many runs it causes; they are not worked out.")]
AskAbove = Annotated[
    int, typer.Option(metavar="N", min=0, help="Ask before causing more than so many runs; without a terminal, refuse.")
]
From = Annotated[
    datetime | None,
    typer.Option("--from", parser=aware_moment, metavar="ISO8601", help="Scans that go on then, or begin later."),
]
To = Annotated[
    datetime | None, typer.Option("--to", parser=aware_moment, metavar="ISO8601", help="Scans that began before.")
]
_COLUMNS: Final = ["id", "what", "from", "to", "pixels", "because", "by", "at", "packages"]
_LIFTED: Final = ["lifted_at", "lifted_by", "lifted_because"]

_Change = Callable[[Session], Collection[int]]
"""Makes or lifts exclusions; their ids."""


class TooMuchRedone(CcatError):
    """Excluding data, or letting them in again, would cause more runs than somebody may have thought of."""

    code = "too_much_redone"

    def __init__(self, runs: Sequence[Caused], *, most: int) -> None:
        numbers = by_step(runs)
        super().__init__(
            f"That would cause {counted(numbers.total(), 'run', 'runs')}, more than {most:,}: {listed(numbers)}. "
            f"`--dry-run` shows why; `--yes` does it all the same, `--ask-above {numbers.total()}` unless there are "
            "still more. Nothing was changed."
        )


@dataclass(frozen=True, kw_only=True)
class _Consent:
    """How much may be done without a question."""

    dry_run: bool
    yes: bool
    ask_above: int
    json: bool

    @property
    def can_ask(self) -> bool:
        return sys.stdin.isatty() and not self.json


@dataclass(frozen=True)
class _Done:
    """What making or lifting exclusions did."""

    exclusions: Sequence[int]
    concerned: Concerned


def exclude_it(
    *,
    instrument: Annotated[str | None, typer.Option(help="All of its modules, unless some are named.")] = None,
    module: Annotated[list[str] | None, typer.Option(metavar="INSTRUMENT/MODULE", help="May be given twice.")] = None,
    begins_at: From = None,
    ends_at: To = None,
    night: Night = None,
    pixel: Pixels = None,
    because: Because,
    dry_run: DryRun = False,
    yes: Yes = False,
    ask_above: AskAbove = 100,
    json: AsJson = False,
) -> None:
    """Keep raw data that are known to be bad out of what is made, also those that come later; nothing is deleted."""
    bad = BadData(
        instrument=instrument,
        modules=module or (),
        begins_at=begins_at,
        ends_at=ends_at,
        night=night.date() if night else None,
        pixels=pixel or (),
    )
    consent = _Consent(dry_run=dry_run, yes=yes, ask_above=ask_above, json=json)
    with reported(as_json=json):
        done = _agreed(partial(_exclude, bad=bad, because=because), consent)
        if done is not None:
            print_json(done) if json else _tell_excluded(done, is_whole=not pixel)


def readmit_it(
    exclusion: Annotated[int, typer.Argument(min=1, max=LARGEST_ID, help="Number of the exclusion.")],
    *,
    because: Because,
    dry_run: DryRun = False,
    yes: Yes = False,
    ask_above: AskAbove = 100,
    json: AsJson = False,
) -> None:
    """Lift an exclusion: what it kept out is let in again, unless another one does."""
    consent = _Consent(dry_run=dry_run, yes=yes, ask_above=ask_above, json=json)
    with reported(as_json=json):
        done = _agreed(partial(_readmit, number=exclusion, because=because), consent)
        if done is not None:
            print_json(done) if json else _tell_lifted(exclusion, done)


def exclusions(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were lifted.")] = False,
    limit: Limit = 50,
    before: Before = None,
    json: AsJson = False,
) -> None:
    """List what is excluded, by whom and why, the newest first."""
    with reported(as_json=json), transaction("exclusions") as session:
        found = list_exclusions(session, everything=everything, limit=limit, before=before)
    if json:
        print_json(found)
    else:
        columns = [*_COLUMNS, *(_LIFTED if everything else ())]
        print_table(counted(len(found), "exclusion", "exclusions"), columns, [_cells(one, columns) for one in found])


def _exclude(session: Session, *, bad: BadData, because: str) -> Sequence[int]:
    return [one.id for one in exclude(session, bad, because=because, by=person())]


def _readmit(session: Session, *, number: int, because: str) -> Sequence[int]:
    lifted = lift(session, number, because=because, now=datetime.now(UTC), by=person())
    return [number] if lifted.held else []


def _agreed(change: _Change, consent: _Consent) -> _Done | None:
    """Make a change that causes few runs, or that somebody agrees to; nothing is locked while that is asked.

    None where it was not to be made.
    """
    if consent.dry_run or not consent.yes:
        weighed = _weigh(change)
        if consent.dry_run:
            print_json(weighed) if consent.json else _tell_weighed(weighed)
            return None
        _ask(weighed, consent)
    with transaction("exclude") as session:
        numbers = list(change(session))
        return _Done(numbers, concerned(session, numbers))


def _weigh(change: _Change) -> Weighed:
    with transaction("exclude") as session:
        return weigh(session, partial(change, session), now=datetime.now(UTC), by=person())


def _ask(weighed: Weighed, consent: _Consent) -> None:
    runs = weighed.foreseen.runs
    number = sum(one.runs for one in runs)
    if number <= consent.ask_above:
        return
    if not consent.can_ask:
        raise TooMuchRedone(runs, most=consent.ask_above)
    _tell_weighed(weighed)
    typer.confirm(f"Do that, and cause {number:,} runs?", abort=True)


def _tell_weighed(weighed: Weighed) -> None:
    typer.echo(f"it is of {_packages(weighed.concerned)}")
    for one in weighed.sub_groups:
        emptied = f", {one.emptied:,} of which would be left with nothing" if one.emptied else ""
        typer.echo(
            f"{one.pipeline}/{one.step}: {counted(one.sub_groups, 'sub-group', 'sub-groups')} with them{emptied}"
        )
    show_runs(weighed.foreseen.runs)
    for pipeline, because in weighed.foreseen.unknown.items():
        typer.echo(f"warning: which runs pipeline {pipeline} would have is not known: {because}", err=True)


def _packages(found: Concerned) -> str:
    return f"{counted(found.packages, 'raw package', 'raw packages')}, {size(found.size_bytes)}"


def _tell_excluded(done: _Done, *, is_whole: bool) -> None:
    if not done.exclusions:
        typer.echo("that is excluded already; the first reason stays")
        return
    verb = "keeps out" if is_whole else "leaves pixels out of"
    typer.echo(f"{_named(done.exclusions)} {verb} {_packages(done.concerned)}, and what comes later")
    if not done.concerned.packages:
        typer.echo("warning: there is no such raw package yet; is it the right time and module?", err=True)


def _tell_lifted(number: int, done: _Done) -> None:
    if not done.exclusions:
        typer.echo(f"exclusion {number} was lifted before; the first reason stays")
        return
    held = f"; {done.concerned.out:,} of them stay out by another one" if done.concerned.out else ""
    typer.echo(f"exclusion {number} of {_packages(done.concerned)} is lifted{held}")


def _named(numbers: Sequence[int]) -> str:
    return f"{'exclusion' if len(numbers) == 1 else 'exclusions'} {', '.join(map(str, numbers))}"


def _cells(one: ListedExclusion, columns: Sequence[str]) -> list[object]:
    told = vars(one) | {"from": one.begins_at, "to": one.ends_at, "pixels": ", ".join(one.pixels or ())}
    return [told[column] for column in columns]
