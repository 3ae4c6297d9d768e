"""What happens to pipelines, in whatever order; whatever it is, what is maintained is what the raw tables say."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any, TypeVar

from hypothesis import strategies as st

from ccat_ops_db.lookup import UnknownName
from ccat_ops_db.states import PhysicalCopyStatus, ProductState, RunStatus, Verdict
from ccat_workflow_manager.verbs.requesting import NothingReleased, PipelineDisabled
from ccat_workflow_manager.verbs.trying import CannotTry
from tests.engine.history import History
from tests.engine.order import check

Found = TypeVar("Found")
Shape = list[dict[str, Any]]
SCAN: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
MAP: dict[str, Any] = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}


def _calibrated(pipeline: str, **rule: Any) -> dict[str, Any]:
    """A map of raw packages with a calibration by such a rule."""
    auxiliary = {"name": "calibration", "from": f"{pipeline}/calibrate", **rule}
    return {"key": "grid", "group_by": ["source"], "auxiliary": [auxiliary]}


SHAPES: dict[str, Shape] = {
    "by scan, then by source": [SCAN, MAP],
    "three steps, one of which takes raw packages too": [
        SCAN,
        MAP,
        {"key": "all", "group_by": [], "depends_on": ["grid"], "inputs": ["raw", "upstream"]},
    ],
    "coarse before fine": [
        {"key": "grid", "group_by": ["source"]},
        {**SCAN, "depends_on": ["grid"], "inputs": ["raw", "upstream"]},
    ],
    "resting": [SCAN, {**MAP, "cooldown_seconds": 3600}],
    "without scans that failed": [SCAN, {**MAP, "on_failed_input": "omit", "cooldown_seconds": 3600}],
    "failures are passed over by a step in between": [
        SCAN,
        {**MAP, "group_by": ["executed_obs_unit"]},
        {"key": "all", "group_by": [], "depends_on": ["grid", "calibrate"], "on_failed_input": "omit"},
    ],
    "failures before fine": [
        {"key": "grid", "group_by": ["source"]},
        {**SCAN, "depends_on": ["grid"], "inputs": ["raw", "upstream"], "on_failed_input": "omit"},
    ],
    "whole scans only": [{**SCAN, "wait_for": "scan_complete"}, MAP],
    "modules of whole scans": [
        {**SCAN, "group_by": ["executed_obs_unit", "instrument_module"], "wait_for": "scan_complete"},
        {**MAP, "group_by": ["executed_obs_unit"], "wait_for": "scan_complete", "on_failed_input": "omit"},
    ],
    "half of it is enough": [SCAN, {**MAP, "readiness": "available", "min_fraction": 0.5}],
    "what is there, resting, then all of it": [
        SCAN,
        {**MAP, "readiness": "available", "on_failed_input": "omit", "cooldown_seconds": 3600},
        {"key": "all", "group_by": [], "depends_on": ["grid"], "inputs": ["raw", "upstream"]},
    ],
    "one step, every version redoes": [{"key": "grid", "group_by": ["source"], "version_policy": "latest"}],
}
CALIBRATED: dict[str, Shape] = {
    "by another pipeline, of the same module": [
        {**SCAN, "pipeline": "calibration"},
        _calibrated("calibration", same=["instrument_module"], max_age="12h"),
    ],
    "by another pipeline, redone for better ones": [
        {**SCAN, "pipeline": "calibration"},
        {**_calibrated("calibration", max_age="40h", redo_on_better=True), "cooldown_seconds": 3600},
        {"key": "all", "group_by": [], "depends_on": ["grid"]},
    ],
    "by a step of its own pipeline, or given up": [
        SCAN,
        {**_calibrated("it", same=["source"], max_age="90m", on_missing="fail"), "group_by": ["executed_obs_unit"]},
        {"key": "all", "group_by": [], "depends_on": ["grid"], "on_failed_input": "omit"},
    ],
    "by nights, with a map that depends on the same": [
        {**SCAN, "group_by": ["observing_night"]},
        {**MAP, **_calibrated("it", max_age="3d", redo_on_better=True), "group_by": ["executed_obs_unit"]},
    ],
    "by two rules": [
        {**SCAN, "pipeline": "calibration"},
        {
            "key": "grid",
            "group_by": ["source"],
            "auxiliary": [
                {"name": "near", "from": "calibration/calibrate", "max_age": "1h"},
                {
                    "name": "like",
                    "from": "calibration/calibrate",
                    "same": ["source"],
                    "max_age": "2d",
                    "redo_on_better": True,
                },
            ],
        },
    ],
}
"""Steps that choose what others made by rules."""
DEFINED = {**SHAPES, **CALIBRATED}


RECENT = {"table": "ExecutedObsUnit", "column": "started_at", "operator": "gte", "value": {"now": "-24h"}}

STEPS = st.sampled_from(["calibrate", "grid", "all"])
SOURCES = st.sampled_from(["M17", "Orion A"])
NUMBERS = st.integers(0, 7)
DAMAGES = st.sampled_from([PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING])
WHEN: Mapping[str, Mapping[str, Any]] = {
    "at every change": {},
    "when somebody wants it": {"trigger": "manual"},
    "every minute": {"trigger": "cron", "trigger_config": {"cron": "* * * * *"}},
}
HOW: Mapping[str, tuple[st.SearchStrategy[Any], ...]] = {
    "archive": (SOURCES, st.sampled_from([0.0, 30.0])),
    "exclude": (NUMBERS,),
    "blind": (NUMBERS, st.sampled_from(["7", "12"])),
    "withdraw": (NUMBERS,),
    "readmit": (NUMBERS,),
    "correct": (SOURCES, SOURCES),
    "reassign": (NUMBERS, SOURCES),
    "rename": (SOURCES, NUMBERS),
    "work": (NUMBERS, st.sampled_from(["complete", "fail", "retry", "cancel", "nothing"])),
    "finish": (),
    "release": (STEPS, st.sampled_from(["1", "2"])),
    "retire": (STEPS, st.sampled_from(["retired", "released"])),
    "configure": (STEPS, NUMBERS),
    "redefine": (st.sampled_from(sorted(DEFINED)),),
    "enable": (st.booleans(),),
    "damage": (NUMBERS, DAMAGES),
    "clear": (NUMBERS,),
    "revoke": (NUMBERS,),
    "copy": (NUMBERS,),
    "announce": (NUMBERS,),
    "arrive": (NUMBERS,),
    "write": (NUMBERS,),
    "pack": (NUMBERS,),
    "observe": (NUMBERS, st.sampled_from(["goes on", "ended", "more"])),
    "accept": (NUMBERS,),
    "try": (NUMBERS, st.sampled_from(["complete", "fail", "retry", "cancel", "nothing"])),
    "wish": (st.none() | STEPS, st.none() | NUMBERS, st.booleans()),
    "wait": (st.sampled_from([0.5, 2.0, 30.0]),),
    "forget": (),
}
WHAT = [*HOW, *("work",) * 5, *("archive",) * 2, "finish"]
"""What happens often stands there more than once."""


def events_of(what: Sequence[str]) -> st.SearchStrategy[Any]:
    """One of these happens, with whatever belongs to it."""
    return st.sampled_from(what).flatmap(lambda one: st.tuples(st.just(one), *HOW[one]))


def happenings_of(events: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Some of them, one after the other."""
    return st.lists(st.tuples(events, st.sampled_from([False, False, False, False, True])), min_size=2, max_size=5)


EVENTS = events_of(WHAT)
HAPPENINGS = happenings_of(EVENTS)
"""What happens, and whether somebody looks at the gap after it."""
WISHES = happenings_of(events_of([*WHAT, *("wish",) * 8, *("wait",) * 3]))
"""Where ticks and wishes come more often."""
Happenings = Sequence[tuple[tuple[Any, ...], bool]]


ORDERS = st.integers(0, 99).map(Random)
"""In which order runs come to their end."""


def some(found: Sequence[Found], number: int) -> list[Found]:
    """One of them, if there are any."""
    return [found[number % len(found)]] if found else []


def exclude(history: History, number: int) -> None:
    for package in some(history.packages, number):
        history.exclude(package)


def blind(history: History, number: int, pixel: str) -> None:
    for package in some(history.packages, number):
        history.blind(package, pixel)


def withdraw(history: History, number: int) -> None:
    for package in some(history.packages, number):
        history.withdraw(package)


def readmit(history: History, number: int) -> None:
    for package in some(history.packages, number):
        history.readmit(package)


def announce(history: History, number: int) -> None:
    for package in some(history.packages, number):
        if not history.on_their_way():
            history.announce(package)


def arrive(history: History, number: int) -> None:
    for package in some(history.on_their_way(), number):
        history.arrive(package)


def write(history: History, number: int) -> None:
    for package in some(history.packages, number):
        history.write(package)


def pack(history: History, number: int) -> None:
    for package in some(history.packages, number):
        history.pack(package)


def observe(history: History, number: int, what: str) -> None:
    ended = None if what == "goes on" else history.now + timedelta(hours=1)
    for package in some(history.packages, number):
        history.scan_of(package, ended_at=ended, expected_files=1 if what == "more" else None)


def correct(history: History, observation: str, source: str) -> None:
    if history.knows(source):
        history.correct(observation, source=source)


def reassign(history: History, number: int, observation: str) -> None:
    if history.knows(observation):
        for package in some(history.packages, number):
            history.reassign(package, observation=observation)


def rename(history: History, source: str, number: int) -> None:
    if not history.knows(f"{source} {number}"):
        history.rename(source, f"{source} {number}")


def release(history: History, step: str, series: str) -> None:
    if step in history.versions:
        history.release(step, f"{series}.{len(history.versions[step])}", series=series)


def retire(history: History, step: str, state: str) -> None:
    if step in history.versions:
        history.set_state(step, history.versions[step][-1]["version"], state)


def configure(history: History, step: str, number: int) -> None:
    if step in history.configs:
        history.configure(step, number)


def damage(history: History, number: int, status: PhysicalCopyStatus) -> None:
    for run_id in some(history.with_copies(PhysicalCopyStatus.PRESENT), number):
        history.damage(run_id, status)


def revoke(history: History, number: int) -> None:
    for run_id in some(history.with_products(ProductState.CURRENT), number):
        history.withdraw_products(run_id)


def clear(history: History, number: int) -> None:
    for run_id in some(history.with_copies(PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING), number):
        history.damage(run_id, PhysicalCopyStatus.DELETED)


def copy(history: History, number: int) -> None:
    for run_id in some(history.with_copies(PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING), number):
        history.copy(run_id)


def wait(history: History, hours: float) -> None:
    history.offset += timedelta(hours=hours)


def work(history: History, number: int, outcome: str) -> None:
    """Create what is wanted, and let one run of what there is come to an end."""
    history.create()
    history.retry()
    history.start()
    end(history, *some(history.ids(RunStatus.STAGING_DATA), number), outcome=outcome)


def try_out(history: History, number: int, outcome: str) -> None:
    """Let somebody try out a version and other parameters on one sub-group, and let that come to an end."""
    for one in some([one for one in history.gap().values() if one.step.key in history.versions], number):
        version = history.versions[one.step.key][number % len(history.versions[one.step.key])]["version"]
        with suppress(CannotTry, PipelineDisabled):
            tried = history.try_out(one.step.key, one.path, version=version, settings=[f"value={number}"])
            history.start(*tried.runs.values())
            end(history, *tried.runs.values(), outcome=outcome)


def wish(history: History, step: str | None, number: int | None, *, force: bool) -> None:
    """Let somebody want all of it, a step, or a sub-group."""
    known = [one for one in history.gap().values() if step in {None, one.step.key}]
    chosen = [one.path for one in some(known, number)] if number is not None else []
    with suppress(UnknownName, NothingReleased, PipelineDisabled):
        history.wish(step=step, sub_groups=chosen, force=force)


def end(history: History, *run_ids: int, outcome: str) -> None:
    """Let runs come to an end that were started, if they were."""
    for run_id in {*run_ids} & {*history.ids(RunStatus.STAGING_DATA)}:
        match outcome:
            case "complete":
                history.complete(run_id)
            case "fail" | "retry":
                history.fail(run_id, retried=outcome == "retry")
            case "cancel":
                history.cancel(run_id)


def finish(history: History, order: Random | None = None) -> None:
    """Let everything come to its end, what rests too: at most each step once, after the one before it."""
    if order is None:
        history.complete(*history.ids(RunStatus.STAGING_DATA))
    for _ in range(1 + len(history.steps)):
        history.offset += timedelta(hours=2)
        history.settle(order=order)
        if not any(verdict is Verdict.COOLING for _, _, verdict, *_ in history.noted()):
            break
    assert not (unsettled(history) and history.is_enabled and history.is_continuous)


def unsettled(history: History) -> set[Verdict]:
    """What is noted of sub-groups of which something is to be run."""
    return {verdict for _, _, verdict, *_ in history.noted()} & {Verdict.WANTED, Verdict.COOLING}


HAPPEN: Mapping[str, Callable[..., object]] = {
    "archive": lambda history, source, hours: history.archive(source=source, hours_ago=hours),
    "accept": lambda history, number: history.accept(number),
    "redefine": lambda history, shape: history.define(*DEFINED[shape], rules=history.rules, **history.keys),
    "enable": lambda history, enabled: history.enable(enabled=enabled),
    "forget": lambda history: history.forget(),
    "try": try_out,
    "wish": lambda history, step, number, force: wish(history, step, number, force=force),
    **{one.__name__: one for one in (exclude, blind, withdraw, readmit, correct, reassign, rename, release, retire)},
    **{one.__name__: one for one in (announce, arrive, write, pack, observe)},
    **{one.__name__: one for one in (configure, damage, clear, revoke, copy, wait, work, finish)},
}


def begin(history: History, shape: str) -> None:
    """Define a pipeline and have one package archived."""
    history.define(*DEFINED[shape], rules=history.rules, **history.keys)
    history.archive()


def undergo(history: History, shape: str, events: Iterable[tuple[Any, ...]]) -> None:
    """Have a pipeline, one package and all of this happen; in the end it is enabled."""
    begin(history, shape)
    for what, *how in events:
        HAPPEN[what](history, *how)
    if not history.is_enabled:
        history.enable(enabled=True)


def live_through(history: History, shape: str, happenings: Happenings) -> None:
    """The same, while people look at it, and see that everything is in order."""
    begin(history, shape)
    for (what, *how), is_looked_at in happenings:
        HAPPEN[what](history, *how)
        if is_looked_at:
            check(history)
    if not history.is_enabled:
        history.enable(enabled=True)
    check(history)
    assert history.rebuilt() == 0


def come_to_rest(history: History, order: Random | None = None) -> None:
    """Have everything run that is to be run, for somebody wants it or it is time, after which nothing is."""
    if not history.is_continuous:
        wait(history, 1)
        wish(history, None, None, force=False)
    finish(history, order)
    assert history.create() == 0
    assert not unsettled(history)
    assert history.open_triggers() == []
