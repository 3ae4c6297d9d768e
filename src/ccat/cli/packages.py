from typing import Annotated

import sqlalchemy as sa
import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, Limit, print_json, print_table
from ccat.wiring import process_name, transaction
from ccat_data_transfer.verbs.retrying import retry_package
from ccat_ops_db import models
from ccat_ops_db.states import PackageState

app = typer.Typer(no_args_is_help=True, help="One raw package.")


def packages(
    *,
    state: Annotated[PackageState | None, typer.Option(case_sensitive=False, help="Only those in it.")] = None,
    limit: Limit = 50,
    json: AsJson = False,
) -> None:
    """List raw packages, the newest first."""
    columns = ["id", "name", "state", "size_bytes", "archived_at", "checksum", "failure"]
    query = sa.select(models.RawDataPackage).order_by(models.RawDataPackage.id.desc()).limit(limit)
    with reported(as_json=json), transaction("packages") as session:
        found = session.scalars(query if state is None else query.where(models.RawDataPackage.state == state))
        rows = [{name: getattr(one, name) for name in columns} for one in found]
    if json:
        print_json(rows)
    else:
        print_table(f"{len(rows)} packages", columns, [list(row.values()) for row in rows])


@app.command()
def retry(package: Annotated[int, typer.Argument(metavar="PACKAGE", help="Number of the package.")]) -> None:
    """Try a FAILED package again, once its trouble is mended."""
    with reported(as_json=False), transaction("packages") as session:
        retry_package(session, package, by=process_name("package"))
    typer.echo(f"package {package} is tried again")
