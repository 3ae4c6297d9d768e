import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.orm import Session

from ccat_ops_db import migrating, schema
from ccat_ops_db.migrating import DependedUpon, StillExcluded, StillWithdrawn, UnknownRevision
from ccat_ops_db.models import Base, Exclusion, RawDataPackage, Withdrawal
from ccat_ops_db.schema import SchemaOutdated, SchemaTooNew
from ccat_ops_db.session import create_engine
from tests.ops_db.rows import a_world

CATALOG: Mapping[str, str] = {
    "tables": "SELECT relname, relkind FROM pg_class WHERE {ours}",
    "columns": """
        SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
            pg_get_expr(adbin, adrelid), col_description(pg_class.oid, attnum)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attnum > 0 AND NOT attisdropped AND relkind = 'r' AND {ours}""",
    "constraints": """
        SELECT relname, conname, pg_get_constraintdef(pg_constraint.oid)
        FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid WHERE {ours}""",
    "indexes": """
        SELECT relname, pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE {ours}""",
}
OURS = "pg_class.relnamespace = 'public'::regnamespace AND relname NOT LIKE 'alembic_version%'"


def catalog(engine: sa.Engine) -> dict[str, set[tuple[object, ...]]]:
    """What PostgreSQL itself says about the schema."""
    with engine.connect() as connection:
        return {
            part: {tuple(row) for row in connection.execute(sa.text(query.format(ours=OURS)))}
            for part, query in CATALOG.items()
        }


def run(engine: sa.Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text(statement))


# Migrations


def test_the_migrations_make_what_the_models_describe(empty_engine: sa.Engine, shared_engine: sa.Engine) -> None:
    Base.metadata.create_all(empty_engine)
    migrated, described = catalog(shared_engine), catalog(empty_engine)
    for part in CATALOG:
        assert migrated[part] - described[part] == set(), f"{part} that only the migrations know"
        assert described[part] - migrated[part] == set(), f"{part} without a migration: use tools/make_migration.py"


def test_going_back_to_the_beginning_leaves_nothing_and_coming_again_makes_the_same(engine: sa.Engine) -> None:
    before = catalog(engine)
    with engine.begin() as connection:
        command.downgrade(migrating.alembic_config(connection), "base")
    assert catalog(engine) == {part: set() for part in CATALOG}
    assert migrating.migrate(engine) == (None, schema.head())
    assert catalog(engine) == before


def test_going_back_does_not_lose_what_people_have_withdrawn(engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        version = a_world(session).version
        session.add(Withdrawal(software_version_id=version, what="version gridder/1.0", because="wrong beam", by="Ann"))
    with pytest.raises(StillWithdrawn) as refused:
        migrating.migrate(engine, to="0017")
    assert str(refused.value) == (
        "A schema before 0018 has no room for what is withdrawn: version gridder/1.0. `ccat reinstate` takes back what "
        "`ccat withdrawals` lists; before that the schema cannot go back. Nothing was changed."
    )
    assert schema.revision_of(engine) == schema.head()
    run(engine, "UPDATE withdrawal SET reinstated_at = now(), reinstated_by = 'Ann'")
    assert migrating.migrate(engine, to="0017")[1] == "0017"


@pytest.mark.parametrize(
    ("said", "because", "by"),
    [("clouds (at noon) (Ann)", "clouds (at noon)", "Ann"), ("", "no reason was given", "somebody")],
)
def test_going_back_does_not_lose_what_people_have_excluded_and_coming_again_keeps_their_words(
    engine: sa.Engine, said: str, because: str, by: str
) -> None:
    with Session(engine) as session, session.begin():
        package = a_world(session).package
        word = {"because": "clouds", "by": "Ann"}
        session.add(Exclusion(raw_data_package_id=package, what="raw package p", **word))
        session.add(Exclusion(instrument_id=1, what="CHAI", begins_at=datetime(2026, 4, 5, tzinfo=UTC), **word))
        session.flush()
        number = session.scalars(sa.select(Exclusion.id).filter_by(what="CHAI")).one()
    with pytest.raises(StillExcluded) as refused:
        migrating.migrate(engine, to="0022")
    assert str(refused.value) == (
        f"A schema before 0024 has no room for exclusion {number} of CHAI. `ccat readmit` lifts what `ccat exclusions` "
        "lists; before that the schema cannot go back. Nothing was changed."
    )
    run(engine, "UPDATE exclusion SET lifted_at = now(), lifted_by = 'Ann', lifted_because = 'x' WHERE what = 'CHAI'")
    assert migrating.migrate(engine, to="0022")[1] == "0022"
    wording = f"UPDATE raw_data_package SET excluded_because = '{said}' WHERE excluded_at IS NOT NULL"  # noqa: S608 - ours
    run(engine, wording)
    migrating.migrate(engine)
    with Session(engine) as session:
        [kept] = session.scalars(sa.select(Exclusion))
        assert (kept.raw_data_package_id, kept.because, kept.by) == (package, because, by)
        told = session.scalar(sa.select(RawDataPackage.excluded_because).filter_by(id=package))
    assert told == f"{because} ({by}; exclusion {kept.id})"


def test_migrating_twice_changes_nothing_the_second_time(shared_engine: sa.Engine) -> None:
    before = catalog(shared_engine)
    assert migrating.migrate(shared_engine) == (schema.head(), schema.head())
    assert catalog(shared_engine) == before


def test_of_several_that_migrate_at_once_one_does_it_and_the_others_find_it_done(empty_engine: sa.Engine) -> None:
    with ThreadPoolExecutor(3) as pool:
        steps = list(pool.map(lambda _: migrating.migrate(empty_engine), range(3)))
    head = schema.head()
    assert sorted(steps, key=lambda step: step[0] or "") == [(None, head), (head, head), (head, head)]


def test_a_migration_that_fails_leaves_the_schema_as_it_was(empty_engine: sa.Engine) -> None:
    run(empty_engine, "CREATE TABLE role (somebody text)")
    with pytest.raises(sa.exc.ProgrammingError, match='relation "role" already exists'):
        migrating.migrate(empty_engine)
    assert schema.revision_of(empty_engine) is None
    assert {name for name, *_ in catalog(empty_engine)["tables"]} == {"role"}


def test_an_unknown_revision_is_refused_with_those_that_there_are(shared_engine: sa.Engine) -> None:
    with pytest.raises(UnknownRevision, match=r"^There is no schema revision `0003a`; there are `0001` to `\d+`\.$"):
        migrating.migrate(shared_engine, to="0003a")


# Every column is documented


def test_every_table_says_what_it_is_and_every_column_what_it_holds(shared_engine: sa.Engine) -> None:
    silent = [f"{table}.{column}" for table, column, *_, comment in catalog(shared_engine)["columns"] if not comment]
    assert silent == []
    assert [mapper.class_.__name__ for mapper in Base.registry.mappers if not mapper.class_.__doc__] == []


# A program and a schema that do not fit together


def test_a_current_schema_is_accepted(shared_engine: sa.Engine) -> None:
    schema.require_current_schema(shared_engine)


PROGRAM = """
import sys
from ccat.cli.errors import reported
from ccat_ops_db.schema import require_current_schema
from ccat_ops_db.session import create_engine

with reported():
    require_current_schema(create_engine(sys.argv[1], application_name="a manager"))
print("started")
"""


def test_a_process_refuses_to_start_without_a_schema_and_names_the_command_that_creates_it(
    empty_engine: sa.Engine,
) -> None:
    with pytest.raises(SchemaOutdated) as refused:
        schema.require_current_schema(empty_engine)
    assert str(refused.value) == (
        "The operations database has no schema yet. Create it with `opsdb_init`, then start this process again."
    )
    url = empty_engine.url.render_as_string(hide_password=False)
    process = subprocess.run([sys.executable, "-c", PROGRAM, url], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr == f"error: {refused.value}\n"


HEAD = str(schema.head())
LATER = f"{int(HEAD) + 1:04}"
LATER_MIGRATION = f"""
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{LATER}", "{HEAD}"


def upgrade() -> None:
    op.add_column("observatory", sa.Column("motto", sa.Text()))


def downgrade() -> None:
    op.drop_column("observatory", "motto")
"""


@pytest.fixture
def later_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The software as it will be one migration later."""
    migrations = tmp_path / "100 % later"
    shutil.copytree(migrating._MIGRATIONS, migrations)
    (migrations / "versions" / f"{LATER}_give_observatories_a_motto.py").write_text(LATER_MIGRATION)
    monkeypatch.setattr(migrating, "_MIGRATIONS", migrations)
    monkeypatch.setattr(schema, "_VERSIONS", migrations / "versions")


@pytest.mark.usefixtures("later_version")
def test_an_outdated_schema_is_refused_with_the_command_that_migrates_it_on_and_back(engine: sa.Engine) -> None:
    before = catalog(engine)
    with pytest.raises(SchemaOutdated) as refused:
        schema.require_current_schema(engine)
    assert str(refused.value) == (
        f"The operations database has schema revision {HEAD}, this version needs {LATER}. "
        "Run `opsdb_migrate`, then start this process again."
    )
    assert migrating.migrate(engine) == (HEAD, LATER)
    schema.require_current_schema(engine)
    assert migrating.migrate(engine, to=HEAD) == (LATER, HEAD)
    assert catalog(engine) == before
    assert migrating.migrate(engine, to=HEAD) == (HEAD, HEAD)
    assert migrating.migrate(engine, to="head") == (HEAD, LATER)


def test_a_schema_of_a_newer_version_is_refused_and_yet_can_be_dropped_without_what_others_put_there(
    engine: sa.Engine,
) -> None:
    run(engine, "CREATE TABLE due_time (id bigint CONSTRAINT pk_due_time PRIMARY KEY)")
    run(engine, "UPDATE alembic_version SET version_num = '9999'")
    run(engine, "CREATE TABLE weather (at timestamptz PRIMARY KEY, pwv_mm float)")
    for act in (schema.require_current_schema, migrating.migrate):
        with pytest.raises(SchemaTooNew) as refused:
            act(engine)
        assert str(refused.value) == (
            "The operations database has schema revision 9999, which this version does not know: a newer version "
            "migrated it. Start that version, or go back with its `opsdb_migrate --to REVISION`."
        )
    migrating.drop(engine)
    assert {name for name, kind in catalog(engine)["tables"] if kind == "r"} == {"weather"}
    assert schema.revision_of(engine) is None
    migrating.drop(engine)


def test_dropping_is_refused_whole_where_others_built_on_our_tables(shared_engine: sa.Engine) -> None:
    run(shared_engine, "CREATE VIEW observatory_log AS SELECT id, started_at FROM executed_obs_unit")
    before = catalog(shared_engine)
    with pytest.raises(DependedUpon) as refused:
        migrating.drop(shared_engine)
    assert catalog(shared_engine) == before
    run(shared_engine, "DROP VIEW observatory_log")
    assert str(refused.value) == (
        "The tables of the operations database cannot be dropped: view observatory_log depends on table "
        "executed_obs_unit. Drop what depends on them first; nothing was changed."
    )


# Connections


def test_a_connection_speaks_utc_whatever_the_server_prefers_and_says_who_it_is(shared_engine: sa.Engine) -> None:
    run(shared_engine, f"ALTER DATABASE {shared_engine.url.database} SET timezone = 'America/Santiago'")
    other = create_engine(shared_engine.url.render_as_string(hide_password=False), application_name="a manager")
    with Session(other) as session:
        assert session.scalar(sa.text("SHOW timezone")) == "UTC"
        assert session.scalar(sa.text("SHOW application_name")) == "a manager"
    other.dispose()


def test_a_server_that_is_too_old_is_refused(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "OLDEST_SERVER", 99)
    for act in (schema.require_current_schema, migrating.migrate):
        with pytest.raises(schema.ServerTooOld) as refused:
            act(engine)
        said = str(refused.value)
        assert said.startswith("The operations database runs on PostgreSQL ")
        assert said.endswith(
            ", and 99 or newer is needed. Upgrade that server, or name another one in CCAT_OPS_DB_URL."
        )


def test_locations_have_the_same_identities_when_an_older_backup_is_migrated_anew(engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        a_world(session)
    found = []
    for _ in range(2):
        migrating.migrate(engine, to="0038")
        run(engine, "UPDATE installation SET installation_id = gen_random_uuid()")  # as what is restored is another
        migrating.migrate(engine)
        with engine.connect() as connection:
            found.append(connection.execute(sa.text("SELECT id, identity FROM data_location ORDER BY id")).all())
    assert found[0] == found[1]
    assert len({identity for _, identity in found[0]}) == len(found[0]) > 0
