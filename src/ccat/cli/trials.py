from datetime import UTC, datetime
from typing import Annotated

import typer

from ccat.cli.errors import reported
from ccat.cli.output import print_json
from ccat.wiring import person, transaction
from ccat_ops_db.plan.trials import parse_keep
from ccat_workflow_manager.verbs.requesting import Wish
from ccat_workflow_manager.verbs.trying import Trial, Tried, open_trial

IsTrial = Annotated[
    bool, typer.Option("--trial", help="Only try it out, on chosen sub-groups: nothing is made from its products.")
]
Version = Annotated[str | None, typer.Option(metavar="X", help="Of a trial: the version of the software.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Of a trial: a parameter of the config; may be repeated."),
]
Keep = Annotated[
    str | None, typer.Option(metavar="TIME", help="Of a trial: keep its products so long, as `36h`, `14d` or `2w`.")
]
_KEPT = "14d"


def try_out(wish: Wish, *, version: str | None, settings: list[str] | None, keep: str | None, json: bool) -> None:
    """Run some sub-groups as a trial, and say which runs these are."""
    with reported(as_json=json), transaction("trigger") as session:
        trial = Trial(
            pipeline=wish.pipeline,
            because=wish.because,
            sub_groups=wish.sub_groups,
            step=wish.step,
            version=version,
            settings=settings or (),
            keep=parse_keep(_KEPT if keep is None else keep),
        )
        tried = open_trial(session, trial, now=datetime.now(UTC), by=person())
    print_json(tried) if json else typer.echo(_told(tried))


def _told(tried: Tried) -> str:
    runs = ", ".join(f"run {run} of {path}" for path, run in tried.runs.items())
    kept = f"products are kept until {tried.expires_at:%F %H:%M} UTC"
    return f"Trial of {tried.step} {tried.version}: {runs}; {kept}. `ccat run why` says how far one is."
