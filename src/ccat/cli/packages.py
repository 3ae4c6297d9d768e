from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, Before, Limit, counted, print_json, print_table
from ccat.wiring import person, process_name, transaction
from ccat_data_transfer.verbs.retrying import retry_package
from ccat_ops_db.queries.packages import list_packages
from ccat_ops_db.queries.roots import Kind, find_one
from ccat_ops_db.states import PackageState
from ccat_ops_db.verbs.excluding import exclude_package, readmit_package

Package = Annotated[str, typer.Argument(metavar="PACKAGE", help="Name or number of the package.")]

app = typer.Typer(no_args_is_help=True, help="One raw package.")


def packages(
    *,
    state: Annotated[PackageState | None, typer.Option(case_sensitive=False, help="Only those in it.")] = None,
    limit: Limit = 50,
    before: Before = None,
    json: AsJson = False,
) -> None:
    """List raw packages, the newest first."""
    columns = ["id", "name", "state", "size_bytes", "archived_at", "checksum", "failure", "tried_again_at", "excluded"]
    with reported(as_json=json), transaction("packages") as session:
        found = list_packages(session, state, limit=limit, before=before)
        rows = [{name: getattr(one, name) for name in columns} for one in found]
    if json:
        print_json(rows)
    else:
        print_table(counted(len(rows), "package", "packages"), columns, [list(row.values()) for row in rows])


@app.command()
def retry(package: Package, *, json: AsJson = False) -> None:
    """Take a package up again once its trouble is mended: a failed one, or one whose archive copies were restored."""
    with reported(as_json=json), transaction("packages") as session:
        number = _number(session, package)
        retry_package(session, number, by=process_name("package"))
    print_json({"package": number}) if json else typer.echo(f"package {package} is tried again")


@app.command()
def exclude(
    package: Package,
    *,
    because: Annotated[str, typer.Option(help="Why, for those who read it later.")],
    json: AsJson = False,
) -> None:
    """Take a package out of all groupings; what was made with it is made again without."""
    now = datetime.now(UTC)
    with reported(as_json=json), transaction("packages") as session:
        number = _number(session, package)
        is_new = exclude_package(session, number, because=because, now=now, by=person())
    told = "is excluded" if is_new else "was excluded already; the first reason stays"
    print_json({"package": number, "changed": is_new}) if json else typer.echo(f"package {package} {told}")


@app.command()
def readmit(package: Package, *, json: AsJson = False) -> None:
    """Let a package in again that was excluded."""
    with reported(as_json=json), transaction("packages") as session:
        number = _number(session, package)
        was_out = readmit_package(session, number)
    told = "is in again" if was_out else "was not excluded"
    print_json({"package": number, "changed": was_out}) if json else typer.echo(f"package {package} {told}")


def _number(session: Session, name: str) -> int:
    [number] = find_one(session, Kind.PACKAGE, name).ids
    return number
