"""Statements that stay prepared: a history has the same few hundred again and again, and to plan them costs most."""

from typing import Any, Final

import sqlalchemy as sa
from psycopg.pq import ExecStatus, TransactionStatus

_AT_MOST: Final = 2_000


def keep_prepared(engine: sa.Engine) -> None:
    """Have the database plan each statement of a connection once, whatever is rolled back in between.

    The driver forgets all that it prepared at every ROLLBACK that it sees, as what a statement is about may be gone.
    Here no table comes or goes, so it sees none.
    """
    sa.event.listen(engine, "connect", _prepare)
    vars(engine.dialect).update(
        do_rollback=_roll_back,
        do_savepoint=lambda connection, name: _say(connection.connection, f"SAVEPOINT {name}"),
        do_rollback_to_savepoint=lambda connection, name: _say(connection.connection, f"ROLLBACK TO SAVEPOINT {name}"),
        do_release_savepoint=lambda connection, name: _say(connection.connection, f"RELEASE SAVEPOINT {name}"),
    )


def _prepare(driver: Any, _: object) -> None:
    driver.prepare_threshold, driver.prepared_max = 1, _AT_MOST


def _roll_back(driver: Any) -> None:
    if driver.pgconn.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
        _say(driver, "ROLLBACK")
    else:  # there is none, or no server
        driver.rollback()


def _say(driver: Any, command: str) -> None:
    """Tell the database something that its driver does not hear of."""
    if driver.pgconn.transaction_status == TransactionStatus.IDLE:
        driver.pgconn.exec_(b"BEGIN")
    result = driver.pgconn.exec_(command.encode())
    assert result.status == ExecStatus.COMMAND_OK, result.error_message.decode()
