from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, Before, Limit, print_json, print_table
from ccat.wiring import transaction
from ccat_ops_db import models
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.alerts import Alerts, list_alerts

_COLUMNS: Final = ["id", "since", "kind", "number", "sentence", "told_at", "cleared_at"]
_SILENCE: Final = timedelta(minutes=2)


def alerts(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also what is over.")] = False,
    limit: Limit = 50,
    before: Before = None,
    json: AsJson = False,
) -> None:
    """List what is the matter, and whether people were told."""
    with reported(as_json=json), transaction("alerts") as session:
        found = list_alerts(session, everything=everything, limit=limit, before=before)
        rows = [_row(one) for one in found.alerts]
    if json:
        print_json({**vars(found), "alerts": rows})
    else:
        print_table(counted(len(rows), "alert", "alerts"), _COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])
        for line in _warnings(found, datetime.now(UTC)):
            typer.echo(line)


def _row(one: models.Alert) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("key", *_COLUMNS)}


def _warnings(found: Alerts, now: datetime) -> Iterator[str]:
    """What would make the list, or its silence, mean nothing."""
    if found.looked_at is None:
        yield "\nno process has ever looked: start the managers"
    elif now - found.looked_at > _SILENCE:
        yield f"\nno process has looked since {found.looked_at:%F %T}: start the managers"
    if found.hook_failure:
        tries = counted(found.hook_tries, "time", "times")
        yield f"\nnot everybody is told, as the hook failed {tries} in a row; it is tried on: {found.hook_failure}"
