"""Runs that a change would cause, told before it is made."""

from collections import Counter
from collections.abc import Iterable

import typer

from ccat_ops_db.verbs.foreseeing import Caused


def show_runs(runs: Iterable[Caused]) -> None:
    """Print how many runs of which step there would be, and why."""
    for one in runs:
        reason = one.reason or "may follow from these"
        typer.echo(f"{one.pipeline}/{one.step}: {one.runs:,} {'run' if one.runs == 1 else 'runs'}: {reason}")


def by_step(runs: Iterable[Caused]) -> Counter[str]:
    """How many runs each step would have."""
    numbers: Counter[str] = Counter()
    for one in runs:
        numbers[f"{one.pipeline}/{one.step}"] += one.runs
    return numbers


def listed(numbers: Counter[str]) -> str:
    """The same in a sentence."""
    return ", ".join(f"{number:,} of {step}" for step, number in numbers.items())
