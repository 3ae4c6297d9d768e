"""What was made from something, what it was made of in numbers, and who used it."""

from collections.abc import Sequence
from typing import Annotated

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, Before, Limit, labels, print_json, print_table
from ccat.wiring import transaction
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.descent import Level, Use, descendants, uses
from ccat_ops_db.queries.roots import Kind, find_root

KindOf = Annotated[Kind, typer.Argument(metavar="KIND", help="package, product, run, version or config.")]
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Number of a product or run; name or number of a package; SOFTWARE/VERSION; CONFIG[/REVISION].",
    ),
]


def show_uses(kind: KindOf, name: Name, *, limit: Limit = 50, before: Before = None, json: AsJson = False) -> None:
    """Show which runs used something, the newest first, and how much was made from it."""
    with reported(as_json=json), transaction("uses") as session:
        root = find_root(session, kind, name)
        levels, found = descendants(session, root), uses(session, root, limit=limit, before=before)
    if json:
        print_json({"what": root.label, "made_from_it": levels, "used_by": found})
    else:
        _tell_uses(found)
        tell_levels(f"made from {root.label}", levels)


def tell_levels(title: str, levels: Sequence[Level]) -> None:
    """Print how many runs and products there are, by distance and step."""
    products = counted(sum(one.products for one in levels), "product", "products")
    columns = ["level", "pipeline", "step", "runs", "products", "valid"]
    print_table(f"{title}: {products}", columns, [[getattr(one, name) for name in columns] for one in levels])


def _tell_uses(found: Sequence[Use]) -> None:
    columns = ["run", "pipeline", "step", "sub_group", "status", "products", "valid"]
    rows = [[labels(one.sub_group) if c == "sub_group" else getattr(one, c) for c in columns] for one in found]
    print_table(f"used by {counted(len(found), 'run', 'runs')}", columns, rows)
