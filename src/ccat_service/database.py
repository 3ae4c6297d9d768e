from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final

import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import schema, session
from ccat_service.stop import Stop
from ccat_service.wakeups import MOVES_CHANNEL, ListeningConnection, Wakeups

# Nothing is ever sent on a listening connection: only this notices, within half a minute, that the host is gone.
_KEEPALIVE: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}


class DatabaseConnection:
    """The operations database as one process sees it: pooled transactions, and a way to hear what others did."""

    def __init__(self, url: str, application_name: str) -> None:
        self.engine: sa.Engine = session.create_engine(url, application_name=application_name)
        """Connects on first use."""
        self._application_name = application_name

    def transaction(self) -> AbstractContextManager[Session]:
        """Session that commits at the end and rolls back on any error; raises DatabaseUnreachable."""
        return session.transaction(self.engine)

    def require_current_schema(self) -> None:
        """Raise SchemaOutdated, which names the command that mends it, where the tables are not this program's."""
        schema.require_current_schema(self.engine)

    def listen(self, channels: Sequence[str] = (MOVES_CHANNEL,), *, stop: Stop) -> Wakeups:
        """What is announced on these channels from now on; the waits end with `stop`."""
        return Wakeups(self._connect_to_listen, channels, stop=stop)

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    def _connect_to_listen(self) -> ListeningConnection:
        _, arguments = self.engine.dialect.create_connect_args(self.engine.url)
        options = {"connect_timeout": 3, "application_name": f"{self._application_name} listening"} | _KEEPALIVE
        return psycopg.connect(**{**arguments, **options}, autocommit=True)
