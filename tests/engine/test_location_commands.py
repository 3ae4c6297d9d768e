"""What `ccat site`, `ccat sites`, `ccat location add` and `ccat locations` say and do."""

import json
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from ccat.cli import app
from ccat_data_transfer.queues import queues_to_serve
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from tests.engine.history import History

S3 = ("--type", "long_term_archive", "--storage", "s3")
Say = Callable[..., Result]


@pytest.fixture
def say(ops_db: sa.Engine) -> Say:
    environment = {"CCAT_OPS_DB_URL": ops_db.url.render_as_string(hide_password=False)}

    def say(*words: str) -> Result:
        return CliRunner().invoke(app, [*words], env=environment, terminal_width=200)

    return say


def told(ended: Result) -> str:
    return " ".join((ended.stdout + ended.stderr).replace("│", "").split())


def test_a_new_site_with_its_locations_is_all_that_is_needed(ops_db: sa.Engine, say: Say) -> None:
    assert told(say("site", "add", "us", "--name", "Archive in the US")) == "us is a site"
    try:
        store = ("--endpoint-url", "https://s3.example.org", "--region", "east", "--priority", "5")
        added = told(say("location", "add", "us/lta", *S3, "--bucket", "fyst-raw", "--prefix", "v1", *store))
        assert (
            "a transfer-worker that serves it takes it up when it starts (`ccat transfer-worker --location us/lta`)"
            in added
        )
        assert added.endswith("in CCAT_S3_US_LTA_ACCESS_KEY_ID and CCAT_S3_US_LTA_SECRET_ACCESS_KEY, or those of AWS")
        added = told(say("location", "add", "us/fast", "--type", "buffer", "--path", "/data/fast"))
        assert added.endswith(
            "takes it up when it starts (`ccat transfer-worker --location us/fast`). "
            "There is no directory /data/fast on this host: see that it is there where its workers run"
        )

        assert "us Archive in the US" in told(say("sites"))
        assert {"site": "us", "name": "Archive in the US"} in json.loads(say("sites", "--json").stdout)
        assert "us/lta long_term_archive" in told(say("locations"))
        assert "s3://fyst-raw/v1 (https://s3.example.org)" in told(say("locations"))
        [lta] = [one for one in json.loads(say("locations", "--json").stdout) if one["name"] == "us/lta"]
        assert (lta["storage"], lta["path"], lta["place"].partition(" ")[0]) == ("s3", None, "s3://fyst-raw/v1")
        with transaction(ops_db) as session:
            found = session.scalars(sa.select(models.DataLocation)).all()
            assert {"transfer.us_lta_archiving", "transfer.us_fast_deletion"} <= set(queues_to_serve(found, ["us"]))
            [row] = [one for one in found if isinstance(one, models.S3DataLocation)]
            assert (row.region, row.priority, row.active, row.backend) == ("east", 5, True, None)
    finally:
        with ops_db.begin() as connection:
            site = "site_id IN (SELECT id FROM site WHERE short_name = 'us')"
            here = f"SELECT id FROM data_location WHERE {site}"  # noqa: S608 - a constant
            for kind in ("s3", "disk"):
                connection.execute(sa.text(f"DELETE FROM {kind}_data_location WHERE id IN ({here})"))  # noqa: S608 - as above
            connection.execute(sa.text(f"DELETE FROM data_location WHERE {site}"))  # noqa: S608 - as above
            connection.execute(sa.text("DELETE FROM site WHERE short_name = 'us'"))


def test_a_processing_location_is_added_as_before(say: Say) -> None:
    added = told(say("location", "add", "cologne/fast", "--path", "/data/fast"))
    assert added.endswith("; name it in CCAT_WORKFLOW_MANAGER_PROCESSING_LOCATION_ID of those that serve it")
    assert "cologne/fast processing local" in told(say("locations"))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["cologne"], "'cologne' names a site and no location; say cologne/NAME"),
        (["cologne/x"], "Invalid value for --path: a location on disk needs it"),
        (["cologne/x", *S3], "Invalid value for --bucket: a location on s3 needs it"),
        (["cologne/x", *S3, "--bucket", "b", "--path", "/x"], "Invalid value for --path: a location on s3 has none"),
        (["cologne/x", "--path", "/x", "--bucket", "abc"], "Invalid value for --bucket: a location on disk has none"),
        (["cologne/x", *S3, "--bucket", "abc", "--backend", "slurm"], "no jobs run at a long_term_archive location"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: list[str], problem: str) -> None:
    ended = CliRunner().invoke(app, ["location", "add", *words], terminal_width=200)
    assert ended.exit_code == 2
    assert problem in told(ended)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["location", "add", "cologne/tape", "--type", "long_term_archive", "--storage", "tape"],
            "Location cologne/tape cannot be on tape: no backend reads and writes tape. As long_term_archive it can b",
        ),
        (
            ["location", "add", "cologne/b", "--type", "buffer", "--storage", "s3", "--bucket", "abc"],
            "Location cologne/b cannot be on s3: its files are read in place. As buffer it can be on `disk`",
        ),
        (["location", "add", "here/x", "--path", "/x"], "There is no site `here`. Known: `ccat`, `cologne`"),
        (["location", "add", "cologne/x", "--path", "x"], "`x` cannot be the directory: it is an absolute path below"),
        (["location", "add", "cologne/x", "--path", "/../"], "`/..` cannot be the directory: it is an absolute path"),
        (["location", "add", "cologne/x", "--path", "/a\nb"], "`'/a\\nb'` cannot be the directory: each of its chara"),
        (["location", "move", "cologne/lta", "--path", "lta"], "`lta` cannot be the directory: it is an absolute path"),
        (["location", "remove", "cologne/nowhere"], "There is no location `cologne/nowhere`."),
        (["location", "add", "cologne/Big", "--path", "/x"], "`Big` cannot be the name of a location: it has small"),
        (["location", "add", "cologne/x", *S3, "--bucket", "A_b"], "`A_b` cannot be the bucket: it has 3 to 63 small"),
        (
            ["location", "add", "cologne/x", *S3, "--bucket", "abc", "--prefix", "/x"],
            "`/x` cannot be the prefix: it",
        ),
        (
            ["location", "add", "cologne/x", *S3, "--bucket", "abc", "--endpoint-url", "http://key:secret@store"],
            "`http://key:secret@store` cannot be the endpoint: it is the address of a store, such as `https://s3.exam",
        ),
        (
            ["location", "add", "cologne/lta", "--path", "/x"],
            "There is a location cologne/lta already: `ccat loc",
        ),
        (["site", "add", "cologne", "--name", "Cologne"], "There is a site cologne already: `ccat sites` lists them."),
        (["site", "add", "Köln", "--name", "Cologne"], "`Köln` cannot be the short name of a site: it has small"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(say: Say, words: list[str], problem: str) -> None:
    ended = say(*words)
    assert ended.exit_code == 1
    assert told(ended).startswith(f"error: {problem}")


def test_who_asks_for_tape_is_told_what_a_tape_library_can_be(say: Say) -> None:
    ended = told(say("location", "add", "cologne/tape", "--type", "long_term_archive", "--storage", "tape"))
    assert ended.endswith(
        "As long_term_archive it can be on `disk`, `s3` (`--storage`). A tape library with a disk in front of it, or "
        "with an S3 gateway, is one of these. Nothing was added."
    )


def test_a_bucket_is_one_location_only(say: Say) -> None:
    bucket = (*S3, "--bucket", "fyst-raw", "--endpoint-url", "http://store:9000")
    say("location", "add", "cologne/one", *bucket)
    assert "s3://fyst-raw is the bucket of cologne/one already" in told(say("location", "add", "ccat/other", *bucket))
    assert say("location", "add", "ccat/other", *bucket, "--prefix", "other").exit_code == 0


def test_a_place_is_one_location_only_however_it_is_written(say: Say) -> None:
    """Two copies in one place would be counted as two, and are lost together."""
    archive = ("--type", "long_term_archive")
    say("location", "add", "cologne/one", *S3, "--bucket", "fyst", "--prefix", "v1", "--endpoint-url", "http://store")
    bucket = (*S3, "--bucket", "fyst", "--prefix", "v1/", "--endpoint-url", "http://store/")
    assert "is the bucket of cologne/one already" in told(say("location", "add", "ccat/other", *bucket))
    say("location", "add", "cologne/two", *archive, "--path", "/data/two")
    again = told(say("location", "add", "cologne/three", *archive, "--path", "/data/one/../two/"))
    assert "is the directory of cologne/two already" in again


def test_a_buffer_or_archive_is_put_out_of_use_and_into_it_again(say: Say) -> None:
    assert told(say("location", "set", "cologne/lta", "--inactive")) == "cologne/lta is changed"
    assert "cologne/lta long_term_archive inactive" in told(say("locations"))
    [lta] = [one for one in json.loads(say("locations", "--json").stdout) if one["name"] == "cologne/lta"]
    assert lta["active"] is False
    assert say("location", "set", "cologne/lta", "--active").exit_code == 0
    assert "inactive" not in told(say("locations"))
    refused = told(say("location", "set", "cologne/ramses", "--inactive"))
    assert refused.startswith("error: Location cologne/ramses is a processing location: only buffers and archives are")


def test_where_the_files_of_a_location_lie_is_said_anew(ops_db: sa.Engine, say: Say) -> None:
    say("location", "add", "cologne/moving", *S3, "--bucket", "fyst-old", "--prefix", "v1", "--region", "east")
    say("location", "add", "ccat/moving", "--type", "buffer", "--path", "/data/old")
    assert told(say("location", "move", "ccat/moving", "--host", "ccat@telescope")) == (
        "ccat/moving is at ccat@telescope:/data/old now; start what serves it again"
    )
    assert "no directory /data/mistyped on this host" in told(
        say("location", "move", "ccat/moving", "--host", "", "--path", "/data/mistyped")
    )
    assert "/data/new now" in told(say("location", "move", "ccat/moving", "--path", "/data/new", "--host", ""))
    store = ("--bucket", "fyst-new", "--region", "", "--endpoint-url", "http://store:9000")
    moved = json.loads(say("location", "move", "cologne/moving", *store, "--json").stdout)
    assert moved == {"location": "cologne/moving", "place": "s3://fyst-new/v1 (http://store:9000)", "unread": 0}
    with transaction(ops_db) as session:
        [row] = session.scalars(sa.select(models.S3DataLocation).where(models.S3DataLocation.name == "moving"))
        assert (row.prefix, row.region) == ("v1", None)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["cologne/lta", "--bucket", "b"], "Location cologne/lta is on disk, which has no `bucket`. Nothing was"),
        (["cologne/lta", "--host", "a b"], "`a b` cannot be the host: it is what rsync reaches over SSH, such as `t"),
        (["cologne/lta", "--host=-oProxyCommand=x"], "`-oProxyCommand=x` cannot be the host: it is what rsync reach"),
        (["cologne/nowhere", "--path", "/x"], "There is no location `cologne/nowhere`."),
    ],
)
def test_files_are_not_said_to_be_where_they_cannot_be(say: Say, words: list[str], problem: str) -> None:
    ended = say("location", "move", *words)
    assert ended.exit_code == 1
    assert told(ended).startswith(f"error: {problem}")
    assert say("location", "move", "cologne/lta").exit_code == 2


def test_no_two_locations_of_a_site_are_moved_to_one_directory(ops_db: sa.Engine, say: Say) -> None:
    with transaction(ops_db) as session:
        [path] = session.scalars(
            sa.select(models.DiskDataLocation.path).where(
                models.DiskDataLocation.name == "lta", models.DiskDataLocation.site.has(short_name="cologne")
            )
        )
    say("location", "add", "cologne/second", "--type", "long_term_archive", "--path", "/data/second")
    refused = told(say("location", "move", "cologne/second", "--path", f"{path}/."))
    assert "is the directory of cologne/lta already" in refused


@pytest.mark.parametrize(
    ("option", "number"),
    [
        ("--reserve", "1e11"),
        ("--reserve", "nan"),
        ("--scrub-rate", "1e300"),
        ("--scrub-days", "999999999"),
        ("--priority", "99999999999999"),
    ],
)
def test_numbers_beyond_all_measure_are_refused(say: Say, option: str, number: str) -> None:
    ended = say("location", "set", "cologne/lta", option, number)
    assert ended.exit_code == 2
    assert f"Invalid value for {option}" in told(ended).replace("'", "")


def test_a_location_that_was_added_by_mistake_is_removed_unless_something_was_there(
    ops_db: sa.Engine, say: Say
) -> None:
    say("location", "add", "cologne/mistaken", "--type", "source", "--path", "/data/mistaken")
    assert told(say("location", "remove", "cologne/mistaken")) == "cologne/mistaken is removed"
    assert "cologne/mistaken" not in told(say("locations"))
    History(ops_db).define({"key": "calibrate", "group_by": ["executed_obs_unit"]})
    assert told(say("location", "remove", "cologne/ramses")) == (
        "error: Location cologne/ramses stays: its pipeline revision is on record, and that is not forgotten. "
        "Nothing was changed."
    )
    assert "cologne/ramses" in told(say("locations"))
