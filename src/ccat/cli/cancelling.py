from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from ccat.cli.errors import reported
from ccat.cli.output import LARGEST_ID, AsJson, print_json
from ccat.wiring import person, transaction
from ccat_ops_db.cancelling import Answer
from ccat_ops_db.verbs.cancelling import request_cancel

RunIds = Annotated[list[int], typer.Argument(metavar="RUN...", min=1, max=LARGEST_ID, help="Numbers of runs.")]
Because = Annotated[str, typer.Option(help="Why, for those who read it later.")]

_TOLD: Final = {
    Answer.CANCELLED: "is cancelled",
    Answer.ASKED: "is cancelled as soon as its job is over: `ccat run why {id}` says how far that is",
    Answer.NOT_RETRIED: "had failed, and is not tried again",
    Answer.TOO_LATE: "cannot be cancelled, it is too late: its results are being collected",
    Answer.OVER: "is over: there is nothing to cancel",
}


def cancel(run: RunIds, *, because: Because, json: AsJson = False) -> None:
    """Cancel runs, and end their jobs; what they were for is not run again by itself."""
    with reported(as_json=json), transaction("cancel") as session:
        answers = request_cancel(session, run, because=because, by=person(), now=datetime.now(UTC))
    if json:
        print_json([{"run": run_id, "answer": answer} for run_id, answer in answers.items()])
    else:
        typer.echo("\n".join(f"run {run_id} {_TOLD[answer].format(id=run_id)}" for run_id, answer in answers.items()))
