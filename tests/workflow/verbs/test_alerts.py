"""What people are told: each thing once, and again only where nobody knows whether they heard of it."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis

from ccat.stack.redis import RedisAddress
from ccat.watch import hook, looking
from ccat.watch.hook import Hook, HookFailed
from ccat.watch.looking import Watch, look_and_tell
from ccat_ops_db import models
from ccat_ops_db.states import AlertKind, FailureClass
from ccat_ops_db.verbs.spaces import record_space
from ccat_service.health import HealthCheck
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import Works, eventually

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"], "max_retries": 0}
HOUR = timedelta(hours=1)


@dataclass
class People:
    """Whoever reads what the hook is given, here: a file to which a command appends it."""

    works: Works
    file: Path
    watch: Watch
    _read: int = field(default=0)

    def look(self, *, later: bool = True) -> list[dict[str, Any]]:
        """What is heard of one look, a minute later than the last one."""
        if later:
            self.works.execute(sa.update(models.AlertWatch).values(told_at=None, next_try_at=None))
        look_and_tell(self.watch)
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        heard, self._read = lines[self._read :], len(lines)
        return [json.loads(line) for line in heard]


@pytest.fixture
def redis(redis_address: RedisAddress) -> Iterator[Redis]:
    with Redis.from_url(redis_address.url) as client:
        yield client


@pytest.fixture
def people(works: Works, redis: Redis, tmp_path: Path) -> People:
    file = tmp_path / "heard"
    command = ("/bin/sh", "-c", f"cat >>{file}")
    watch = Watch(database=works.database, redis=redis, hook=Hook(command), name="first", backlog=12 * HOUR)
    return People(works, file, watch)


def fail(works: Works, *causes: str) -> None:
    """Have a run fail for good for each cause."""
    works.define(CALIBRATE)
    works.archived(*(f"p{number}" for number in range(len(causes))))
    works.create()
    works.start()
    for run, cause in zip(works.runs(), causes, strict=True):
        works.fail(run.id, FailureClass.DATA, cause)
    works.create()


def test_what_failed_for_good_is_told_once_with_what_to_do_and_once_more_when_it_is_over(
    works: Works, people: People
) -> None:
    fail(works, "file 17 is damaged", "file 18 is damaged")
    [message] = people.look()
    [alert] = message["alerts"]
    assert (alert["event"], alert["kind"], alert["number"]) == ("raised", "failed_for_good", 2)
    assert alert["sentence"] == (
        "2 sub-groups of toy/calibrate failed for good: file 17 is damaged; "
        "`ccat runs --pipeline toy --step calibrate --status failed` lists the runs"
    )
    assert message["text"].splitlines()[0] == "CCAT data center: 1 new"
    assert people.look() == []
    works.execute(sa.update(models.SubGroup).values(verdict="wanted"))
    [message] = people.look()
    assert [one["event"] for one in message["alerts"]] == ["cleared"]
    assert people.look() == []


def test_a_storm_is_one_message_that_spells_out_the_first_and_counts_the_others(works: Works, people: People) -> None:
    fail(works, *(f"cause {chr(65 + number)}" for number in range(25)))
    [message] = people.look()
    assert (len(message["alerts"]), message["more"]) == (20, 5)
    assert message["text"].splitlines()[0] == "CCAT data center: 25 new"
    assert message["text"].splitlines()[-1] == "and 5 more: `ccat alerts`"
    assert people.look() == []


def test_what_comes_within_a_minute_of_a_message_waits_for_the_next_one(works: Works, people: People) -> None:
    fail(works, "one thing")
    assert len(people.look()) == 1
    works.session(lambda session: record_space(session, works.location_id, free=0, total=9, now=datetime.now(UTC)))
    assert people.look(later=False) == []
    [message] = people.look()
    assert [one["kind"] for one in message["alerts"]] == ["full_disk"]


def test_what_has_grown_tenfold_is_told_again(works: Works, people: People) -> None:
    fail(works, *(f"file {number} is damaged" for number in range(10)))
    people.look()
    works.execute(sa.update(models.Alert).values(told_number=1))
    [message] = people.look()
    assert [one["number"] for one in message["alerts"]] == [10]


def test_who_dies_after_telling_and_before_that_is_recorded_has_it_told_again(
    works: Works, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(works, "one thing")

    def die(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(looking, "record_told", die)
        with pytest.raises(SystemExit):
            people.look()
    assert len(people.file.read_text().splitlines()) == 1
    assert len(people.look()) == 2
    assert people.look() == []


def test_a_hook_that_fails_is_tried_on_and_is_seen_to_fail(works: Works, people: People, say: Say) -> None:
    fail(works, "one thing")
    broken = replace(people.watch, hook=Hook(("/bin/sh", "-c", "echo no network >&2; exit 3")))
    assert look_and_tell(broken) == 0
    told = json.loads(say("alerts", "--json").stdout)
    assert told["hook_failure"] == "alert_command failed: it ended with 3, saying 'no network'"
    assert told["alerts"][0]["told_at"] is None
    assert "the hook failed 1 time in a row" in say("alerts").stdout
    assert people.look(later=False) == []
    assert len(people.look()) == 1
    assert "hook failed" not in say("alerts").stdout


def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hook, "_COMMAND_PATIENCE", timedelta(seconds=0.3))
    command = ("/bin/sh", "-c", f"sleep 60 & echo $! >{tmp_path}/pid; wait")
    with pytest.raises(HookFailed, match=r"it was not done within 0\.3 s, and was ended"):
        Hook(command).channels["alert_command"]({"text": "x"})
    status = Path("/proc") / (tmp_path / "pid").read_text().strip() / "stat"
    eventually(lambda: not status.exists() or status.read_text().split()[2] == "Z")


@pytest.mark.parametrize(
    ("command", "said"), [("/no/such/command", "No such file"), ("/etc/hostname", "Exec format error")]
)
def test_a_command_that_cannot_be_run_says_why(command: str, said: str) -> None:
    with pytest.raises(HookFailed, match=f"alert_command failed: .*{said}"):
        Hook((command,)).channels["alert_command"]({"text": "x"})


class Ear(BaseHTTPRequestHandler):
    """A place on the web that takes messages, all but the first."""

    def do_POST(self) -> None:
        """Take one."""
        heard = self.server.heard  # type: ignore[attr-defined]  # its own attribute
        heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(503 if len(heard) == 1 else 200)
        self.end_headers()

    def log_message(self, format: str, *_: Any) -> None:  # noqa: A002 - its name there
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Ear) as server:
        server.heard = []  # type: ignore[attr-defined]  # its own attribute
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_web_address_gets_the_same_as_json(works: Works, people: People, server: HTTPServer, say: Say) -> None:
    fail(works, "one thing")
    people.watch = replace(people.watch, hook=Hook(webhook=f"http://127.0.0.1:{server.server_port}/x"))
    people.look()
    assert "HTTP Error 503" in json.loads(say("alerts", "--json").stdout)["hook_failure"]
    people.look()
    people.look()
    first, second = server.heard  # type: ignore[attr-defined]  # its own attribute
    assert first == second
    assert first["text"].startswith("CCAT data center: 1 new\nfailed_for_good: 1 sub-group of toy/calibrate")


class Elsewhere(BaseHTTPRequestHandler):
    """A place on the web that sends everybody to a page where one logs in, which answers whoever asks for it."""

    def do_POST(self) -> None:
        """Send on."""
        self.send_response(302)
        self.send_header("Location", f"http://somebody:secret@{self.headers['Host']}/login?token=secret")
        self.end_headers()

    def do_GET(self) -> None:
        """Show the page."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *_: Any) -> None:  # noqa: A002 - its name there
        """Say nothing."""


def test_a_web_address_that_redirects_has_not_heard_anything(server: HTTPServer) -> None:
    server.RequestHandlerClass = Elsewhere
    there = f"127.0.0.1:{server.server_port}"
    with pytest.raises(HookFailed, match=f"alert_webhook failed: it redirects to {there}; name that address$"):
        Hook(webhook=f"http://{there}/x").channels["alert_webhook"]({"text": "x"})


def test_an_address_that_is_none_is_a_hook_that_fails() -> None:
    with pytest.raises(HookFailed, match="alert_webhook failed: "):
        Hook(webhook="http://[::1/x").channels["alert_webhook"]({"text": "x"})


def test_a_channel_that_works_is_not_told_again_because_another_one_does_not(
    works: Works, people: People, server: HTTPServer, say: Say
) -> None:
    fail(works, "one thing")
    command, address = people.watch.hook.command, f"http://127.0.0.1:{server.server_port}/x"
    people.watch = replace(people.watch, hook=Hook(command, address))
    assert len(people.look()) == 1
    assert "not everybody is told, as the hook failed 1 time in a row" in say("alerts").stdout
    works.session(lambda session: record_space(session, works.location_id, free=0, total=9, now=datetime.now(UTC)))
    [message] = people.look()
    assert [one["kind"] for one in message["alerts"]] == ["full_disk"]
    heard = server.heard  # type: ignore[attr-defined]  # its own attribute
    assert [len(one["alerts"]) for one in heard] == [1, 2]
    assert people.look() == []
    assert len(heard) == 2


def test_the_command_gets_no_variables_of_the_manager_but_those_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CCAT_OPS_DB_URL", "postgresql://ccat:secret@db/ccat")
    monkeypatch.setenv("CCAT_ALERT_CHANNEL", "night")
    Hook(("/bin/sh", "-c", f"env >{tmp_path}/got")).channels["alert_command"]({"text": "one line"})
    got = dict(line.split("=", 1) for line in (tmp_path / "got").read_text().splitlines())
    assert got["CCAT_ALERT_TEXT"] == "one line"
    assert got.keys() - {"PWD", "SHLVL", "_"} <= {"PATH", "HOME", "LANG", "CCAT_ALERT_CHANNEL", "CCAT_ALERT_TEXT"}
    assert got["CCAT_ALERT_CHANNEL"] == "night"


def test_a_password_in_the_last_line_of_a_log_is_told_to_nobody(works: Works, people: People) -> None:
    fail(works, "cannot reach https://observer:hunter2@data.example.org/x")
    [message] = people.look()
    assert "https://(secret)@data.example.org/x" in message["text"]
    recorded = [
        works.run().failure,
        works.run().attempts[0].cause,
        *(one.because for one in works.all(models.StatusChange)),
    ]
    assert not any("hunter2" in str(one) for one in recorded)


def test_one_process_at_a_time_looks_and_tells_and_another_one_goes_on_when_it_is_gone(
    works: Works, people: People
) -> None:
    fail(works, "one thing")
    assert look_and_tell(people.watch) == 1
    works.execute(sa.update(models.Alert).values(told_number=0, told_at=None))
    second = replace(people.watch, name="second", pace=timedelta())
    assert look_and_tell(second) == 0
    works.execute(sa.update(models.AlertWatch).values(lease_until=datetime.now(UTC) - HOUR))
    assert look_and_tell(second) == 1


def test_without_a_hook_everything_is_found_and_listed_all_the_same(works: Works, people: People, say: Say) -> None:
    assert "no process has ever looked" in say("alerts").stdout
    fail(works, "one thing")
    look_and_tell(replace(people.watch, hook=Hook()))
    assert "1 sub-group of toy/calibrate failed for good: one thing" in say("alerts").stdout
    works.execute(sa.update(models.SubGroup).values(verdict="wanted"))
    look_and_tell(replace(people.watch, hook=Hook()))
    assert json.loads(say("alerts", "--json").stdout)["alerts"] == []
    assert len(json.loads(say("alerts", "--all", "--json").stdout)["alerts"]) == 1


def test_what_has_waited_too_long_is_told_of_new_data_only_and_not_where_somebody_paused_it(
    works: Works, people: People, say: Say
) -> None:
    works.define(CALIBRATE)
    works.archived("one")
    works.create()
    assert people.look() == []
    people.watch = replace(people.watch, backlog=timedelta())
    [message] = people.look()
    [alert] = message["alerts"]
    assert (alert["kind"], alert["key"]) == ("backlog", "runs of toy")
    assert alert["sentence"].startswith("1 run of pipeline toy not started yet, the oldest since ")
    assert say("pause", "--pipeline", "toy", "--because", "clouds").exit_code == 0
    [message] = people.look()
    assert [one["event"] for one in message["alerts"]] == ["cleared"]


LISTED = "`ccat packages --state failed` lists them; `ccat package give-up PACKAGE` where one is gone for good"


def test_raw_packages_that_failed_or_do_not_come_to_the_archive_are_told(works: Works, people: People) -> None:
    works.archived("one")
    package = models.RawDataPackage
    works.execute(sa.update(package).values(state="failed", archived_at=None, failure="its archive copy is damaged."))
    people.watch = replace(people.watch, backlog=timedelta())
    [message] = people.look()
    assert [one["sentence"] for one in message["alerts"]] == [
        f"1 raw package cannot be archived: its archive copy is damaged. {LISTED}"
    ]
    works.execute(sa.update(package).values(state="waiting", failure=None))
    [message] = people.look()
    assert {(one["event"], one["kind"]) for one in message["alerts"]} == {
        ("raised", "backlog"),
        ("cleared", "failed_for_good"),
    }


def test_raw_data_that_a_person_has_taken_out_are_told_of_all_the_same_as_they_are_to_be_kept(
    works: Works, people: People
) -> None:
    works.archived("failed", "waiting", "withdrawn")
    package, now = models.RawDataPackage, datetime.now(UTC)
    out = {"excluded_at": now, "excluded_because": "clouds"}
    for name, values in (
        ("failed", {"state": "failed", "failure": "it is damaged", **out}),
        ("waiting", {"state": "waiting", **out}),
        ("withdrawn", {"state": "failed", "failure": "gone", "withdrawn_at": now, "withdrawn_because": "a wrong beam"}),
    ):
        works.execute(sa.update(package).where(package.name == name).values(archived_at=None, **values))
    people.watch = replace(people.watch, backlog=timedelta())
    [message] = people.look()
    assert sorted((one["kind"], one["sentence"].partition(",")[0].partition(":")[2]) for one in message["alerts"]) == [
        ("backlog", ""),
        ("failed_for_good", f" gone {LISTED}"),
        ("failed_for_good", f" it is damaged {LISTED}"),
    ]


def test_no_run_is_awaited_of_what_a_person_has_taken_out(works: Works, people: People, say: Say) -> None:
    works.define(CALIBRATE)
    works.archived("one")
    works.create()
    people.watch = replace(people.watch, backlog=timedelta())
    [message] = people.look()
    assert [one["key"] for one in message["alerts"]] == ["runs of toy"]
    assert say("package", "exclude", "one", "--because", "clouds").exit_code == 0
    works.create()
    [message] = people.look()
    events = {one["key"]: one["event"] for one in message["alerts"]}
    assert (events["runs of toy"], "sub-groups of toy" in events) == ("cleared", False)


def test_a_failure_that_nothing_needs_any_more_is_no_cause(works: Works, people: People) -> None:
    fail(works, "one thing")
    works.execute(sa.update(models.ExecutedReductionStep).values(not_needed=True))
    [message] = people.look()
    assert [one["sentence"].split(": ")[1].split("; ")[0] for one in message["alerts"]] == ["an input is missing"]


def test_what_nobody_looked_at_or_made_a_run_of_for_long_is_told(works: Works, people: People) -> None:
    works.define({**CALIBRATE, "cooldown_seconds": 1})
    works.archived("one")
    people.watch = replace(people.watch, backlog=timedelta())
    [message] = people.look()
    [alert] = message["alerts"]
    assert (alert["kind"], alert["key"]) == ("backlog", "changes")
    assert "not looked at yet, the oldest since " in alert["sentence"]
    works.gap()  # evaluates, and creates nothing
    [message] = people.look()
    told = {one["key"]: one for one in message["alerts"]}
    assert {key: one["event"] for key, one in told.items()} == {"sub-groups of toy": "raised", "changes": "cleared"}
    assert told["sub-groups of toy"]["sentence"].startswith("1 sub-group of pipeline toy without the run that new data")
    works.create()
    [message] = people.look()
    assert {one["key"]: one["event"] for one in message["alerts"]} == {
        "sub-groups of toy": "cleared",
        "runs of toy": "raised",
    }


def beat(redis: Redis, key: str, *, ago: timedelta) -> None:
    """Have a process that lives have done nothing for so long."""
    fields = json.loads(redis.getrange(key, 0, -1))
    redis.set(key, json.dumps({**fields, "beat": (datetime.now(UTC) - ago).isoformat()}))


def seen_for(works: Works, span: timedelta) -> None:
    works.execute(sa.update(models.AlertWatch).values(sees_since=datetime.now(UTC) - span))


def test_a_service_that_lives_and_does_nothing_hangs_unless_nobody_could_do_anything(
    works: Works, people: People, redis: Redis
) -> None:
    with HealthCheck("tests", "trigger-manager", redis=redis, instance="stuck"):
        key = "health:tests:trigger-manager:stuck"
        eventually(lambda: redis.exists(key))
        people.look()
        beat(redis, key, ago=timedelta(minutes=6))
        assert people.look() == []  # it is seen for a moment only, as after an outage
        seen_for(works, HOUR)
        beat(redis, key, ago=timedelta(minutes=4))
        assert people.look() == []
        beat(redis, key, ago=timedelta(minutes=6))
        [message] = people.look()
        [alert] = message["alerts"]
        assert (alert["kind"], alert["key"], alert["event"]) == ("dead_service", key, "raised")
        assert " hangs since " in alert["sentence"]
        beat(redis, key, ago=timedelta())
        [message] = people.look()
        assert [one["event"] for one in message["alerts"]] == ["cleared"]


def test_a_service_that_stays_dead_is_not_said_to_be_over_by_those_who_did_not_look_or_forget_it(
    works: Works, people: People, redis: Redis
) -> None:
    lost = HealthCheck("tests", "celery-worker", redis=redis, instance="lost")
    lost.start()
    eventually(lambda: redis.keys("health:*"))
    people.look()
    lost.stop()
    redis.delete("ended:health:tests:celery-worker:lost")  # as if it had been killed
    silent(works, minutes=2)
    assert len(people.look()) == 1
    works.execute(sa.update(models.AlertWatch).values(looked_at=datetime.now(UTC) - HOUR))
    assert people.look() == []
    silent(works, minutes=25 * 60)
    assert people.look() == []
    [alert] = works.all(models.Alert)
    assert alert.cleared_at
    assert alert.sentence.endswith("start it again; forgotten after a day without it")


def test_what_is_as_it_was_is_not_written_again(works: Works, people: People) -> None:
    fail(works, "one thing")
    people.look()
    version: sa.Select[str] = sa.select(sa.literal_column("xmin::text || ctid::text")).select_from(
        models.Alert.__table__
    )
    before = works.all_of(version)
    people.look()
    assert works.all_of(version) == before


def test_older_alerts_are_on_the_next_page(works: Works, people: People, say: Say) -> None:
    fail(works, "one thing", "another thing")
    people.look()
    [newest] = json.loads(say("alerts", "--limit", 1, "--json").stdout)["alerts"]
    [older] = json.loads(say("alerts", "--before", newest["id"], "--json").stdout)["alerts"]
    assert older["id"] < newest["id"]


def silent(works: Works, *, minutes: int) -> None:
    """Let everybody have been silent for so long, while somebody looked."""
    works.execute(sa.update(models.SeenService).values(seen_at=datetime.now(UTC) - timedelta(minutes=minutes)))


def test_a_service_that_is_gone_is_told_but_not_one_that_ended_on_purpose_or_was_replaced(
    works: Works, people: People, redis: Redis
) -> None:
    lost = HealthCheck("tests", "celery-worker", redis=redis, instance="lost")
    ended = HealthCheck("tests", "result-manager", redis=redis, instance="ended")
    for one in (lost, ended):
        one.start()
    eventually(lambda: len(redis.keys("health:*")) == 2)
    assert people.look() == []
    ended.stop()
    lost.stop()
    redis.delete("ended:health:tests:celery-worker:lost")  # as if it had been killed
    assert people.look() == []
    silent(works, minutes=2)
    [message] = people.look()
    [alert] = message["alerts"]
    assert (alert["kind"], alert["key"]) == ("dead_service", "health:tests:celery-worker:lost")
    assert "celery-worker on " in alert["sentence"]
    with HealthCheck("tests", "celery-worker", redis=redis, instance="next"):
        eventually(lambda: redis.keys("health:*"))
        [message] = people.look()
    assert [one["event"] for one in message["alerts"]] == ["cleared"]


def test_redis_itself_is_missed_and_nobody_else_while_it_is_away(works: Works, people: People, redis: Redis) -> None:
    with HealthCheck("tests", "celery-worker", redis=redis):
        eventually(lambda: redis.keys("health:*"))
        people.look()
    with Redis.from_url("redis://127.0.0.1:1") as nowhere:
        away = replace(people.watch, redis=nowhere)
        seen = models.SeenService
        works.execute(
            sa.update(seen).where(seen.key == "redis").values(seen_at=datetime.now(UTC) - timedelta(minutes=2))
        )
        look_and_tell(replace(away, pace=timedelta()))
    [alert] = works.all(models.Alert)
    assert (alert.kind, alert.key) == (AlertKind.DEAD_SERVICE, "redis")
    told = [(one["event"], one["key"]) for message in people.look() for one in message["alerts"]]
    assert told == [("raised", "redis"), ("cleared", "redis")]
