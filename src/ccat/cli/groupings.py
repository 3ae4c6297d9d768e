from datetime import UTC, datetime
from typing import Annotated

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, labels, print_json, print_table
from ccat.wiring import transaction
from ccat_ops_db.grouping.checking import check_rules
from ccat_ops_db.grouping.compile import as_sql
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.rules import parse_rules
from ccat_ops_db.grouping.telling import sentence
from ccat_ops_db.queries.groupings import rules_of
from ccat_ops_db.queries.previews import Counts, Preview, PreviewedSubGroup, preview

Grouping = Annotated[str, typer.Argument(metavar="GROUPING")]
app = typer.Typer(no_args_is_help=True, help="One grouping: which raw packages it selects.")


@app.command()
def explain(name: Grouping, *, json: AsJson = False) -> None:
    """Say in one sentence and in SQL what a grouping selects, and how many packages that is now."""
    now = datetime.now(UTC)
    with reported(as_json=json), transaction("grouping") as session:
        written = rules_of(session, name)
        rules = check_rules(parse_rules(written), catalogue())
        number = preview(session, written, [], now=now, exact=True).packages
    told = {"grouping": name, "selects": sentence(rules), "packages": number, "sql": as_sql(rules, now=now)}
    print_json(told) if json else typer.echo(f"{told['selects']} Now: {number}.\n\n{told['sql']}")


@app.command("preview")
def show_preview(
    name: Grouping,
    *,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="DIMENSION", help="Divide by it, as `group_by` of a step does; may be repeated."),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Count everything, which may take seconds.")] = False,
    json: AsJson = False,
) -> None:
    """Show into which sub-groups a grouping would be divided, and about how many packages each has."""
    now, group_by = datetime.now(UTC), by or []
    with reported(as_json=json), transaction("grouping") as session:
        found = preview(session, rules_of(session, name), group_by, now=now, exact=exact)
    if json:
        print_json({"grouping": name, "group_by": group_by, **vars(found)})
    else:
        print_table(_totals(found), ["sub_group", "packages", "key"], map(_cells, found.first))


def _totals(found: Preview) -> str:
    """What was found, in a sentence."""
    if found.counts is Counts.EXACT:
        if not found.packages:
            return "No archived package matches all of its rules."
        return f"Packages: {found.packages}, sub-groups: {found.sub_groups}."
    if not found.packages:
        most = f"there are about {found.packages_margin} at most"
        return f"No package of a sample matches all of its rules; {most}. --exact counts them."
    about = f"Packages: about {found.packages} (±{found.packages_margin}), sub-groups: about {found.sub_groups}"
    return f"{about}, judged by a sample. --exact counts them."


def _cells(one: PreviewedSubGroup) -> tuple[object, ...]:
    return labels(one.labels), f"{_PREFIX[one.counts]}{one.packages}", one.key


_PREFIX = {Counts.EXACT: "", Counts.ESTIMATED: "about ", Counts.AT_LEAST: "at least "}
