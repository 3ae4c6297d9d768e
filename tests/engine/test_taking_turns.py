"""Definitions are applied while managers work, and by two people at once: everybody waits, nobody is in the way."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
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
from ccat_ops_db.verbs import foreseeing
from ccat_ops_db.verbs.definitions import apply_definitions
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
