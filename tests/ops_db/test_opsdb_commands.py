import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ccat.cli.errors import reported
from ccat.cli.opsdb import init_main, migrate_main
from ccat.cli.routes import change as change_route
from ccat.cli.stack import initialize_stack
from ccat_ops_db import models, schema
from ccat_ops_db.errors import CcatError
from ccat_ops_db.session import transaction

NOBODY = "postgresql://ccat:s3cret@127.0.0.1:1/ccat"


@dataclass(frozen=True)
class Ended:
    code: int | str | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out or self.err)


def process(name: str, *arguments: str, **environment: str) -> Ended:
    """The installed console script, as a process of its own."""
    script = Path(sys.executable).with_name(name)
    ended = subprocess.run(
        [script, *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


Command = Callable[..., Ended]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """What the console script calls, in this process: for the many cases, where a process each would take long."""

    def run(main: Callable[[], None], *arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", [main.__name__, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def empty(empty_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    """An empty database that the settings name."""
    monkeypatch.setenv("CCAT_OPS_DB_URL", empty_engine.url.render_as_string(hide_password=False))
    return empty_engine


def written_by_somebody(engine: sa.Engine) -> sa.Engine:
    with transaction(engine) as session:
        session.add(models.ObsMode(name="raster", description="ours"))
        session.execute(sa.text("CREATE TABLE weather (at timestamptz PRIMARY KEY)"))
    return engine


@pytest.fixture
def migrated(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    """A migrated database that the settings name, with one row that somebody wrote and a table of somebody else."""
    monkeypatch.setenv("CCAT_OPS_DB_URL", engine.url.render_as_string(hide_password=False))
    return written_by_somebody(engine)


@pytest.fixture(scope="module")
def one_for_all(shared_engine: sa.Engine) -> sa.Engine:
    return written_by_somebody(shared_engine)


@pytest.fixture
def kept(one_for_all: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """The same, but nothing may change in it."""
    monkeypatch.setenv("CCAT_OPS_DB_URL", one_for_all.url.render_as_string(hide_password=False))
    yield one_for_all
    assert modes(one_for_all) == {"raster"}
    assert schema.revision_of(one_for_all) == schema.head()


def modes(engine: sa.Engine) -> set[str]:
    with transaction(engine) as session:
        return set(session.scalars(sa.select(models.ObsMode.name)))


def waits(engine: sa.Engine) -> dict[str, int]:
    """Seconds that data wait for company, by route."""
    route = models.DataTransferRoute
    with transaction(engine) as session:
        return dict(session.execute(sa.select(route.name, route.package_wait_seconds)).all())


def test_init_drops_a_database_of_a_newer_version_and_makes_it_anew_and_leaves_what_others_put_there(
    migrated: sa.Engine, command: Command, tmp_path: Path
) -> None:
    with transaction(migrated) as session:
        session.execute(sa.text("CREATE TABLE due_time (id bigint CONSTRAINT pk_due_time PRIMARY KEY)"))
        session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    assert "schema revision 9999, which this version does not know" in command(init_main).err
    assert modes(migrated) == {"raster"}

    made = process("opsdb_init", "--drop", "--yes", "--storage-root", str(tmp_path), "--json")
    assert (made.code, made.err) == (0, "")
    assert made.json["schema"] == {"revision_before": None, "revision": schema.head()}
    archive = {"name": "cologne/lta", "type": "long_term_archive", "path": f"{tmp_path}/cologne/lta"}
    assert archive in made.json["locations"]
    assert modes(migrated) == {"OTF", "TotalPower"}
    tables = set(sa.inspect(migrated).get_table_names())
    assert "weather" in tables
    assert "due_time" not in tables


def test_init_tells_a_person_what_is_there_and_changes_nothing_the_second_time(
    migrated: sa.Engine, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCAT_STORAGE_ROOT", "below")
    shown = command(init_main).out
    assert f"/{migrated.url.database}?" in shown
    assert str(migrated.url.password) not in shown
    assert f"The schema has revision {schema.head()} already." in shown
    assert f"{Path.cwd()}/below/cologne/ramses" in shown
    assert modes(migrated) == {"raster", "OTF", "TotalPower"}
    assert command(init_main, "--storage-root", "/elsewhere").out == shown


def test_in_an_embedded_stack_data_wait_a_second_for_company_until_its_operator_says_otherwise(
    empty: sa.Engine, tmp_path: Path
) -> None:
    initialize_stack(tmp_path)
    assert waits(empty) == {"ccat_to_cologne": 1}
    change_route("ccat_to_cologne", wait_minutes=30)
    initialize_stack(tmp_path)
    assert waits(empty) == {"ccat_to_cologne": 1800}


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("variable", ["CCAT_ENV", "ENV_FOR_DYNACONF"])
@pytest.mark.parametrize("database", ["as it is", NOBODY])
def test_in_production_nothing_is_dropped_whatever_is_said(
    command: Command, monkeypatch: pytest.MonkeyPatch, variable: str, database: str
) -> None:
    monkeypatch.setenv(variable, "production")
    if database == NOBODY:
        monkeypatch.setenv("CCAT_OPS_DB_URL", NOBODY)
    refused = command(init_main, "--drop", "--yes")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == (
        "error: CCAT_ENV is production: the operations database of a production installation is never dropped. "
        "Nothing was changed.\n"
    )


@pytest.mark.usefixtures("kept")
def test_the_process_refuses_to_drop_in_production() -> None:
    refused = process("opsdb_init", "--drop", "--yes", "--json", CCAT_ENV="production")
    assert (refused.code, refused.out, refused.json["code"]) == (1, "", "drop_in_production")


def test_in_production_a_database_is_initialised_as_everywhere_with_its_files_below_data(
    migrated: sa.Engine, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCAT_ENV", "production")
    locations = command(init_main, "--json").json["locations"]
    assert [one["path"] for one in locations if one["name"] == "ccat/buffer"] == ["/data/ccat/buffer"]
    assert modes(migrated) == {"raster", "OTF", "TotalPower"}


@pytest.mark.parametrize(("environment", "copies"), [("production", 2), ("staging", 1)])
def test_in_production_raw_data_want_two_archive_copies_unless_an_operator_says_otherwise(
    migrated: sa.Engine, command: Command, monkeypatch: pytest.MonkeyPatch, environment: str, copies: int
) -> None:
    monkeypatch.setenv("CCAT_ENV", environment)
    wanted = sa.select(models.DataClass.min_verified_archive_copies)
    command(init_main)
    with transaction(migrated) as session:
        assert session.scalars(wanted).one() == copies
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=3))
    command(init_main)
    with transaction(migrated) as session:
        assert session.scalars(wanted).one() == 3


@pytest.mark.usefixtures("kept")
def test_where_nobody_can_be_asked_nothing_is_dropped_without_yes(command: Command) -> None:
    refused = command(init_main, "--drop")
    assert refused.code == 1
    assert refused.err.startswith("error: Nobody confirmed that postgresql+psycopg://")
    assert refused.err.endswith("answer `y` at a terminal, or give --yes. Nothing was changed.\n")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A terminal as standard input, and a way to type."""
    keyboard, screen = pty.openpty()
    with os.fdopen(screen) as stdin, os.fdopen(keyboard, "w") as keys:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield lambda text: print(text, file=keys, flush=True)


QUESTION = "Drop all tables of the operations database postgresql+psycopg://ccat:***@/"


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("answer", ["n", ""])
def test_at_a_terminal_nothing_is_dropped_unless_somebody_says_yes(
    command: Command, terminal: Callable[[str], None], answer: str
) -> None:
    terminal(answer)
    ended = command(init_main, "--drop")
    assert (ended.code, ended.out.strip()) == (1, "")
    assert QUESTION in ended.err


def test_at_a_terminal_somebody_says_yes(
    migrated: sa.Engine, command: Command, terminal: Callable[[str], None]
) -> None:
    terminal("y")
    ended = command(init_main, "--drop", "--json")
    assert (ended.code, ended.json["schema"]["revision_before"]) == (0, None)
    assert QUESTION in ended.err
    assert modes(migrated) == {"OTF", "TotalPower"}


def test_migrate_shows_from_where_to_where(empty: sa.Engine, command: Command) -> None:
    first = command(migrate_main)
    assert (first.code, first.out) == (0, f"The schema went from revision none to {schema.head()}.\n")
    assert command(migrate_main, "--json").json == {"revision_before": schema.head(), "revision": schema.head()}
    schema.require_current_schema(empty)


@pytest.mark.usefixtures("kept")
def test_migrate_refuses_a_revision_that_does_not_exist(command: Command) -> None:
    refused = command(migrate_main, "--to", "base")
    told = f"error: There is no schema revision `base`; there are `0001` to `{schema.head()}`.\n"
    assert (refused.code, refused.err) == (1, told)


def test_the_process_says_that_the_database_is_unreachable_in_one_line() -> None:
    refused = process("opsdb_migrate", CCAT_OPS_DB_URL=NOBODY)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(
        "error: The operations database postgresql+psycopg://ccat:***@127.0.0.1:1/ccat does not answer (connection "
    )
    assert refused.err.count("\n") == 1


def test_init_says_that_the_database_is_unreachable_as_json(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCAT_OPS_DB_URL", NOBODY)
    refused = command(init_main, "--json")
    assert (refused.code, refused.out) == (1, "")
    assert refused.json["code"] == "database_unreachable"
    assert "s3cret" not in refused.err


@pytest.mark.parametrize("main", [init_main, migrate_main])
def test_without_a_database_in_the_settings_the_variable_is_named(command: Command, main: Callable[[], None]) -> None:
    refused = command(main)
    assert refused.code == 1
    assert refused.err.startswith("error: CCAT_OPS_DB_URL: no operations database is named")


@pytest.mark.parametrize("main", [init_main, migrate_main])
def test_an_unknown_option_is_a_mistake_of_usage(command: Command, main: Callable[[], None]) -> None:
    refused = command(main, "--drop-everything")
    assert refused.code == 2
    assert "--drop-everything" in refused.err


class TwoLines(CcatError):
    code = "two_lines"


@pytest.mark.parametrize(
    ("as_json", "shown"),
    [(False, "error: one, two µ\n"), (True, '{"code": "two_lines", "message": "one, two µ"}\n')],
)
def test_an_error_is_one_line_whatever_it_says(
    capsys: pytest.CaptureFixture[str], *, as_json: bool, shown: str
) -> None:
    with pytest.raises(SystemExit) as ended, reported(as_json=as_json):
        raise TwoLines("one,\ntwo µ")
    assert ended.value.code == 1
    assert capsys.readouterr() == ("", shown)
