from typing import Annotated

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json, print_table
from ccat.wiring import transaction
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.verbs.locating import add_site, list_sites

app = typer.Typer(no_args_is_help=True, help="One site.")


@app.command()
def add(
    short_name: Annotated[str, typer.Argument(metavar="SHORT", help="Name in commands and queues, such as cologne.")],
    *,
    name: Annotated[str, typer.Option(help="Full name.")],
    json: AsJson = False,
) -> None:
    """Add a place with storage or computers; its locations are added with `ccat location add`."""
    with reported(as_json=json), transaction("site") as session:
        number = add_site(session, short_name, name=name).id
    print_json({"id": number, "site": short_name}) if json else typer.echo(f"{short_name} is a site")


def sites(*, json: AsJson = False) -> None:
    """List the places with storage or computers."""
    with reported(as_json=json), transaction("sites") as session:
        found = list_sites(session)
    if json:
        print_json([{"site": short, "name": name} for short, name in found.items()])
    else:
        print_table(counted(len(found), "site", "sites"), ["site", "name"], found.items())
