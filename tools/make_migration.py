"""Write the migration from the newest revision to the models: `python tools/make_migration.py "What changes"`."""

import sys
import tempfile
from pathlib import Path

from alembic import command

from ccat.stack.postgresql import embedded_postgresql
from ccat_ops_db import migrating, schema
from ccat_ops_db.session import create_engine


def main(message: str) -> None:
    """Compare the models with an empty database at the newest revision, and write the difference."""
    with tempfile.TemporaryDirectory() as directory, embedded_postgresql(Path(directory) / "pg", durable=False) as url:
        engine = create_engine(url, application_name="make_migration")
        if schema.head() is not None:
            migrating.migrate(engine)
        number = 1 + int(schema.head() or 0)
        with engine.begin() as connection:
            command.revision(
                migrating.alembic_config(connection), message=message, autogenerate=True, rev_id=f"{number:04}"
            )


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 - the program and its one argument
        sys.exit('usage: python tools/make_migration.py "What changes"')
    main(sys.argv[1])
