import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import sqlalchemy as sa
import typer
from sqlalchemy.orm import Session

from bench.database import ops_db
from bench.figures import Figure, memory_mb, seconds
from bench.packages import archive
from ccat_ops_db.grouping.checking import check_rules
from ccat_ops_db.grouping.compile import select_packages
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.rules import parse_rules
from ccat_ops_db.queries.previews import preview

NOW: Final = datetime(2025, 12, 1, tzinfo=UTC)
CONES: Final = 25
PREVIEWS: Final[Mapping[str, tuple[Sequence[Any], Sequence[str]]]] = {
    "everything, by source": ([], ["source"]),
    "everything but a source, by night and module": (
        [{"not": {"preset": "by-source", "with": {"source": "S7"}}}],
        ["observing_night", "instrument_module"],
    ),
    "an instrument, by line": ([{"preset": "by-instrument", "with": {"instrument": "CHAI"}}], ["ObsUnit.line_id"]),
    "a line, by source": ([{"preset": "by-line", "with": {"line": "CO43"}}], ["source"]),
    "a month, by night": ([{"preset": "last-days", "with": {"days": 30}}], ["observing_night"]),
    "a cone, by source": (
        [{"cone": {"ra_deg": 266.4, "dec_deg": -29.0, "radius_deg": 2}}],
        ["source"],
    ),
    "metadata, by source": (
        [{"table": "RawDataPackage", "column": "metadata", "json_path": "band", "operator": "eq", "value": "B3"}],
        ["source"],
    ),
    "what is rare and no index leads to, by night": (
        [
            {
                "table": "ExecutedObsUnit",
                "column": "conditions",
                "json_path": "weather.pwv_mm",
                "operator": "lt",
                "value": 0.001,
            }
        ],
        ["observing_night"],
    ),
}


def measure(
    *, size: Annotated[int, typer.Option(min=1, help="So many packages, of a tenth as many sources.")] = 1_000_000
) -> Iterator[Figure]:
    """How long people wait for the preview of a grouping, and for what lies in a circle on the sky.

    Of several previews the slowest counts, of the cones the median.
    """
    with ops_db() as engine:
        print(f"archiving {size} packages", flush=True)
        archive(engine, size)
        with Session(engine) as session:
            yield Figure("preview_1m_ms", 1000 * max(_previews(session, exact=False)), at_most=500)
            yield Figure("preview_exact_s", max(_previews(session, exact=True)), at_most=5)
            yield Figure("cone_ms", 1000 * statistics.median(_cones(session)), at_most=10)
    yield Figure("memory_mb", memory_mb())


def _previews(session: Session, *, exact: bool) -> Iterator[float]:
    """Duration of each preview in seconds."""
    for name, (rules, group_by) in PREVIEWS.items():
        duration = seconds(lambda: preview(session, rules, group_by, now=NOW, exact=exact))  # noqa: B023 - called at once
        print(f"{'exact ' if exact else ''}preview of {name}: {1000 * duration:.1f} ms", flush=True)
        yield duration


def _cones(session: Session) -> Iterator[float]:
    """For each of some cones the seconds until the packages of all sources in it are known."""
    chance = random.Random(18)  # noqa: S311 - the same each time, and no secret
    print(f"packages of {CONES} cones", flush=True)
    for _ in range(CONES):
        packages = _of_cone(chance.uniform(0, 360), chance.uniform(-89, 89), chance.uniform(0.1, 2))
        yield seconds(lambda: session.execute(packages).all())  # noqa: B023 - called at once


def _of_cone(ra_deg: float, dec_deg: float, radius_deg: float) -> sa.Select[*tuple[Any, ...]]:
    cone = {"cone": {"ra_deg": ra_deg, "dec_deg": dec_deg, "radius_deg": radius_deg}}
    return select_packages(check_rules(parse_rules([cone]), catalogue()), [], now=NOW)
