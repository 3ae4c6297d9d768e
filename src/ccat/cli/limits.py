from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json, print_table
from ccat.wiring import transaction
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.limits import Pace, limits_now, paces
from ccat_ops_db.verbs.limiting import limit_every_user, limit_location, limit_user

Location = Annotated[str | None, typer.Option(metavar="SITE/NAME", help="Of what runs at this processing location.")]
User = Annotated[str | None, typer.Option(metavar="NAME", help="Of all pipelines of this user.")]
EveryUser = Annotated[bool, typer.Option("--every-user", help="Of all pipelines of each user who has no other limit.")]
Live = Annotated[int | None, typer.Option(metavar="N", min=1, max=10**9, help="At most so many runs are live.")]
Unlimited = Annotated[bool, typer.Option("--unlimited", help="Take the limit away.")]


def limit(
    *,
    location: Location = None,
    user: User = None,
    every_user: EveryUser = False,
    live: Live = None,
    unlimited: Unlimited = False,
    json: AsJson = False,
) -> None:
    """Limit how many runs are live at a time; those of a pipeline are limited by `limits` in its definition."""
    if (live is None) == (not unlimited):
        raise typer.BadParameter("name one of --live and --unlimited")
    if [location is not None, user is not None, every_user].count(True) != 1:
        raise typer.BadParameter("name one of --location, --user and --every-user")
    with reported(as_json=json), transaction("limit") as session:
        what = _limit(session, live, location=location, user=user)
    told = f"{what} are not limited any more." if live is None else f"{what} are limited to {live} at a time."
    print_json({"what": what, "live": live}) if json else typer.echo(told)


def _limit(session: Session, live: int | None, *, location: str | None, user: str | None) -> str:
    """Set the limit of the one thing that is named; what it counts, in words."""
    if location is not None:
        limit_location(session, location, live)
        return f"Live runs at {location}"
    if user is not None:
        limit_user(session, user, live)
        return f"Live runs of user {user}"
    limit_every_user(session, live)
    return "Live runs of each user"


@dataclass(frozen=True)
class _Row:
    """One limit, and how far it is used."""

    what: str
    most: int | str
    now: int | str | None


def limits(*, json: AsJson = False) -> None:
    """Show every limit on runs, and how far it is used now."""
    with reported(as_json=json), transaction("limits") as session:
        rows = list(_rows(session, datetime.now(UTC)))
    if json:
        print_json(rows)
    else:
        print_table(
            counted(len(rows), "limit", "limits"),
            ["what", "limit", "now"],
            [(one.what, one.most, one.now) for one in rows],
        )


def _rows(session: Session, now: datetime) -> Iterator[_Row]:
    for one in limits_now(session, now=now).live:
        yield _Row(f"live {one.counted}", one.most, one.live)
    for pace in paces(session):
        yield from _of_pace(pace, now)


def _of_pace(pace: Pace, now: datetime) -> Iterator[_Row]:
    if pace.created_per_minute is not None:
        yield _Row(f"runs of pipeline `{pace.pipeline}` created per minute", pace.created_per_minute, None)
    if pace.redo_between is not None:
        until = pace.closed_until(now)
        state = f"closed until {until:%F %H:%M} UTC" if until else "open"
        yield _Row(f"runs of pipeline `{pace.pipeline}` that redo start", str(pace.redo_between), state)
