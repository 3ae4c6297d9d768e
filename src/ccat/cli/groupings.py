from datetime import UTC, datetime
from typing import Annotated

import sqlalchemy as sa
import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json
from ccat.wiring import transaction
from ccat_ops_db import models
from ccat_ops_db.grouping.checking import check_rules
from ccat_ops_db.grouping.compile import as_sql, select_packages
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.rules import parse_rules
from ccat_ops_db.grouping.telling import sentence
from ccat_ops_db.lookup import GROUPING, find

app = typer.Typer(no_args_is_help=True, help="One grouping: which raw packages it selects.")


@app.command()
def explain(name: Annotated[str, typer.Argument(metavar="GROUPING")], *, json: AsJson = False) -> None:
    """Say in one sentence and in SQL what a grouping selects, and how many packages that is now."""
    now = datetime.now(UTC)
    with reported(as_json=json), transaction("grouping") as session:
        revision = models.DataGroupingRevision
        of_grouping = sa.select(revision).filter_by(data_grouping_id=find(session, GROUPING, name).id)
        newest = session.scalars(of_grouping.order_by(revision.number.desc()).limit(1)).one()
        rules = check_rules(parse_rules(newest.filter_rules), catalogue())
        selected = select_packages(rules, [], now=now).order_by(None).subquery()
        number = session.scalar(sa.select(sa.func.count()).select_from(selected))
    told = {"grouping": name, "selects": sentence(rules), "packages": number, "sql": as_sql(rules, now=now)}
    print_json(told) if json else typer.echo(f"{told['selects']} Now: {number}.\n\n{told['sql']}")
