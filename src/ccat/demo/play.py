"""Performs the story on the real system, act by act, and stops at the first thing that is not as expected."""

import math
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import yaml
from rich.console import Console

from ccat.demo import definitions
from ccat.demo.checks import Run, run_deviations, science_deviations, science_values, wait_deviations
from ccat.demo.crossing import Package, crossing_deviations, crossing_sentences, route_sentence
from ccat.demo.directory import demo_directory
from ccat.demo.options import Options
from ccat.demo.outcome import look_back
from ccat.demo.reading import packages_since, runs_since, waits_in
from ccat.demo.report import as_json, show, show_places
from ccat.demo.software import EXAMPLES
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


@dataclass(frozen=True)
class _Made:
    """What followed from some acts."""

    packages: Sequence[Package] = ()
    runs: Sequence[Run] = ()

    def __add__(self, other: "_Made") -> "_Made":
        return _Made([*self.packages, *other.packages], [*self.runs, *other.runs])


def play(options: Options, console: Console) -> None:
    """Play the whole story; raises NotAsExpected at the first deviation."""
    teller = Teller(console, beats=BEATS + _BEATS_OF_ACT * len(STORY))
    with _every_signal_interrupts(), demo_directory(options.data_dir) as directory:
        teller.title("Preparations")
        stage = set_stage(options, directory, teller)
        done = _Made()
        with running_stack(stage, keep=options.keep) as took:
            _define(stage, rest=_rest(took))
            for act in STORY:
                done += _perform(stage, act, known=done)
            with teller.beat("following the lineage of the final maps"):
                outcome = look_back(stage, done.runs)
            _require("The end", outcome.deviations)
            show(outcome, console)
        directory.report.write_text(as_json(outcome, seconds=teller.seconds))
        show_places(stage, console)
        teller.say(f"Everything is as expected: {len(done.runs)} runs, {len(outcome.products)} current products.")


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
        definitions.together(yaml.safe_load(example.read_text()) for example in EXAMPLES.values()),
        environment=stage.environments[FIRST_VERSION],
        truth_files=stage.truth_files,
        cooldown_seconds=seconds,
    )
    with stage.teller.beat("applying the definitions of the pipelines"), ThreadPoolExecutor() as side_by_side:
        routes = side_by_side.submit(stage.ccat.ask, "routes")
        _apply(stage, definitions.with_parameters(prepared, stage.fault.parameters))
    for route in routes.result():
        stage.teller.say(route_sentence(route))
    examples = " and ".join(map(str, EXAMPLES.values()))
    stage.teller.say(f"The pipelines of {examples} are defined; here their maps rest for {seconds} s")


def _perform(stage: Stage, act: Act, *, known: _Made) -> _Made:
    """What followed from an act; raises NotAsExpected also where its maps are not as the truth."""
    teller = stage.teller
    teller.title(act.title)
    teller.say(act.tale)
    with teller.beat("releasing software" if act.is_release else "observing"):
        teller.say(_happen(stage, act))
    with teller.beat("waiting"):
        stage.ccat.ask("wait", "--timeout", str(_PATIENCE.total_seconds()), on_news=teller.update)
    with teller.beat("looking at what was done"):
        made = _look(stage, known)
        waiting = waits_in(stage, dict.fromkeys(one.pipeline for one in act.waiting))
        for line in (*crossing_sentences(made.packages), *map(_told, made.runs), *map(str, waiting)):
            teller.say(line)
        _require(
            act.title,
            crossing_deviations(made.packages)
            + run_deviations(act.expected, made.runs)
            + wait_deviations(act.waiting, waiting),
        )
    values = science_values(made.runs)
    _require(act.title, science_deviations(act.expected, values))
    teller.say(f"{len(made.runs)} runs, exactly those expected; {len(values)} science values, each in its band")
    return made


def _look(stage: Stage, known: _Made) -> _Made:
    with ThreadPoolExecutor() as side_by_side:
        packages = side_by_side.submit(packages_since, stage, max((one.id for one in known.packages), default=0))
        runs = runs_since(stage, max((one.id for one in known.runs), default=0))
        return _Made(packages.result(), runs)


def _told(run: Run) -> str:
    subject = f"{run.instrument} {run.step} of {run.subject}"
    return f"run {run.id}: {subject} with {run.version}, {run.reason}: {run.because}"


def _happen(stage: Stage, act: Act) -> str:
    """Let it happen, and say what was done."""
    if act.is_release:
        first = yaml.safe_load(stage.directory.definitions.read_text())
        environment = stage.environments[NEXT_VERSION]
        _apply(stage, definitions.with_release(first, NEXT_VERSION, series=RELEASED, environment=environment))
        return f"Released: {', '.join(f'{name} {NEXT_VERSION} (series {series})' for name, series in RELEASED.items())}"
    observed, arriving = _cast(stage, act.observed), _cast(stage, act.arriving)
    observe_and_deliver(stage.ccat, observed=observed, arriving=arriving, storage=stage.directory.stack.storage)
    return f"Registered: {', '.join(f'{scan.name} ({scan.file.name})' for scan in arriving)}"


def _cast(stage: Stage, names: Iterable[str]) -> list[Scan]:
    """The scans of these names, as far as the fault lets them be, and as often."""
    doubled = stage.fault.doubled
    there = {name: stage.scans[name] for name in names if name not in stage.fault.dropped}
    shared = {name: replace(scan, shares_file=True) for name, scan in there.items() if name in doubled}
    return [*({**there, **shared}).values(), *map(another_of, shared.values())]


def _apply(stage: Stage, document: Mapping[str, Any]) -> None:
    file = stage.directory.definitions
    file.write_text(yaml.safe_dump(dict(document), sort_keys=False))
    stage.ccat.ask("apply", "--yes", "--file", str(file))


def _require(title: str, deviations: Sequence[str]) -> None:
    if deviations:
        raise NotAsExpected(title, deviations)
