import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from ccat.stack.postgresql import embedded_postgresql
from ccat_ops_db.migrating import migrate
from ccat_ops_db.session import create_engine, transaction
from ccat_ops_db.verbs.initialization import initialize, reference_data


@contextmanager
def ops_db() -> Iterator[sa.Engine]:
    """An operations database as `opsdb_init` leaves it, on a server of our own; both are gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="ccat-bench-") as directory,
        embedded_postgresql(Path(directory) / "pg", durable=False) as url,
    ):
        engine = create_engine(url, application_name="bench")
        migrate(engine)
        with transaction(engine) as session:
            initialize(session, reference_data(), storage_root=Path(directory) / "storage")
        yield engine
        engine.dispose()
