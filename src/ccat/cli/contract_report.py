"""What people and programs read of a test of the contract."""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer
import yaml

from ccat.cli.output import print_json, print_table
from ccat_ops_db.plan.numbers import counted
from ccat_workflow_manager.contract.examining import Tell
from ccat_workflow_manager.contract.telling import cause
from ccat_workflow_manager.contract.values import Finding, Image, Point, Report, Seen, Subject, Trial, Verdict
from ccat_workflow_manager.hpc.base import GIGABYTE


@contextlib.contextmanager
def telling_progress() -> Iterator[Tell]:
    """Say that a trial begins, then on the same line how it ended, or nothing more where it did not come to that."""
    is_open = False

    def tell(trial: Trial, seen: Seen | None) -> None:
        nonlocal is_open
        typer.echo(f"{_plain(trial)} … " if seen is None else _ended(seen), err=True, nl=seen is not None)
        is_open = seen is None

    try:
        yield tell
    finally:
        if is_open:
            typer.echo(err=True)


def print_report(report: Report, keep: Path | None) -> None:
    """Print a line for each point, then what to do with the result."""
    rows = [(_plain(one.point), one.verdict, one.said) for one in _worth_telling(report)]
    image = report.case.subject.image
    print_table("Does it keep the contract?", ["point", "verdict", "what was seen"], rows)
    if keep:
        typer.echo(f"Inputs, outputs and logs of each trial are in {keep}.")
    if image and not report.broken:
        text = yaml.safe_dump(_definition(report.case.subject, image), sort_keys=False, width=1000, allow_unicode=True)
        typer.echo(f"\nIn the definitions, with your own name, version and series:\n\n{text}")
    typer.echo(_closing(report))


def print_for_programs(report: Report, keep: Path | None) -> None:
    """Print all that was found, as JSON. Its keys are published in pipelines/README.md."""
    subject, image = report.case.subject, report.case.subject.image
    print_json(
        {
            "verdict": Verdict.BROKEN if report.broken else Verdict.KEPT,
            "command": subject.command,
            "image": {"reference": image.reference, "digest": image.digest} if image else None,
            "inputs": "given" if subject.given else "made",
            "asked": {
                "cpu": subject.cpu,
                "memory_gb": subject.memory_gb,
                "time_hours": subject.time_limit / timedelta(hours=1),
            },
            "points": report.findings,
            "trials": [_trial(trial, report, keep) for trial in report.case.seen],
            "definition": _definition(subject, image) if image else None,
        }
    )


def _worth_telling(report: Report) -> Sequence[Finding]:
    """All points, or the one beside which there is nothing to be said."""
    return [one for one in report.broken if one.point is Point.STARTS] or report.findings


def _closing(report: Report) -> str:
    if report.broken:
        names = ", ".join(_plain(one.point) for one in report.broken)
        return f"It breaks the contract in {counted(len(report.broken), 'point', 'points')}: {names}."
    unjudged, warned = (len(report.with_verdict(one)) for one in (Verdict.NOT_JUDGED, Verdict.WARNED))
    judged = len(report.findings) - unjudged
    warnings = f", with {counted(warned, 'warning', 'warnings')}" if warned else ""
    left = f" {unjudged} could not be judged." if unjudged else ""
    is_made = not report.case.subject.given
    advice = " Its inputs were made up: for a full judgement give it some by --raw." if is_made else ""
    return (
        f"It keeps the contract in the {counted(judged, 'point', 'points')} that were judged{warnings}.{left}{advice}"
    )


def _ended(seen: Seen) -> str:
    took = seen.observation.wall_time
    code = seen.observation.exit_code
    after = "" if took is None else f" after {took.total_seconds():.1f} s"
    return f"{'no exit code' if code is None else f'exit code {code}'}{after}"


def _trial(trial: Trial, report: Report, keep: Path | None) -> dict[str, Any]:
    seen = report.case.seen[trial]
    observation = seen.observation
    peak = observation.peak_memory_bytes
    return {
        "trial": trial,
        "exit_code": observation.exit_code,
        "cause": cause(report.case, seen) if observation.exit_code else None,
        "wall_seconds": _seconds(observation.wall_time),
        "cpu_seconds": _seconds(observation.cpu_time),
        "peak_memory_gb": peak and peak / GIGABYTE,
        "products": [one.path for one in seen.made.products],
        "directory": keep and keep.resolve() / trial / "attempt-1",
    }


def _definition(subject: Subject, image: Image) -> dict[str, Any]:
    words = [word for word in subject.command if word.isalnum()]
    version = {
        "version": "1.0.0",
        "series": "1",
        "runtime": "apptainer",
        "command": list(subject.command),
        "image": image.reference,
        "image_digest": image.digest,
    }
    return {"software": [{"name": "-".join(words[:2]) or subject.step_name, "versions": [version]}]}


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")
