"""Performs the story on the real system, act by act, and stops at the first thing that is not as expected."""

import math
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import yaml
from rich.console import Console

from ccat.demo import definitions
from ccat.demo.checks import Run, Value, run_deviations, science_deviations, science_values, subject_of
from ccat.demo.directory import demo_directory
from ccat.demo.options import Options
from ccat.demo.outcome import look_back
from ccat.demo.report import as_json, show, show_places
from ccat.demo.software import EXAMPLE
from ccat.demo.stage import BEATS, Stage, running_stack, set_stage
from ccat.demo.story import FIRST_VERSION, NEXT_VERSION, RELEASED, STORY, Act
from ccat.demo.telescope import Scan, another_of, observe_and_deliver
from ccat.demo.telling import Teller
from ccat_ops_db.errors import CcatError

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BEATS_OF_ACT: Final = 3
_PATIENCE: Final = timedelta(minutes=4)
"""How long the work that follows from an act may take."""
_SHORTEST_REST, _LONGEST_REST = timedelta(seconds=5), timedelta(seconds=30)


class NotAsExpected(CcatError):
    """The system did something else than the story says."""

    code = "demo.not_as_expected"

    def __init__(self, title: str, deviations: Sequence[str]) -> None:
        super().__init__(f"{title}: not as expected. {'. '.join(deviations)}.")


def play(options: Options, console: Console) -> None:
    """Play the whole story; raises NotAsExpected at the first deviation."""
    teller = Teller(console, beats=BEATS + _BEATS_OF_ACT * len(STORY))
    with _every_signal_interrupts(), demo_directory(options.data_dir) as directory:
        teller.title("Preparations")
        stage = set_stage(options, directory, teller)
        runs: list[Run] = []
        values: list[Value] = []
        with running_stack(stage, keep=options.keep) as took:
            _define(stage, rest=_rest(took))
            for act in STORY:
                made, values = _perform(stage, act, known=runs)
                runs += made
            with teller.beat("following the lineage of the final map"):
                outcome = look_back(stage, runs, values)
            _require("The end", outcome.deviations)
            show(outcome, console)
        directory.report.write_text(as_json(outcome, seconds=teller.seconds))
        show_places(stage, console)
        teller.say(f"Everything is as expected: {len(runs)} runs, {len(outcome.products)} current products.")


@contextmanager
def _every_signal_interrupts() -> Iterator[None]:
    """Every request to stop is a KeyboardInterrupt inside the block, so that the stack is taken down."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _rest(start_took: timedelta) -> timedelta:
    """How long maps rest: well above what lies between the archiving of two scans that arrive together.

    That is so even where a process is killed meanwhile: it starts anew and does its work again in less time than the
    whole stack took to start.
    """
    return min(max(start_took, _SHORTEST_REST), _LONGEST_REST)


def _define(stage: Stage, *, rest: timedelta) -> None:
    seconds = math.ceil(rest.total_seconds())
    prepared = definitions.prepared(
        yaml.safe_load(EXAMPLE.read_text()),
        environment=stage.environments[FIRST_VERSION],
        truth_file=stage.truth_file,
        cooldown_seconds=seconds,
    )
    with stage.teller.beat("applying the definitions of the pipeline"):
        _apply(stage, definitions.with_parameters(prepared, stage.fault.parameters))
    stage.teller.say(f"The pipeline of {EXAMPLE} is defined; here its maps rest for {seconds} s")


def _perform(stage: Stage, act: Act, *, known: Sequence[Run]) -> tuple[list[Run], list[Value]]:
    """The runs that followed from an act, and the science values of the map at its end."""
    teller = stage.teller
    teller.title(act.title)
    teller.say(act.tale)
    with teller.beat("releasing software" if act.is_release else "observing"):
        teller.say(_happen(stage, act))
    with teller.beat("waiting"):
        stage.ccat.ask("wait", "--timeout", str(_PATIENCE.total_seconds()), on_news=teller.update)
    with teller.beat("looking at what was done"):
        made = _runs_since(stage, known[-1].id if known else 0)
        for run in made:
            teller.say(f"run {run.id}: {run.step} of {run.subject} with {run.version}, {run.reason}: {run.because}")
        _require(act.title, run_deviations(act.expected, made))
    values = science_values(made)
    _require(act.title, science_deviations(values))
    teller.say(f"{len(made)} runs, exactly those expected; {len(values)} science values, each in its band")
    return made, values


def _happen(stage: Stage, act: Act) -> str:
    """Let it happen, and say what was done."""
    if act.is_release:
        first = yaml.safe_load(stage.directory.definitions.read_text())
        environment = stage.environments[NEXT_VERSION]
        _apply(stage, definitions.with_release(first, NEXT_VERSION, series=RELEASED, environment=environment))
        return f"Released: {', '.join(f'{name} {NEXT_VERSION} (series {series})' for name, series in RELEASED.items())}"
    observed, arriving = _cast(stage, act.observed), _cast(stage, act.arriving)
    observe_and_deliver(stage.ccat, observed=observed, arriving=arriving, disk=stage.disk)
    return f"Registered: {', '.join(f'{scan.name} ({scan.file.name})' for scan in arriving)}"


def _cast(stage: Stage, numbers: Iterable[int]) -> list[Scan]:
    """The scans with these numbers, as far as the fault lets them be, and as often."""
    there = [stage.scans[number] for number in numbers if number not in stage.fault.dropped]
    return there + [another_of(stage.scans[number]) for number in numbers if number in stage.fault.doubled]


def _apply(stage: Stage, document: Mapping[str, Any]) -> None:
    file = stage.directory.definitions
    file.write_text(yaml.safe_dump(dict(document), sort_keys=False))
    stage.ccat.ask("apply", "--yes", "--file", str(file))


def _require(title: str, deviations: Sequence[str]) -> None:
    if deviations:
        raise NotAsExpected(title, deviations)


def _runs_since(stage: Stage, last: int) -> list[Run]:
    rows = stage.ccat.ask("runs", "--limit", "1000")
    return [_run(stage, row) for row in reversed(rows) if row["id"] > last]


def _run(stage: Stage, row: Mapping[str, Any]) -> Run:
    same = ("id", "step", "status", "reason", "because", "version", "failure", "metrics")
    return Run(
        **{name: row[name] for name in same},
        subject=subject_of(row["sub_group_key"], stage.names),
        created_at=datetime.fromisoformat(row["created_at"]),
        submitted_at=_moment(row["submitted_at"]),
        finished_at=_moment(row["finished_at"]),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
