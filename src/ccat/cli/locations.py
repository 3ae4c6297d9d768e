from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, counted, print_json, print_table
from ccat.wiring import transaction
from ccat_ops_db.plan.spaces import SpaceState, size
from ccat_ops_db.queries.spaces import LocationNow, list_locations

_COLUMNS = ["id", "location", "type", "backend", "free", "reserve", "state", "live", "paused", "path"]


def locations(*, json: AsJson = False) -> None:
    """List where data lie and are processed, with the room that is left."""
    with reported(as_json=json), transaction("locations") as session:
        found = list_locations(session, now=datetime.now(UTC))
    if json:
        print_json(found)
    else:
        print_table(counted(len(found), "location", "locations"), _COLUMNS, _rows(found))


def _rows(found: Iterable[LocationNow]) -> Iterable[Sequence[object]]:
    for one in found:
        free = None if one.free_bytes is None else f"{size(one.free_bytes)} of {size(one.total_bytes or 0)}"
        reserve = size(one.reserve_bytes) if one.reserve_bytes else None
        live = f"{one.live} of {one.live_limit}" if one.live_limit else str(one.live)
        runs = live if one.backend else None
        yield one.id, one.name, one.type, one.backend, free, reserve, _state(one), runs, one.paused, one.path


def _state(one: LocationNow) -> str:
    if one.state is SpaceState.UNKNOWN and one.checked_at:
        return f"unknown since {one.checked_at:%F %T}"
    return one.state
