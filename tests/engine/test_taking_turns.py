"""Definitions are applied while managers work, and by two people at once: everybody waits, nobody is in the way."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.definitions.document import Definitions
from ccat_ops_db.definitions.parsing import parse_definitions
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.gap.evaluation import evaluate
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import presets
from ccat_ops_db.lookup import UnknownName
from ccat_ops_db.queries.roots import Kind, find_one
from ccat_ops_db.verbs import foreseeing
from ccat_ops_db.verbs.definitions import apply_definitions
from ccat_ops_db.verbs.withdrawing import withdraw
from ccat_workflow_manager.verbs.trying import CannotTry
from tests.engine.history import History
from tests.engine.test_auxiliary import FLAT, MAP, define, of_source

SCAN = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
_WAITING = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
_PATIENCE_S = 10


@pytest.fixture
def history(ops_db: sa.Engine) -> History:
    """Two pipelines."""
    made = History(ops_db, other_rules=of_source("Saturn"))
    define(made, MAP, FLAT)
    made.archive()
    made.create()
    return made


def parse(document: dict[str, Any]) -> Definitions:
    return parse_definitions(document, catalogue=catalogue(), dimensions=list(dimensions()), presets=presets())


def apply(history: History, document: dict[str, Any]) -> None:
    definitions = parse(document)
    history.session(lambda session: apply_definitions(session, definitions, folder=Path("/"), by="Ann"))


def until_somebody_waits(history: History) -> None:
    """Look at the locks until somebody does; whoever should and does not lets the test fail."""
    deadline = time.monotonic() + _PATIENCE_S
    with history.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.scalar(_WAITING):
            assert time.monotonic() < deadline, "nobody waits"
            time.sleep(0.01)


def limited(history: History, live: int) -> dict[str, Any]:
    document = history.document()
    for pipeline in document["pipelines"]:
        pipeline["limits"] = {"live": live}
    return document


def test_a_file_in_whatever_order_waits_for_a_manager(history: History) -> None:
    ids = history.session(
        lambda session: dict(session.execute(sa.select(models.Pipeline.name, models.Pipeline.id)).all())
    )
    document = limited(history, 5)
    document["pipelines"].sort(key=lambda pipeline: -ids[pipeline["name"]])
    has_first = threading.Event()

    def manage(session: Session) -> None:
        for number in sorted(ids.values()):
            evaluate(session, number, now=history.now, by="a manager")
            has_first.set()
            until_somebody_waits(history)

    with ThreadPoolExecutor(1) as pool:
        managed = pool.submit(history.session, manage)
        has_first.wait()
        apply(history, document)
        managed.result()


def test_what_is_foreseen_and_what_is_applied_take_turns(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    foreseen = history.document()
    foreseen["configs"][0]["parameters"] = {"value": 9}
    definitions, plans, has_planned = parse(foreseen), foreseeing._plans, threading.Event()

    def slowly(*words: Any, **keys: Any) -> Any:
        found = plans(*words, **keys)
        has_planned.set()
        until_somebody_waits(history)
        return found

    monkeypatch.setattr(foreseeing, "_plans", slowly)

    def foresee(session: Session) -> None:
        foreseeing.foresee(session, definitions, folder=Path("/"), now=history.now, by="Bob")

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(history.session, foresee)
        has_planned.wait()
        apply(history, limited(history, 5))
        done.result()


def test_a_start_waits_for_changes_that_somebody_is_handing_out(ops_db: sa.Engine) -> None:
    history = History(ops_db)
    history.define(SCAN)
    package = history.archive()
    history.create()
    history.exclude(package)
    has_taken, goes_on = threading.Event(), threading.Event()

    def hold(session: Session) -> None:
        hand_out(session)
        has_taken.set()
        goes_on.wait()

    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(history.session, hold)
        has_taken.wait()
        started = pool.submit(history.start)
        until_somebody_waits(history)
        goes_on.set()
        held.result()
        assert (started.result().started, len(started.result().not_needed)) == ((), 1)


@pytest.fixture
def calibrating(ops_db: sa.Engine) -> History:
    """A run that waits to be started."""
    made = History(ops_db)
    made.define(SCAN)
    made.archive()
    made.create()
    return made


def start(history: History) -> Sequence[int]:
    return history.start().started


def try_out(history: History) -> Sequence[int]:
    [gap] = history.gap().values()
    with suppress(CannotTry, UnknownName):
        return list(history.try_out("calibrate", gap.path).runs.values())
    return []


@pytest.mark.parametrize("begin", [start, try_out])
def test_nothing_begins_with_what_somebody_is_withdrawing(
    calibrating: History, begin: Callable[[History], Sequence[int]]
) -> None:
    has_withdrawn, goes_on = threading.Event(), threading.Event()

    def withdraw_it(session: Session) -> None:
        root = find_one(session, Kind.PACKAGE, "p1")
        withdraw(session, root, because="wrong telescope", now=calibrating.now, by="Ann")
        has_withdrawn.set()
        goes_on.wait(_PATIENCE_S)

    with ThreadPoolExecutor(2) as pool:
        withdrawn = pool.submit(calibrating.session, withdraw_it)
        has_withdrawn.wait()
        begun = pool.submit(begin, calibrating)
        try:
            until_somebody_waits(calibrating)
        finally:
            goes_on.set()
        withdrawn.result()
        assert list(begun.result()) == []


def test_who_foresees_that_a_version_is_withdrawn_and_who_begins_runs_take_turns(
    calibrating: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = calibrating.document()
    document["software"][0]["versions"][0]["state"] = "withdrawn"
    definitions, plans, has_planned = parse(document), foreseeing._plans, threading.Event()

    def slowly(*words: Any, **keys: Any) -> Any:
        found = plans(*words, **keys)
        if not has_planned.is_set():
            has_planned.set()
            until_somebody_waits(calibrating)
        return found

    def foresee(session: Session) -> None:
        foreseeing.foresee(session, definitions, folder=Path("/"), now=calibrating.now, by="Bob")

    monkeypatch.setattr(foreseeing, "_plans", slowly)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(calibrating.session, foresee)
        has_planned.wait()
        assert len(calibrating.start().started) == 1
        done.result()
