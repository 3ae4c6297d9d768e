from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text
from rich.tree import Tree

from ccat.cli.descent import tell_levels
from ccat.cli.errors import reported
from ccat.cli.output import LARGEST_ID, AsJson, as_json, console, labels, print_json
from ccat.wiring import transaction
from ccat_ops_db.errors import CcatError
from ccat_ops_db.plan.lineage import Lineage, ProductNode, RunNode
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.plan.prov import prov_json
from ccat_ops_db.plan.ro_crate import ro_crate
from ccat_ops_db.plan.sentences import Names
from ccat_ops_db.queries.descent import ancestors, descendants
from ccat_ops_db.queries.lineage import lineage
from ccat_ops_db.queries.provenance import provenance
from ccat_ops_db.queries.roots import Kind, find_root

_NAMED: Final = 3
"""Packages of other sub-groups that are named one by one."""
_MOST_SHOWN: Final = 1_000
"""Runs that are told one by one; of more there are numbers, and JSON has them all."""


class Format(StrEnum):
    """Standards in which a lineage is written for others."""

    PROV_JSON = "prov-json"
    RO_CRATE = "ro-crate"


class NotWritten(CcatError):
    """What was to be written is there already."""

    code = "not_written"

    def __init__(self, place: Path) -> None:
        super().__init__(f"{place} is there already; name another place. Nothing was written.")


def show_lineage(
    product: Annotated[
        int, typer.Argument(metavar="PRODUCT", min=1, max=LARGEST_ID, help="Number of the data product.")
    ],
    *,
    down: Annotated[bool, typer.Option("--down", help="Instead: what was made from it, in numbers.")] = False,
    export: Annotated[
        Format | None, typer.Option("--format", help="Instead: write it in a standard, for others; needs --output.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File of PROV-JSON, or directory of an RO-Crate.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show what a product was made of, down to the raw files, or what was made from it."""
    _require_sense(down=down, export=export, output=output)
    with reported(as_json=json):
        if export is not None and output is not None:
            _export(product, export, output=output, json=json)
        elif down:
            _tell_descendants(product, json=json)
        else:
            _tell_ancestors(product, json=json)


def _require_sense(*, down: bool, export: Format | None, output: Path | None) -> None:
    if (export is None) != (output is None):
        raise typer.BadParameter("--format and --output go together")
    if down and export is not None:
        raise typer.BadParameter("what is written for others is what a product was made of: --down does not go with it")


def _tell_descendants(product: int, *, json: bool) -> None:
    with transaction("lineage") as session:
        root = find_root(session, Kind.PRODUCT, str(product))
        found = descendants(session, root)
    print_json({"what": root.label, "made_from_it": found}) if json else tell_levels(f"made from {root.label}", found)


def _tell_ancestors(product: int, *, json: bool) -> None:
    with transaction("lineage") as session:
        levels = ancestors(session, product)
        number = sum(one.runs for one in levels)
        found = lineage(session, product) if json or number <= _MOST_SHOWN else None
    if found is None:
        tell_levels(f"what product {product} was made of, in numbers as it is much", levels)
    else:
        print_json(found) if json else console().print(lineage_tree(found))


def _export(product: int, export: Format, *, output: Path, json: bool) -> None:
    with transaction("lineage") as session:
        found = provenance(session, product)
    if output.exists():
        raise NotWritten(output)
    if export is Format.PROV_JSON:
        output.write_text(as_json(prov_json(found)) + "\n")
    else:
        _write_crate(output, ro_crate(found))
    runs = len(found.lineage.runs)
    if json:
        print_json({"product": product, "format": export, "output": str(output), "runs": runs})
    else:
        typer.echo(f"{output}: {counted(runs, 'run', 'runs')} that product {product} was made by")


def _write_crate(directory: Path, files: Mapping[str, Any]) -> None:
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_text(as_json(content) + "\n")


def lineage_tree(found: Lineage) -> Tree:
    """The lineage as a tree; what was shown once is only named when it comes again."""
    tree = Tree(_product_line(found.product))
    for place in found.copies:
        tree.add(_line(f"copy at {place}"))
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
        pixels = run.excluded_pixels.get(package_id)
        without = f", without pixels {', '.join(pixels)}" if pixels else ""
        leaf = branch.add(_line(f"raw package {package.name} (scan {package.scan}, {package.source}){without}"))
        for file in package.files:
            leaf.add(_line(f"{file.path}  {file.size_bytes} bytes  {file.checksum}"))
        for lost in package.lost:
            leaf.add(_line(f"without {lost.path}, which is lost: {lost.because}"))
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
