from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, Before, Limit, print_json, print_table
from ccat.cli.plans import launch
from ccat.cli.trials import IsTrial, Keep, Settings, Version, try_out
from ccat.wiring import person, transaction
from ccat_ops_db.lookup import PIPELINE, require
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.triggers import TriggerNow, list_triggers
from ccat_ops_db.verbs.pausing import pause as pause_it
from ccat_ops_db.verbs.pausing import resume as resume_it
from ccat_workflow_manager.verbs.requesting import Opened, Wish, open_wish

_BY_HAND: Final = "asked for by hand"

Because = Annotated[str, typer.Option(help="Why, in words; it is kept.")]
Reason = Annotated[str | None, typer.Option("--because", help="Why, in words; it is kept.", show_default=_BY_HAND)]
Pipeline = Annotated[str | None, typer.Option(help="Only this pipeline.")]
Location = Annotated[str | None, typer.Option(metavar="SITE/NAME", help="Only what runs at this location.")]
Everything = Annotated[bool, typer.Option("--all", help="All pipelines at all locations.")]


def trigger(
    pipeline: Annotated[str | None, typer.Argument(metavar="PIPELINE")] = None,
    *,
    step: Annotated[str | None, typer.Option(help="Only this step, and what follows from it.")] = None,
    sub_group: Annotated[
        list[str] | None, typer.Option(help="Only this sub-group, by key or path; may be repeated.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also what is up to date.")] = False,
    because: Reason = None,
    plan: Annotated[
        str | None, typer.Option(metavar="ID", help="Instead: what `ccat plan` listed, if it holds.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Of a plan: nothing if one of its runs does not hold.")
    ] = False,
    trial: IsTrial = False,
    version: Version = None,
    settings: Settings = None,
    keep: Keep = None,
    json: AsJson = False,
) -> None:
    """Run what is missing or out of date now, what failed or was cancelled included, and all that follows from it."""
    of_trial = bool(version or settings or keep)
    _require_sense(pipeline, plan, chooses=bool(step or sub_group or force or because is not None), strict=strict)
    _require_sense_of_trial(is_trial=trial, other=bool(force or plan), of_trial=of_trial)
    if plan is not None:
        launch(plan, strict=strict, json=json)
        return
    because = _BY_HAND if because is None else because
    wish = Wish(str(pipeline), because, step=step, sub_groups=sub_group or (), force=force)
    if trial:
        try_out(wish, version=version, settings=settings, keep=keep, json=json)
    else:
        _wish(wish, json=json)


def _require_sense(pipeline: str | None, plan: str | None, *, chooses: bool, strict: bool) -> None:
    if (pipeline is None) == (plan is None):
        raise typer.BadParameter("name a pipeline, or with --plan a plan")
    if plan is not None and chooses:
        others = "--step, --sub-group, --force and --because"
        raise typer.BadParameter(f"a plan says what is run: {others} do not go with --plan")
    if plan is None and strict:
        raise typer.BadParameter("--strict goes with --plan only")


def _require_sense_of_trial(*, is_trial: bool, other: bool, of_trial: bool) -> None:
    if is_trial and other:
        raise typer.BadParameter("a trial runs what is named in any case: --force and --plan do not go with --trial")
    if of_trial and not is_trial:
        raise typer.BadParameter("--version, --set and --keep go with --trial only")


def _wish(wish: Wish, *, json: bool) -> None:
    with reported(as_json=json), transaction("trigger") as session:
        opened = open_wish(session, wish, now=datetime.now(UTC), by=person())
    print_json(opened) if json else typer.echo(_told(opened, wish))


def _told(opened: Opened, wish: Wish) -> str:
    force = "" if wish.force else " --force runs it all the same."
    told = " ".join([*_asked(opened, wish), *_not_run(opened, wish)])
    return told or f"Nothing is missing or out of date there.{force}"


def _asked(opened: Opened, wish: Wish) -> Iterator[str]:
    if opened.requested_before:
        before = counted(opened.requested_before, "sub-group was", "sub-groups were")
        yield f"{before} asked for before: `ccat triggers` shows how far that is."
    if not opened.requested:
        return
    waiting = f", {opened.waiting} of them once what they wait for is made" if opened.waiting else ""
    runs = counted(opened.requested, "sub-group is run", "sub-groups are run")
    yield f"Trigger {opened.trigger_id}: {runs}{waiting}. `ccat triggers` shows how far it is."
    if opened.pause:
        yield f"Nothing of it starts before `ccat resume`: {wish.pipeline} is {opened.pause}."


def _not_run(opened: Opened, wish: Wish) -> Iterator[str]:
    if opened.hopeless:
        failed = counted(opened.hopeless, "sub-group is", "sub-groups are")
        yield f"{failed} not run for want of what it takes: `ccat gap {wish.pipeline}`."
    if opened.unreleased:
        steps = ", ".join(opened.unreleased)
        yield f"Not run, as no version of their software is released, or their config was withdrawn: {steps}."


def triggers(*, pipeline: Pipeline = None, limit: Limit = 50, before: Before = None, json: AsJson = False) -> None:
    """List triggers, the newest first: ticks of schedules and wishes, each with the runs that belong to it."""
    with reported(as_json=json), transaction("triggers") as session:
        if pipeline is not None:
            require(session, PIPELINE, pipeline)
        found = list_triggers(session, pipeline=pipeline, limit=limit, before=before)
    if json:
        print_json(found)
    else:
        columns = ["id", "pipeline", "type", "because", "by", "opened", "closed", "to run", "runs"]
        print_table(counted(len(found), "trigger", "triggers"), columns, map(_cells, found))


def _cells(one: TriggerNow) -> list[object]:
    runs = ", ".join(f"{number} {status}" for status, number in one.runs.items())
    kind = f"{one.type}, forced" if one.is_forced else one.type
    return [one.id, one.pipeline, kind, one.because, one.by, one.opened_at, one.closed_at, one.requested, runs]


def pause(
    *,
    pipeline: Pipeline = None,
    location: Location = None,
    everything: Everything = False,
    because: Because,
    json: AsJson = False,
) -> None:
    """Start no more runs of a pipeline, at a location, or at all, nor delete there; what is under way goes on."""
    what = _what(pipeline, location, everything=everything)
    with reported(as_json=json), transaction("pause") as session:
        is_new = pause_it(session, pipeline=pipeline, location=location, because=because, by=person())
    told = f"{what} is paused." if is_new else f"{what} was paused already; the first reason stays."
    print_json({"what": what, "changed": is_new}) if json else typer.echo(told)


def resume(
    *, pipeline: Pipeline = None, location: Location = None, everything: Everything = False, json: AsJson = False
) -> None:
    """Undo a pause; what was wanted meanwhile is run."""
    what = _what(pipeline, location, everything=everything)
    with reported(as_json=json), transaction("resume") as session:
        was_paused = resume_it(session, pipeline=pipeline, location=location)
    told = f"{what} goes on." if was_paused else f"{what} was not paused."
    print_json({"what": what, "changed": was_paused}) if json else typer.echo(told)


def _what(pipeline: str | None, location: str | None, *, everything: bool) -> str:
    """What is meant, which has to be exactly one thing."""
    named = {f"pipeline {pipeline}": pipeline, f"location {location}": location, "everything": everything or None}
    chosen = [name for name, value in named.items() if value is not None]
    if len(chosen) != 1:
        raise typer.BadParameter("name one of --pipeline, --location and --all")
    return chosen[0]
