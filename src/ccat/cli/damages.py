from typing import Annotated, Final

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, Limit, print_json, print_table
from ccat.wiring import transaction
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.damage import COUNTED_FOR, Damage
from ccat_ops_db.queries.damage import damage as look_up

_COLUMNS: Final = ("found at", "archive", "path", "was", "what was found", "by", "mended", "from")


def damage(
    *,
    days: Annotated[int, typer.Option(min=1, max=36_600, help="How far to look back.")] = COUNTED_FOR.days,
    limit: Limit = 50,
    json: AsJson = False,
) -> None:
    """List archive copies that were found damaged or gone, the last first, and how each was mended."""
    with reported(as_json=json), transaction("transfer") as session:
        found = look_up(session, days=days, limit=limit)
    if json:
        print_json(found)
    else:
        print_table(counted(len(found), "archive copy", "archive copies"), _COLUMNS, map(_cells, found))


def _cells(one: Damage) -> tuple[object, ...]:
    return one.found_at, one.archive, one.path, one.was, one.because, one.by, one.mended or "not yet", one.made_from
