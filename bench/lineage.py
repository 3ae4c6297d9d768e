from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Final

import sqlalchemy as sa
import typer

from bench.database import ops_db
from bench.figures import Figure, memory_mb, once, seconds
from bench.pipelines import define, tidy
from ccat_ops_db import models
from ccat_ops_db.queries.descent import ancestors, descendants
from ccat_ops_db.queries.lineage import lineage
from ccat_ops_db.queries.roots import Kind, Root
from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.withdrawing import withdraw

_LEVELS: Final = 10
_FAN: Final = 2
"""Products that a run takes of the level above, and runs that take a product."""
_NAME: Final = "deep"
_DIGEST: Final = f"sha256:{'0' * 64}"
_MADE: Final = (
    "SET LOCAL session_replication_role = replica",  # nothing evaluates them
    """
    INSERT INTO executed_reduction_step (
        reduction_step_id, step_revision_id, pipeline_id, data_location_id, software_version_id, sub_group_key,
        sub_group_path, sub_group_labels, status, reason, because, recipe_digest, series_digest, input_digest,
        inputs_frozen_at, finished_at)
    SELECT s.reduction_step_id, s.id, p.pipeline_id, p.processing_location_id, v.id, 'n=' || n, 'n-' || n,
        jsonb_build_object('n', n), 'completed', 'missing', 'made by the database', :digest, :digest, :digest,
        now(), now()
    FROM reduction_step_revision s
    JOIN pipeline_revision p ON p.id = s.pipeline_revision_id
    JOIN reduction_software_version v ON v.reduction_software_id = s.reduction_software_id
    CROSS JOIN generate_series(0, :width - 1) n
    ORDER BY s.position, n
    """,
    """
    INSERT INTO data_product (run_id, run_attempt_id, type, relative_path, size_bytes, checksum)
    SELECT r.id, 1, 'science', 'map.fits', 1, :digest FROM executed_reduction_step r ORDER BY r.id
    """,
    "ANALYZE executed_reduction_step, data_product",
    # Each run takes two neighbours of the level above, so that after ten levels two to the ninth are behind it.
    """
    INSERT INTO run_input (run_id, role, data_product_id)
    SELECT r.id, 'upstream', d.id
    FROM (SELECT id, row_number() OVER (ORDER BY id) - 1 AS number FROM executed_reduction_step) r
    CROSS JOIN generate_series(0, :fan - 1) k
    JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS number FROM data_product) d
        ON d.number = (r.number / :width - 1) * :width + ((r.number % :width) * :fan + k) % :width
    WHERE r.number >= :width
    """,
)


def measure(
    *, size: Annotated[int, typer.Option(min=20_000, help="So many products, in ten levels.")] = 1_000_000
) -> Iterator[Figure]:
    """How long it takes to find out what a product was made of, and what was made from one."""
    with ops_db() as engine:
        print(f"making {size} products in {_LEVELS} levels", flush=True)
        steps = [{"key": "s0", "group_by": []}]
        steps += [{"key": f"s{n}", "group_by": [], "depends_on": [f"s{n - 1}"]} for n in range(1, _LEVELS)]
        define(engine, _NAME, steps)
        _make(engine, size // _LEVELS)
        tidy(engine)
        first, last = _ends(engine)
        up = seconds(lambda: _up(engine, last)) * 1000
        down = seconds(lambda: _down(engine, first)) * 1000
        yield Figure("ancestors_ms", up)
        yield Figure("descendants_ms", down)
        yield Figure("lineage_ms", max(up, down), at_most=100)
        yield Figure("tree_ms", seconds(lambda: _tree(engine, last)) * 1000)
        yield Figure("withdraw_s", once(lambda: _withdraw(engine, first)))
    yield Figure("rss_mb", memory_mb(), at_most=300)


def _make(engine: sa.Engine, width: int) -> None:
    values = {"width": width, "fan": _FAN, "digest": _DIGEST}
    with engine.begin() as connection:
        for statement in _MADE:
            used = {name: value for name, value in values.items() if f":{name}" in statement}
            connection.execute(sa.text(statement), used)


def _ends(engine: sa.Engine) -> tuple[int, int]:
    """A product of the first level and one of the last."""
    ids = sa.select(sa.func.min(models.DataProduct.id), sa.func.max(models.DataProduct.id))
    with engine.connect() as connection:
        first, last = connection.execute(ids).one()
    return first, last


def _root(product_id: int) -> Root:
    return Root(Kind.PRODUCT, (product_id,), f"product {product_id}")


def _up(engine: sa.Engine, product_id: int) -> None:
    with transaction(engine) as session:
        _all_levels(_LEVELS, len(ancestors(session, product_id)))


def _down(engine: sa.Engine, product_id: int) -> None:
    with transaction(engine) as session:
        _all_levels(_LEVELS - 1, len(descendants(session, _root(product_id))))


def _tree(engine: sa.Engine, product_id: int) -> None:
    """All nodes one by one, as `ccat lineage` shows them."""
    with transaction(engine) as session:
        lineage(session, product_id)


def _withdraw(engine: sa.Engine, product_id: int) -> None:
    with transaction(engine) as session:
        withdraw(session, _root(product_id), because="a benchmark", now=datetime.now(UTC), by="bench")


def _all_levels(wanted: int, found: int) -> None:
    if found != wanted:
        raise ValueError(f"{found} of {wanted} levels")
