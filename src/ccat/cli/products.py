from collections.abc import Iterable
from typing import Annotated, Final

import typer
from rich.text import Text
from rich.tree import Tree

from ccat.cli.errors import reported
from ccat.cli.output import LARGEST_ID, AsJson, Before, Limit, console, counted, labels, print_json, print_table
from ccat.cli.runs import require_known
from ccat.wiring import transaction
from ccat_ops_db.plan.sentences import Names
from ccat_ops_db.queries.lineage import Lineage, ProductNode, RunNode, lineage
from ccat_ops_db.queries.runs import Filter, list_products
from ccat_ops_db.states import DataProductType, ProductState

_NAMED: Final = 3
"""Packages of other sub-groups that are named one by one."""


def products(
    *,
    pipeline: Annotated[str | None, typer.Option(help="Only products of this pipeline.")] = None,
    step: Annotated[str | None, typer.Option(help="Only products of this step.")] = None,
    kind: Annotated[
        DataProductType | None, typer.Option("--type", case_sensitive=False, help="Only products of this type.")
    ] = None,
    state: Annotated[
        ProductState | None, typer.Option(case_sensitive=False, help="Only those in it.")
    ] = ProductState.CURRENT,
    limit: Limit = 50,
    before: Before = None,
    json: AsJson = False,
) -> None:
    """List data products, the newest first."""
    which = Filter(pipeline, step, type=kind, state=state)
    with reported(as_json=json), transaction("products") as session:
        require_known(session, pipeline, step)
        rows = [
            {
                "id": one.id,
                "pipeline": one.run.pipeline.name,
                "step": one.run.reduction_step.key,
                "sub_group": one.run.sub_group_labels,
                "run": one.run_id,
                "type": one.type,
                "state": one.state,
                "path": one.relative_path,
                "size_bytes": one.size_bytes,
                "checksum": one.checksum,
            }
            for one in list_products(session, which, limit=limit, before=before)
        ]
    if json:
        print_json(rows)
    else:
        columns = ["id", "step", "sub_group", "run", "type", "state", "path", "size_bytes"]
        cells = [[labels(row[c]) if c == "sub_group" else row[c] for c in columns] for row in rows]  # type: ignore[arg-type]  # that column holds the labels
        print_table(counted(len(rows), "product", "products"), columns, cells)


def show_lineage(
    product: Annotated[
        int, typer.Argument(metavar="PRODUCT", min=1, max=LARGEST_ID, help="Number of the data product.")
    ],
    *,
    json: AsJson = False,
) -> None:
    """Show what a product was made of, down to the raw files."""
    with reported(as_json=json), transaction("lineage") as session:
        found = lineage(session, product)
    if json:
        print_json(found)
    else:
        console().print(lineage_tree(found))


def lineage_tree(found: Lineage) -> Tree:
    """The lineage as a tree; what was shown once is only named when it comes again."""
    tree = Tree(_product_line(found.product))
    _grow(tree, found, found.runs[found.product.run_id], shown=set())
    return tree


def _grow(tree: Tree, found: Lineage, run: RunNode, *, shown: set[int]) -> None:
    version = f"{run.software} {run.version}" + (f", config {run.config}" if run.config else "")
    branch = tree.add(_line(f"run {run.id}: {run.step} of {labels(run.sub_group)}, {version}, {run.reason}"))
    if run.id in shown:
        branch.add("(see above)")
        return
    shown.add(run.id)
    for package_id in run.package_ids:
        package = found.packages[package_id]
        leaf = branch.add(_line(f"raw package {package.name} (scan {package.scan}, {package.source})"))
        for file in package.files:
            leaf.add(_line(f"{file.path}  {file.size_bytes} bytes  {file.checksum}"))
    if run.excess_ids:
        names = Names([found.packages[one].name for one in run.excess_ids[:_NAMED]], len(run.excess_ids))
        branch.add(_line(f"what it takes was made from other sub-groups' packages too: {names}"))
    for role, ids in (("", run.product_ids), *((f"auxiliary {name}: ", ids) for name, ids in run.auxiliary.items())):
        for maker, taken in _by_run(found, ids):
            child = branch.add(_line(role + ", ".join(product.path for product in taken)))
            _grow(child, found, found.runs[maker], shown=shown)


def _by_run(found: Lineage, ids: Iterable[int]) -> Iterable[tuple[int, list[ProductNode]]]:
    taken: dict[int, list[ProductNode]] = {}
    for product_id in ids:
        product = found.products[product_id]
        taken.setdefault(product.run_id, []).append(product)
    return taken.items()


def _line(text: str) -> Text:
    """Text that is folded where the terminal is narrow: a checksum cut short would be worth nothing."""
    return Text(text, overflow="fold")


def _product_line(product: ProductNode) -> Text:
    return _line(f"product {product.id}: {product.path} ({product.type}, {product.state})  {product.checksum}")
