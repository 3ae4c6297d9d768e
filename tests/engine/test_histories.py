"""Whatever happens in whatever order: what is maintained is what the raw tables say, and work ends."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from ccat_ops_db.states import PhysicalCopyStatus, RunStatus, Verdict
from tests.engine.database import Reference, initialized
from tests.engine.history import History

Found = TypeVar("Found")
Shape = list[dict[str, Any]]
SCAN: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
MAP: dict[str, Any] = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}
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
RECENT = {"table": "ExecutedObsUnit", "column": "started_at", "operator": "gte", "value": {"now": "-24h"}}


@pytest.fixture(scope="module")
def installation(postgresql_url: str, template_database: str) -> Iterator[sa.Engine]:
    with initialized(postgresql_url, template=template_database, storage=Path("/storage")) as engine:
        yield engine


@pytest.fixture(scope="module")
def fresh(installation: sa.Engine) -> Callable[[], History]:
    """Makes an empty history."""
    reference = Reference.of(installation)

    def make() -> History:
        reference.restore(installation)
        return History(installation)

    return make


def agrees(history: History) -> None:
    maintained, decided = history.compared()
    assert maintained == decided


STEPS = st.sampled_from(["calibrate", "grid", "all"])
NUMBERS = st.integers(0, 7)
EVENTS = st.one_of(
    st.tuples(st.just("archive"), st.sampled_from(["M17", "Orion A"]), st.sampled_from([0.0, 30.0])),
    st.tuples(st.just("exclude"), NUMBERS, st.none()),
    st.tuples(st.just("readmit"), NUMBERS, st.none()),
    st.tuples(st.just("correct"), st.sampled_from(["M17", "Orion A"]), st.sampled_from(["M17", "Orion A"])),
    st.tuples(st.just("rename"), st.sampled_from(["M17", "Orion A"]), NUMBERS),
    st.tuples(st.just("work"), NUMBERS, st.sampled_from(["complete", "fail", "retry", "cancel", "nothing"])),
    st.tuples(st.just("release"), STEPS, st.sampled_from(["1", "2"])),
    st.tuples(st.just("retire"), STEPS, st.sampled_from(["retired", "released"])),
    st.tuples(st.just("configure"), STEPS, NUMBERS),
    st.tuples(st.just("damage"), NUMBERS, st.sampled_from([PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING])),
    st.tuples(st.just("announce"), NUMBERS, st.none()),
    st.tuples(st.just("arrive"), NUMBERS, st.none()),
    st.tuples(st.just("write"), NUMBERS, st.sampled_from(["write", "pack"])),
    st.tuples(st.just("observe"), NUMBERS, st.sampled_from(["goes on", "ended", "more"])),
    st.tuples(st.just("accept"), NUMBERS, st.none()),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, 30.0]), st.none()),
    st.tuples(st.just("settle"), st.none(), st.none()),
)


def some(found: Sequence[Found], number: int) -> list[Found]:
    """One of them, if there are any."""
    return [found[number % len(found)]] if found else []


def exclude(history: History, number: int, _: object) -> None:
    for package in some(history.packages, number):
        history.exclude(package)


def readmit(history: History, number: int, _: object) -> None:
    for package in some(history.packages, number):
        history.readmit(package)


def announce(history: History, number: int, _: object) -> None:
    for package in some(history.packages, number):
        if not history.on_their_way():
            history.announce(package)


def arrive(history: History, number: int, _: object) -> None:
    for package in some(history.on_their_way(), number):
        history.arrive(package)


def write(history: History, number: int, what: str) -> None:
    for package in some(history.packages, number):
        history.write(package) if what == "write" else history.pack(package)


def observe(history: History, number: int, what: str) -> None:
    ended = None if what == "goes on" else history.now + timedelta(hours=1)
    for package in some(history.packages, number):
        history.scan_of(package, ended_at=ended, expected_files=1 if what == "more" else None)


def correct(history: History, observation: str, source: str) -> None:
    if history.knows(source):
        history.correct(observation, source=source)


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
    for run_id in some(history.undamaged(), number):
        history.damage(run_id, status)


def wait(history: History, hours: float, _: object) -> None:
    history.offset += timedelta(hours=hours)


def work(history: History, number: int, outcome: str) -> None:
    """Create what is wanted, and let one run of what there is come to an end."""
    history.create()
    history.start()
    for run in some(history.runs(RunStatus.STAGING_DATA), number):
        match outcome:
            case "complete":
                history.complete(run.id)
            case "fail" | "retry":
                history.fail(run.id, retried=outcome == "retry")
            case "cancel":
                history.cancel(run.id)


HAPPEN: dict[str, Callable[[History, Any, Any], object]] = {
    "archive": lambda history, source, hours: history.archive(source=source, hours_ago=hours),
    "accept": lambda history, number, _: history.accept(number),
    "settle": lambda history, *_: history.settle(),
    **{
        one.__name__: one
        for one in (
            announce,
            arrive,
            write,
            observe,
            exclude,
            readmit,
            correct,
            rename,
            release,
            retire,
            configure,
            damage,
            wait,
            work,
        )
    },
}


@pytest.mark.timeout(1200)
@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.sampled_from(sorted(SHAPES)), st.sampled_from([[], [RECENT]]), st.lists(EVENTS, min_size=2, max_size=7))
def test_what_is_maintained_is_what_a_rebuild_and_the_raw_tables_say(
    fresh: Callable[[], History], shape: str, rules: list[dict[str, object]], events: list[tuple[str, Any, Any]]
) -> None:
    history = fresh()
    history.define(*SHAPES[shape], rules=rules)
    history.archive()
    for event in events:
        HAPPEN[event[0]](history, *event[1:])
        agrees(history)
        assert not history.twice_active()
    assert history.rebuilt() == 0
    history.offset += timedelta(hours=2)
    for run in history.runs(RunStatus.STAGING_DATA):
        history.complete(run.id)
    history.settle()
    quiet = {Verdict.UP_TO_DATE, Verdict.BLOCKED, Verdict.FAILED, Verdict.CANCELLED}
    assert set(history.verdicts().values()) <= quiet
    assert history.create() == 0
    agrees(history)
