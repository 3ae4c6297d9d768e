"""Calibrations that are committed while pipelines are evaluated or defined: none is missed."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.plan.digests import Input, input_digest
from ccat_ops_db.states import InputRole, Verdict
from ccat_workflow_manager.verbs import starting
from ccat_workflow_manager.verbs.starting import Started
from tests.engine.history import History
from tests.engine.order import check
from tests.engine.test_auxiliary import FLAT, MAP, by_flat, define, flat, of_source, told, took


def test_a_flat_that_is_committed_while_the_pipeline_is_evaluated_is_not_missed(ops_db: sa.Engine) -> None:
    history = History(ops_db, other_rules=of_source("Saturn"))
    define(history, by_flat(), FLAT)
    history.archive(source="Saturn")
    history.archive()
    history.create()
    history.start()
    with history.engine.connect() as connection:
        late = replace(history, within=connection)
        connection.begin()
        late.complete(history.runs_of("flat")[0].id)
        assert history.gap()["grid M17"].verdict is Verdict.BLOCKED
        connection.commit()
    assert history.gap()["grid M17"].verdict is Verdict.WANTED
    check(history)


def test_a_rule_that_is_applied_while_a_flat_is_made_finds_it(ops_db: sa.Engine) -> None:
    history = History(ops_db, other_rules=of_source("Saturn"))
    define(history, MAP, FLAT)
    history.archive(source="Saturn")
    history.archive()
    history.create()
    history.start()
    with history.engine.connect() as connection:
        late = replace(history, within=connection)
        connection.begin()
        late.complete(history.runs_of("flat")[0].id)
        define(history, by_flat(), FLAT)
        assert history.gap()["grid M17"].verdict is Verdict.BLOCKED
        connection.commit()
    assert history.gap()["grid M17"].verdict is Verdict.WANTED
    check(history)


@pytest.fixture
def mapping(ops_db: sa.Engine) -> History:
    """A flat, a map that is to be started, and a further scan for it that is handed out."""
    history = History(ops_db, other_rules=of_source("Saturn"))
    define(history, by_flat(), FLAT)
    flat(history)
    history.archive()
    history.create()
    history.archive()
    history.session(hand_out)
    return history


def start_when(
    history: History, run_id: int, *, late: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> Started:
    """Start a run, while somebody else commits something just after all was handed out."""

    def hand_out_before(session: Session, *, waits: bool) -> int:
        number = hand_out(session, waits=waits)
        late()
        return number

    monkeypatch.setattr(starting, "hand_out", hand_out_before)
    started = history.start(run_id)
    monkeypatch.undo()
    return started


def test_a_map_starts_with_the_flat_that_was_made_again_while_nobody_was_told(
    mapping: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    [old] = [run.id for run in mapping.runs_of("flat")]
    mapping.configure("flat", 1)
    mapping.create()
    again = mapping.runs_of("flat")[-1].id
    mapping.start(again)
    mapping.archive()
    [run] = mapping.runs_of("grid")
    started = start_when(mapping, run.id, late=lambda: mapping.complete(again), monkeypatch=monkeypatch)
    assert started.started == (run.id,)
    mapping.complete(run.id)
    assert took(mapping) == [old]
    check(mapping)


def test_a_map_waits_where_its_flat_was_withdrawn_while_nobody_was_told(
    mapping: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    [run] = mapping.runs_of("grid")
    flat_id = mapping.runs_of("flat")[0].id
    started = start_when(mapping, run.id, late=lambda: mapping.withdraw_products(flat_id), monkeypatch=monkeypatch)
    assert started.waiting == (run.id,)
    assert told(mapping) == (Verdict.BLOCKED, "waits for flat of calibration/flat within 12 h of p2, p3")
    assert mapping.settle() == ["flat", "grid"]
    assert took(mapping) == [mapping.runs_of("flat")[-1].id]
    check(mapping)


def test_a_rebuild_finds_what_was_made_without_a_flat(mapping: History) -> None:
    mapping.settle()
    [run] = mapping.runs_of("grid")
    [made] = took(mapping)
    _take_away(mapping, run.id)
    assert mapping.rebuilt() > 0
    verdict, because = told(mapping)
    assert (verdict, because.split(" of ")[0]) == (Verdict.WANTED, f"better auxiliary inputs since run {run.id}: flat")
    assert mapping.settle() == ["grid"]
    assert took(mapping) == [made]
    check(mapping)


def _take_away(history: History, run_id: int) -> None:
    """Have a run be as if it had been started without its auxiliary inputs."""
    taken, package, run = models.RunInput, models.RawDataPackage, models.ExecutedReductionStep
    raw = sa.select(package.name, package.checksum).join(taken, taken.raw_data_package_id == package.id)
    found = history.session(lambda session: session.execute(raw.where(taken.run_id == run_id)).all())
    digest = input_digest([Input(InputRole.RAW, "", "", name, checksum or "") for name, checksum in found])
    history.execute(sa.delete(taken).where(taken.run_id == run_id, taken.role == InputRole.AUXILIARY))
    history.execute(sa.update(run).where(run.id == run_id).values(input_digest=digest))
