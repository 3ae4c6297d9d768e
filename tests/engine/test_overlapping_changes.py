"""Transactions that overlap, and commit in whatever order: nothing that they changed is missed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import pytest
import sqlalchemy as sa

from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.gap.evaluation import come_by
from tests.engine.history import History
from tests.engine.order import check

Change = Callable[[History], object]
MAP = {"key": "grid", "group_by": ["source"], "version_policy": "latest"}


@pytest.fixture
def connection(ops_db: sa.Engine) -> Iterator[sa.Connection]:
    with ops_db.connect() as connection:
        yield connection


@pytest.fixture
def installed(connection: sa.Connection) -> History:
    """A map of M17 and one of Orion A, made and committed."""
    history = History(connection.engine, connection)
    history.define(MAP)
    history.archive(source="Orion A")
    history.archive()
    evaluate(history)
    return history


@contextmanager
def elsewhere(history: History) -> Iterator[History]:
    """The same installation, changed in transactions of their own, which the caller commits."""
    with history.engine.connect() as connection:
        yield replace(history, within=connection)


def evaluate(history: History) -> None:
    """What the processes do, committed."""
    history.settle()
    history.connection.commit()


def archive(history: History) -> None:
    history.archive()


def exclude(history: History) -> None:
    history.exclude(history.packages[0])


def exclude_another(history: History) -> None:
    history.exclude(history.packages[1])


def rename(history: History) -> None:
    history.rename("M17", "Omega")


def release(history: History) -> None:
    history.release("grid", f"{len(history.versions['grid']) + 1}.0")


def redefine(history: History) -> None:
    history.define({**MAP, "group_by": []})


def enable(history: History) -> None:
    history.enable(enabled=True)


def define(history: History) -> None:
    history.define(MAP)


def both_are_taken_into_account(history: History, first: Change, second: Change) -> None:
    """Have the first begin before the second and commit after it, and what there is evaluated after each commit."""
    with elsewhere(history) as late, elsewhere(history) as early:
        late.connection.begin()
        first(late)
        second(early)
        early.connection.commit()
        evaluate(history)
        late.connection.commit()
    nothing_was_missed(replace(history, keys=late.keys))


def nothing_was_missed(history: History) -> None:
    """What is noted after the next round is all that there is to note."""
    evaluate(history)
    noted = history.noted()
    check(history)
    assert history.rebuilt() == 0
    assert history.noted() == noted


@pytest.mark.parametrize("second", [archive, exclude_another])
@pytest.mark.parametrize("first", [archive, exclude, rename, release, redefine])
def test_what_commits_late_is_not_lost(installed: History, first: Change, second: Change) -> None:
    both_are_taken_into_account(installed, first, second)


@pytest.mark.parametrize("second", [archive, exclude_another])
def test_a_pipeline_that_is_enabled_meanwhile_misses_nothing(installed: History, second: Change) -> None:
    installed.enable(enabled=False)
    evaluate(installed)
    both_are_taken_into_account(installed, enable, second)


@pytest.mark.parametrize("second", [archive, exclude_another])
def test_a_pipeline_that_is_defined_meanwhile_misses_nothing(connection: sa.Connection, second: Change) -> None:
    history = History(connection.engine, connection)
    history.archive(source="Orion A")
    history.archive()
    evaluate(history)
    both_are_taken_into_account(history, define, second)


@pytest.mark.parametrize("first", [enable, redefine])
def test_what_commits_before_the_pipeline_is_told_of_it_at_the_latest(installed: History, first: Change) -> None:
    installed.enable(enabled=False)
    evaluate(installed)
    with elsewhere(installed) as late, elsewhere(installed) as other:
        late.connection.begin()
        archive(late)
        first(other)
        other.connection.commit()
        history = replace(installed, keys=other.keys)
        evaluate(history)
        late.connection.commit()
    history.enable(enabled=True)
    nothing_was_missed(history)


def new_data_and_a_new_version(history: History) -> None:
    archive(history)
    release(history)


def a_new_revision(history: History) -> None:
    history.change("grid", cooldown_seconds=history.steps[0].get("cooldown_seconds", 0) + 1)


@contextmanager
def before_statement(history: History, point: int, happens: Callable[[], object]) -> Iterator[Callable[[], bool]]:
    """Have something happen before that statement; whether it did."""
    executed = 0

    def watch(*_: object) -> None:
        nonlocal executed
        executed += 1
        if executed == point:
            happens()

    sa.event.listen(history.connection, "before_cursor_execute", watch)
    yield lambda: executed >= point
    sa.event.remove(history.connection, "before_cursor_execute", watch)


def test_what_arrives_while_everything_is_looked_at_is_not_in_a_map_before_what_the_map_needs(
    connection: sa.Connection,
) -> None:
    history = History(connection.engine, connection)
    history.define({"key": "calibrate", "group_by": ["executed_obs_unit"]}, {**MAP, "depends_on": ["calibrate"]})
    history.archive()
    evaluate(history)
    with elsewhere(history) as other:
        for point in count(1):
            history.session(lambda session: come_by(session, sa.true(), rebuild=True))
            history.connection.commit()
            other.connection.begin()
            other.archive(source=f"M{point}")
            known = {run.id for run in history.runs()}
            with before_statement(history, point, other.connection.commit) as has_happened:
                history.create()
            history.connection.commit()
            made = [history.step_of(run) for run in history.runs() if run.id not in known]
            assert made in ([], ["calibrate"]), f"where it arrives before statement {point}"
            if not has_happened():
                break
            evaluate(history)
            nothing_was_missed(history)
    assert point > 20


@pytest.mark.parametrize("change", [new_data_and_a_new_version, a_new_revision])
def test_what_commits_between_any_two_statements_of_an_evaluation_is_not_lost(
    installed: History, change: Change
) -> None:
    def commit() -> None:
        other.connection.commit()
        other.session(hand_out)  # as another process may
        other.connection.commit()

    with elsewhere(installed) as other:
        for point in count(1):
            archive(installed)
            installed.connection.commit()
            other.connection.begin()
            change(other)
            with before_statement(installed, point, commit) as has_happened:
                installed.create()
            installed.connection.commit()
            if not has_happened():
                break
            installed.create()
            noted = installed.noted()
            check(installed)
            assert installed.noted() == noted, f"lost before statement {point}"
            installed.connection.commit()
    assert point > 12
