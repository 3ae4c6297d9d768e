import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from ccat_ops_db import migrating, schema
from ccat_ops_db.models import ObsMode
from ccat_ops_db.session import DatabaseUnreachable, create_engine, in_transaction, transaction

NOBODY = "postgresql+psycopg://ccat:s3cret@127.0.0.1:1/ccat"
REPEATABLE_READ = sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


@pytest.fixture
def engine(shared_engine: sa.Engine) -> sa.Engine:
    """One database for all: each test has rows of its own."""
    return shared_engine


@pytest.fixture
def modes(engine: sa.Engine) -> list[str]:
    names = [f"OTF {uuid.uuid4()}", f"TotalPower {uuid.uuid4()}"]
    with transaction(engine) as session:
        session.add_all(ObsMode(name=name, description="0") for name in names)
    return names


def describe(session: Session, mode: str, text: str) -> None:
    session.execute(sa.update(ObsMode).where(ObsMode.name == mode).values(description=text))


def description(engine: sa.Engine, mode: str) -> str | None:
    with transaction(engine) as session:
        return session.scalar(sa.select(ObsMode.description).where(ObsMode.name == mode))


def one_transaction(engine: sa.Engine) -> None:
    in_transaction(engine, lambda session: session.execute(sa.select(1)))


@pytest.mark.parametrize("url", [NOBODY, f"{NOBODY}?password=s3cret"])
@pytest.mark.parametrize("ask", [schema.require_current_schema, migrating.migrate, migrating.drop, one_transaction])
def test_an_unreachable_database_is_named_without_its_password(url: str, ask: Callable[[sa.Engine], object]) -> None:
    with pytest.raises(DatabaseUnreachable) as refused:
        ask(create_engine(url, application_name="tests"))
    message = str(refused.value)
    assert message.startswith("The operations database postgresql+psycopg://ccat:***@127.0.0.1:1/ccat does not answer")
    assert "Connection refused" in message
    assert message.endswith(
        "Is it running? `ccat status` shows the embedded stack and `ccat up` starts it; for another server check "
        "CCAT_OPS_DB_URL."
    )
    assert "s3cret" not in message
    assert refused.value.transient


def test_a_wrong_password_says_so_and_is_not_shown(engine: sa.Engine) -> None:
    url = engine.url.set(password="wr0ng").render_as_string(hide_password=False)
    with pytest.raises(DatabaseUnreachable, match="password authentication failed") as refused:
        schema.revision_of(create_engine(url, application_name="tests"))
    assert "wr0ng" not in str(refused.value)


def test_a_transaction_is_committed_at_its_end(engine: sa.Engine, modes: list[str]) -> None:
    with transaction(engine) as session:
        describe(session, modes[0], "on-the-fly map")
    assert description(engine, modes[0]) == "on-the-fly map"


def test_a_transaction_is_rolled_back_on_any_error(engine: sa.Engine, modes: list[str]) -> None:
    def be_interrupted(session: Session) -> None:
        describe(session, modes[0], "half done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_transaction(engine, be_interrupted)
    assert description(engine, modes[0]) == "0"


def test_objects_can_be_read_after_the_commit(engine: sa.Engine, modes: list[str]) -> None:
    with transaction(engine) as session:
        mode = session.scalars(sa.select(ObsMode).filter_by(name=modes[0])).one()
    assert mode.description == "0"


def test_a_pooled_connection_that_died_is_replaced_unseen(engine: sa.Engine, modes: list[str]) -> None:
    with transaction(engine) as session:
        pid = session.scalar(sa.select(sa.func.pg_backend_pid()))
    other = create_engine(engine.url.render_as_string(hide_password=False), application_name="tests")
    with transaction(other) as session:
        session.execute(sa.select(sa.func.pg_terminate_backend(pid, 5000)))
    other.dispose()
    assert description(engine, modes[0]) == "0"


def test_a_connection_that_dies_within_a_transaction_is_told_as_an_unreachable_database(
    engine: sa.Engine, modes: list[str]
) -> None:
    def be_cut_off(session: Session) -> None:
        describe(session, modes[0], "lost")
        pid = session.scalar(sa.select(sa.func.pg_backend_pid()))
        with transaction(engine) as other:
            other.execute(sa.select(sa.func.pg_terminate_backend(pid, 5000)))
        session.execute(sa.select(1))

    with pytest.raises(DatabaseUnreachable, match="terminating connection"):
        in_transaction(engine, be_cut_off)
    assert description(engine, modes[0]) == "0"


def test_the_victim_of_a_conflict_works_again_on_what_the_other_wrote(engine: sa.Engine, modes: list[str]) -> None:
    seen = []

    def append(session: Session) -> str:
        session.execute(REPEATABLE_READ)
        before = session.scalars(sa.select(ObsMode.description).where(ObsMode.name == modes[0])).one()
        seen.append(before)
        if len(seen) == 1:
            with transaction(engine) as other:
                describe(other, modes[0], "written meanwhile")
        describe(session, modes[0], f"{before}, and more")
        return before

    assert in_transaction(engine, append) == "written meanwhile"
    assert seen == ["0", "written meanwhile"]
    assert description(engine, modes[0]) == "written meanwhile, and more"


def test_of_two_that_block_each_other_both_finish(engine: sa.Engine, modes: list[str]) -> None:
    both_hold_one = threading.Barrier(2)
    attempts = []

    def describe_both(order: list[str]) -> None:
        def work(session: Session) -> None:
            attempts.append(order)
            session.execute(sa.text("SET LOCAL deadlock_timeout = '20ms'"))
            describe(session, order[0], "1")
            if len(attempts) <= 2:
                both_hold_one.wait(10)
            describe(session, order[1], "1")

        in_transaction(engine, work)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(describe_both, modes), pool.submit(describe_both, modes[::-1])]:
            done.result(10)
    assert len(attempts) == 3
    assert {description(engine, mode) for mode in modes} == {"1"}


def test_a_conflict_that_never_ends_is_raised_after_five_attempts(engine: sa.Engine, modes: list[str]) -> None:
    attempts = []

    def lose(session: Session) -> None:
        attempts.append("lost")
        session.execute(REPEATABLE_READ)
        session.execute(sa.select(ObsMode))
        with transaction(engine) as other:
            describe(other, modes[0], "first")
        describe(session, modes[0], "too late")

    with pytest.raises(OperationalError, match="could not serialize access"):
        in_transaction(engine, lose)
    assert len(attempts) == 5


def test_an_error_that_is_no_conflict_is_raised_at_once(engine: sa.Engine) -> None:
    attempts = []

    def fail(session: Session) -> None:
        attempts.append("failed")
        session.execute(sa.text("SET LOCAL statement_timeout = '1ms'"))
        session.execute(sa.select(sa.func.pg_sleep(5)))

    with pytest.raises(OperationalError, match="statement timeout"):
        in_transaction(engine, fail)
    assert len(attempts) == 1
