import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.models import DataProduct, ExecutedReductionStep, PhysicalCopy, RawDataFilePhysicalCopy, StatusChange
from ccat_ops_db.moves import CHANNEL, IllegalMove, advance
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PHYSICAL_COPY_MOVES, PhysicalCopyStatus, ProductState, RunStatus, VersionState
from tests.ops_db.rows import DIGEST, START, World, a_file

PATIENCE_S = 10


def new_copies(session: Session, world: World, count: int) -> list[int]:
    """Copies of files of their own, WRITING."""
    files = [a_file(scan=world.scan, module=world.module, relative_path="?") for _ in range(count)]
    for file in files:
        file.relative_path = f"{file.id}.fits"
    session.add_all(files)
    session.flush()
    copies = [
        RawDataFilePhysicalCopy(raw_data_file_id=file.id, data_location_id=world.archive, path=file.relative_path)
        for file in files
    ]
    session.add_all(copies)
    session.flush()
    return [copy.id for copy in copies]


def statuses(session: Session, copies: Sequence[int]) -> dict[int, PhysicalCopyStatus]:
    rows = session.execute(sa.select(PhysicalCopy.id, PhysicalCopy.status).where(PhysicalCopy.id.in_(copies)))
    return dict(sorted(rows.all()))


def history(session: Session, noun: type[models.Base], of: int) -> list[StatusChange]:
    changes = sa.select(StatusChange).where(StatusChange.noun == noun.__tablename__, StatusChange.object_id == of)
    return list(session.scalars(changes.order_by(StatusChange.id)))


@pytest.fixture
def copies(shared_engine: sa.Engine, world: World) -> list[int]:
    with transaction(shared_engine) as session:
        return new_copies(session, world, 3)


def move(session: Session, ids: Sequence[int], to: PhysicalCopyStatus, *, by: str = "tests") -> list[int]:
    return advance(session, PhysicalCopy, ids, to=to, because="a test", by=by)


def test_who_has_an_expected_status_moves_and_is_returned(shared_engine: sa.Engine, copies: list[int]) -> None:
    with transaction(shared_engine) as session:
        assert move(session, [copies[2], copies[0], copies[2]], PhysicalCopyStatus.PRESENT) == [copies[0], copies[2]]
        assert move(session, copies, PhysicalCopyStatus.STAGED) == [copies[0], copies[2]]
        assert list(statuses(session, copies).values()) == ["staged", "writing", "staged"]


def test_only_the_expected_ones_of_the_legal_statuses_move(shared_engine: sa.Engine, copies: list[int]) -> None:
    present, staged = PhysicalCopyStatus.PRESENT, PhysicalCopyStatus.STAGED
    with transaction(shared_engine) as session:
        move(session, copies, present)
        move(session, copies[:1], staged)
        missing = advance(
            session, PhysicalCopy, copies, expected=[staged], to=PhysicalCopyStatus.MISSING, because="-", by="tests"
        )
    assert missing == copies[:1]


def test_nobody_moves_where_nobody_is_named(shared_engine: sa.Engine) -> None:
    with transaction(shared_engine) as session:
        assert move(session, [], PhysicalCopyStatus.PRESENT) == []
        assert move(session, [10**12], PhysicalCopyStatus.PRESENT) == []


def test_an_illegal_move_is_refused_with_the_statuses_it_cannot_start_from(
    shared_engine: sa.Engine, copies: list[int]
) -> None:
    with transaction(shared_engine) as session:
        with pytest.raises(IllegalMove) as refused:
            advance(
                session,
                PhysicalCopy,
                copies,
                expected=[PhysicalCopyStatus.WRITING, PhysicalCopyStatus.STAGED],
                to=PhysicalCopyStatus.PRESENT,
                because="-",
                by="tests",
            )
        assert str(refused.value) == (
            "No physical_copy moves from staged to present; ccat_ops_db.states has its legal moves."
        )
        assert set(statuses(session, copies).values()) == {PhysicalCopyStatus.WRITING}


def test_a_status_that_nothing_leads_to_is_refused(shared_engine: sa.Engine, copies: list[int]) -> None:
    with transaction(shared_engine) as session, pytest.raises(IllegalMove, match="from anywhere to writing"):
        move(session, copies, PhysicalCopyStatus.WRITING)


def test_a_move_leaves_who_when_from_to_and_why(shared_engine: sa.Engine, copies: list[int]) -> None:
    with transaction(shared_engine) as session:
        before = session.scalars(sa.select(sa.func.clock_timestamp())).one()
        advance(
            session, PhysicalCopy, copies[:1], to=PhysicalCopyStatus.PRESENT, because="read back", by="worker@host:7"
        )
    with transaction(shared_engine) as session:
        (change,) = history(session, PhysicalCopy, copies[0])
        assert (change.from_status, change.to_status) == ("writing", "present")
        assert (change.by, change.because) == ("worker@host:7", "read back")
        assert before <= change.at <= session.scalars(sa.select(sa.func.clock_timestamp())).one()
        assert history(session, PhysicalCopy, copies[1]) == []


def test_a_move_and_its_history_are_rolled_back_together(shared_engine: sa.Engine, copies: list[int]) -> None:
    with Session(shared_engine) as session:
        assert move(session, copies, PhysicalCopyStatus.PRESENT) == copies
        session.rollback()
    with transaction(shared_engine) as session:
        assert set(statuses(session, copies).values()) == {PhysicalCopyStatus.WRITING}
        assert [history(session, PhysicalCopy, copy) for copy in copies] == [[], [], []]


def test_values_are_written_by_the_same_statement(shared_engine: sa.Engine, world: World) -> None:
    """A check constraint ties the two columns: one after the other would be refused."""
    with Session(shared_engine) as session:
        moved = advance(
            session,
            ExecutedReductionStep,
            [world.run],
            to=RunStatus.STAGING_DATA,
            values={"inputs_frozen_at": START},
            because="inputs are there",
            by="tests",
        )
        assert moved == [world.run]
        run = session.get_one(ExecutedReductionStep, world.run)
        assert (run.status, run.inputs_frozen_at) == (RunStatus.STAGING_DATA, START)


def test_an_object_that_the_session_holds_shows_the_new_status(shared_engine: sa.Engine, world: World) -> None:
    with Session(shared_engine) as session:
        product = session.get_one(DataProduct, world.product)
        product.description = "not flushed yet"
        advance(session, DataProduct, [world.product], to=ProductState.SUPERSEDED, because="newer run", by="tests")
        assert product.state is ProductState.SUPERSEDED
        assert product.description == "not flushed yet"


def test_objects_that_did_not_move_stay_loaded(shared_engine: sa.Engine, copies: list[int]) -> None:
    with Session(shared_engine) as session:
        held = [session.get_one(PhysicalCopy, copy) for copy in copies]
        with statements(shared_engine) as seen:
            move(session, copies[:1], PhysicalCopyStatus.PRESENT)
            assert [copy.status for copy in held[1:]] == [PhysicalCopyStatus.WRITING] * 2
            assert len(seen) == 1
            assert held[0].status is PhysicalCopyStatus.PRESENT


@contextmanager
def statements(engine: sa.Engine) -> Iterator[list[str]]:
    seen: list[str] = []

    def see(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    sa.event.listen(engine, "before_cursor_execute", see)
    yield seen
    sa.event.remove(engine, "before_cursor_execute", see)


def test_ten_thousand_objects_move_in_one_statement(shared_engine: sa.Engine, world: World) -> None:
    version = models.ReductionSoftwareVersion.__table__
    with Session(shared_engine) as session:
        numbers = sa.select(
            sa.literal(world.software),
            sa.literal("1.0.dev") + sa.cast(sa.func.generate_series(1, 10_000), sa.Text),
            sa.literal("1"),
            sa.literal("process"),
            sa.text("'[]'::jsonb"),
            sa.literal(DIGEST),
        )
        columns = ["reduction_software_id", "version", "series", "runtime", "command", "content_digest"]
        rows = sa.insert(models.ReductionSoftwareVersion).from_select(columns, numbers).returning(version.c.id)
        ids = session.scalars(rows).all()
        begin = time.monotonic()
        with statements(shared_engine) as seen:
            moved = advance(
                session, models.ReductionSoftwareVersion, ids, to=VersionState.RETIRED, because="old", by="tests"
            )
        assert time.monotonic() - begin < 5
        assert moved == sorted(ids)
        assert [statement.split()[0] for statement in seen] == ["WITH"]


# Wake-ups


@pytest.fixture
def listener(shared_engine: sa.Engine) -> Iterator[psycopg.Connection]:
    url = shared_engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        yield connection


def heard_until(listener: psycopg.Connection, last: str) -> list[str]:
    """Payloads in the order of their commits, up to `last`."""
    heard = []
    for notice in listener.notifies(timeout=PATIENCE_S):
        heard.append(notice.payload)
        if notice.payload == last:
            break
    return heard


def say(engine: sa.Engine, payload: str) -> None:
    with transaction(engine) as session:
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, payload)))


def test_a_wake_up_arrives_when_the_move_commits_and_not_before(
    shared_engine: sa.Engine, listener: psycopg.Connection, copies: list[int]
) -> None:
    with transaction(shared_engine) as session:
        move(session, copies, PhysicalCopyStatus.PRESENT)
        say(shared_engine, "before the commit")
        assert heard_until(listener, "before the commit") == ["before the commit"]
    assert heard_until(listener, "physical_copy:present") == ["physical_copy:present"]


def test_no_wake_up_comes_from_a_move_that_nobody_made_or_that_was_rolled_back(
    shared_engine: sa.Engine, listener: psycopg.Connection, copies: list[int]
) -> None:
    with transaction(shared_engine) as session:
        assert move(session, copies, PhysicalCopyStatus.STAGED) == []
    with Session(shared_engine) as session:
        move(session, copies, PhysicalCopyStatus.PRESENT)
        session.rollback()
    say(shared_engine, "end")
    assert heard_until(listener, "end") == ["end"]


# Several at once


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def waits_for_a_lock(engine: sa.Engine, application: str) -> bool:
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = :who AND wait_event_type = 'Lock'"
    )
    with engine.connect() as connection:
        return bool(connection.scalar(waiting, {"who": application}))


@pytest.mark.parametrize(("first_commits", "second_moves"), [(True, 0), (False, 3)])
def test_of_two_that_want_the_same_move_one_makes_it(
    shared_engine: sa.Engine, copies: list[int], *, first_commits: bool, second_moves: int
) -> None:
    def second() -> list[int]:
        with transaction(shared_engine) as session:
            session.execute(sa.text("SET LOCAL application_name = 'second'"))
            return move(session, copies, PhysicalCopyStatus.PRESENT, by="second")

    with ThreadPoolExecutor(1) as pool, Session(shared_engine) as session:
        assert len(move(session, copies, PhysicalCopyStatus.PRESENT, by="first")) == 3
        result = pool.submit(second)
        wait_until(lambda: waits_for_a_lock(shared_engine, "second"))
        (session.commit if first_commits else session.rollback)()
        assert len(result.result(PATIENCE_S)) == second_moves


@dataclass(frozen=True)
class Wish:
    members: frozenset[int]
    to: PhysicalCopyStatus


WISHES = st.lists(
    st.builds(
        Wish,
        members=st.frozensets(st.integers(0, 3), min_size=1),
        to=st.sampled_from([to for to in PhysicalCopyStatus if to != PhysicalCopyStatus.WRITING]),
    ),
    max_size=12,
)
SLOW_ENOUGH = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def assert_history_replays(session: Session, copies: Sequence[int]) -> None:
    """Each history is a chain of legal moves from WRITING to the status that the copy has now."""
    now = statuses(session, copies)
    for copy in copies:
        status = PhysicalCopyStatus.WRITING
        for change in history(session, PhysicalCopy, copy):
            assert change.from_status == status
            assert change.to_status in PHYSICAL_COPY_MOVES[status]
            status = PhysicalCopyStatus(change.to_status)
        assert status == now[copy]


@given(sessions=st.lists(st.tuples(WISHES, st.booleans()), max_size=4))
@SLOW_ENOUGH
def test_moves_one_after_the_other_go_as_the_table_says(
    shared_engine: sa.Engine, world: World, sessions: list[tuple[list[Wish], bool]]
) -> None:
    with transaction(shared_engine) as session:
        copies = new_copies(session, world, 4)
    committed = dict.fromkeys(copies, PhysicalCopyStatus.WRITING)
    for wishes, commits in sessions:
        with Session(shared_engine) as session:
            expected = dict(committed)
            for wish in wishes:
                ids = [copies[member] for member in wish.members]
                able = [id_ for id_ in sorted(ids) if wish.to in PHYSICAL_COPY_MOVES.get(expected[id_], ())]
                assert move(session, ids, wish.to) == able
                expected |= dict.fromkeys(able, wish.to)
                assert statuses(session, copies) == expected
            (session.commit if commits else session.rollback)()
            committed = expected if commits else committed
    with transaction(shared_engine) as session:
        assert statuses(session, copies) == committed
        assert_history_replays(session, copies)


@given(people=st.lists(WISHES, min_size=2, max_size=4))
@SLOW_ENOUGH
def test_moves_at_the_same_time_never_leave_the_table(
    shared_engine: sa.Engine, world: World, people: list[list[Wish]]
) -> None:
    with transaction(shared_engine) as session:
        copies = new_copies(session, world, 4)
    start = threading.Barrier(len(people))

    def act(person: int) -> Mapping[tuple[int, str], int]:
        made: Counter[tuple[int, str]] = Counter()
        start.wait(PATIENCE_S)
        for wish in people[person]:
            with transaction(shared_engine) as session:
                ids = move(session, [copies[member] for member in wish.members], wish.to, by=f"person {person}")
            made.update((id_, wish.to) for id_ in ids)
        return made

    with ThreadPoolExecutor(len(people)) as pool:
        actions: list[Future[Mapping[tuple[int, str], int]]] = [pool.submit(act, n) for n in range(len(people))]
        made = [action.result(PATIENCE_S) for action in actions]
    with transaction(shared_engine) as session:
        assert_history_replays(session, copies)
        recorded = [change for copy in copies for change in history(session, PhysicalCopy, copy)]
    for person, moves in enumerate(made):
        own = [change for change in recorded if change.by == f"person {person}"]
        assert Counter((change.object_id, change.to_status) for change in own) == moves
