from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, Before, Limit, labels, print_json, print_table
from ccat.cli.runs import require_known
from ccat.wiring import transaction
from ccat_ops_db import models
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.copies import CopyAt, copies_of
from ccat_ops_db.queries.runs import Filter, list_products
from ccat_ops_db.states import DataProductType, PhysicalCopyStatus, ProductState


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
        found = list_products(session, which, limit=limit, before=before)
        copies = copies_of(session, [one.id for one in found])
        rows = [_row(one, copies[one.id]) for one in found]
    if json:
        print_json(rows)
    else:
        columns = ["id", "step", "sub_group", "run", "type", "state", "path", "size_bytes", "copies"]
        cells = [[_cell(column, row[column]) for column in columns] for row in rows]
        print_table(counted(len(rows), "product", "products"), columns, cells)


def _row(one: models.DataProduct, copies: Sequence[CopyAt]) -> Mapping[str, Any]:
    return {
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
        "copies": copies,
    }


def _cell(column: str, value: Any) -> object:
    match column:
        case "sub_group":
            return labels(value)
        case "copies":
            return ", ".join(_place(one) for one in value)
        case _:
            return value


def _place(copy: CopyAt) -> str:
    return copy.location if copy.status is PhysicalCopyStatus.PRESENT else f"{copy.location} ({copy.status})"
