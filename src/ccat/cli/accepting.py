from datetime import UTC, datetime
from typing import Annotated

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json
from ccat.wiring import person, transaction
from ccat_ops_db.verbs.coverage import Accepted, accept_coverage


def accept(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE")],
    step: Annotated[str, typer.Argument(metavar="STEP")],
    sub_group: Annotated[str, typer.Argument(metavar="SUB_GROUP", help="Its path or its key.")],
    *,
    because: Annotated[str, typer.Option(help="Why, for those who read it later.")],
    json: AsJson = False,
) -> None:
    """Let one sub-group of a step go without the packages that it waits for now."""
    now = datetime.now(UTC)
    with reported(as_json=json), transaction("accept") as session:
        done = accept_coverage(session, pipeline, step, sub_group=sub_group, because=because, now=now, by=person())
    print_json(done) if json else typer.echo(_told(step, done))


def _told(step: str, done: Accepted) -> str:
    without = ", ".join(done.packages) or "what its scan lacks"
    return f"{step} {done.sub_group} goes without {without}"
