"""Processes that die while they look what is the matter, tell people, show that they live or see what is free."""

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from signal import SIGKILL
from typing import Any, Final

import pytest
import sqlalchemy as sa
from redis import Redis

from ccat.crashing import points
from ccat.stack.redis import RedisAddress
from ccat_ops_db import models
from ccat_ops_db.plan.spaces import SpaceState
from ccat_ops_db.queries.spaces import list_locations
from ccat_ops_db.states import AlertKind
from ccat_ops_db.verbs.limiting import LIMITS_CHANGED
from ccat_ops_db.verbs.spaces import record_space
from ccat_service.health import HealthCheck
from ccat_service.stop import Stop
from tests.workflow.verbs.conftest import OpenWorks
from tests.workflow.verbs.crashes.looks import (
    INSTANCE,
    LIVE,
    LOOKS,
    SEE,
    SEE_ARCHIVE,
    TELL,
    TELL_THE_WEB,
    address,
    heard,
)
from tests.workflow.verbs.crashes.mortals import LOOKED, Mortals
from tests.workflow.verbs.manager_process import ManagerProcess
from tests.workflow.verbs.works import LOCATION_NAME, Works, eventually

TELLING: Final = [look for look in LOOKS if look not in {LIVE, SEE, SEE_ARCHIVE}]
UNRECORDED: Final = {
    "ccat.watch.hook._given:process.communicate:after",
    "ccat.watch.hook._post:build_opener.open:after",
    "ccat.watch.looking._tell:commit:3:before",
}
"""Who dies here has told people, and nobody knows."""
FAILED: Final = "ccat.watch.looking._tell:commit:2:after"
"""Who dies here has written down that the hook failed."""
FREE: Final = {"ccat.watch.looking.look_and_tell:commit:before", "ccat.watch.looking._repeat:commit:after"}
"""Who dies here does not hold the watch yet, or not any more: another one need not wait for the end of its lease."""
BEAT: Final = "ccat_service.health.HealthCheck._tell_redis:redis.set:2"
MISSED: Final = {f"{BEAT}:after", "ccat_service.health.HealthCheck._tell_redis:redis.set:before"}
"""Who dies here has shown a sign of life, and has not said that it ends."""
SEEN: Final = models.SeenService
KEY: Final = f"health:tests:celery-worker:{INSTANCE}"


class Ear(BaseHTTPRequestHandler):
    """A place on the web that takes messages."""

    def do_POST(self) -> None:
        """Take one."""
        with self.server.file.open("a") as file:  # type: ignore[attr-defined]  # its own attribute
            file.write(self.rfile.read(int(self.headers["Content-Length"])).decode() + "\n")
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *_: Any) -> None:  # noqa: A002 - its name there
        """Say nothing."""


@dataclass
class People:
    """Whoever is told, and the installation with one thing the matter."""

    works: Works
    redis: Redis

    def wait(self) -> None:
        """Let the time pass until another process may look, and tell."""
        watch = sa.update(models.AlertWatch)
        self.works.execute(watch.values(lease_until=datetime.now(UTC) - timedelta(seconds=1), next_try_at=None))

    def begin(self) -> None:
        """Have a disk be full, of which nobody has heard."""
        heard(self.works.root).unlink(missing_ok=True)
        self.redis.delete(KEY, f"ended:{KEY}")
        for noun in (models.Alert, models.AlertWatch, SEEN):
            self.works.execute(sa.delete(noun))
        self.see(free=0)

    def see(self, *, free: int) -> None:
        here, now = self.works.location_id, datetime.now(UTC)
        self.works.session(lambda session: record_space(session, here, free=free, total=9, now=now))

    def heard(self) -> list[list[tuple[str, str]]]:
        """What every message told: events and kinds."""
        lines = heard(self.works.root).read_text().splitlines() if heard(self.works.root).exists() else []
        return [[(one["event"], one["kind"]) for one in json.loads(line)["alerts"]] for line in lines]

    def is_free(self) -> bool:
        """Whether anybody may look at once."""
        return all(one.claimed_by is None for one in self.works.all(models.AlertWatch))

    def failure(self) -> str | None:
        """What is said of the hook."""
        found = self.works.all(models.AlertWatch)
        return found[0].failure if found else None


@pytest.fixture(scope="module")
def people(
    open_works: OpenWorks, redis_address: RedisAddress, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[People]:
    with (
        open_works(tmp_path_factory.mktemp("looks")) as works,
        Redis.from_url(redis_address.url) as redis,
        HTTPServer(("127.0.0.1", 0), Ear) as server,
        HealthCheck("tests", "trigger-manager", redis=redis, instance="heard"),
    ):
        eventually(lambda: redis.exists("health:tests:trigger-manager:heard"))
        server.file = heard(works.root)  # type: ignore[attr-defined]  # its own attribute
        address(works.root).write_text(f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield People(works, redis)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def mortals(people: People, redis_address: RedisAddress) -> Iterator[Mortals]:
    mortals = Mortals(people.works, redis_address, people.works.root / "mortals.log")
    for look in LOOKS:
        people.begin()
        mortals.come_by(look, look=look)
    yield mortals
    mortals.close()


def test_the_looks_come_by_every_point(mortals: Mortals) -> None:
    missing = sorted({point for point in points() if point.startswith(LOOKED)} - mortals.ways.keys())
    assert not missing, "\n".join(["add to looks.py what comes by", *missing])


@pytest.mark.parametrize("look", TELLING)
def test_people_are_told_once_and_twice_only_where_nobody_knows_that_they_were(
    look: str, people: People, mortals: Mortals
) -> None:
    again = TELL_THE_WEB if look == TELL_THE_WEB else TELL
    for point in points_of(look, mortals):
        people.begin()
        assert mortals.ask(look=look, points=[point])["died"] == point
        assert people.is_free() == (point in FREE), point
        assert bool(people.failure()) == (point == FAILED), point
        people.wait()
        start(mortals, again)
        assert people.heard() == [[("raised", "full_disk")]] * (2 if point in UNRECORDED else 1), point
        assert people.failure() is None
    before = people.heard()
    people.wait()
    start(mortals, again)
    assert people.heard() == before


def test_who_dies_is_missed_unless_it_had_said_that_it_ends(people: People, mortals: Mortals) -> None:
    for point in points_of(LIVE, mortals):
        people.begin()
        people.see(free=9)
        if not point.startswith(BEAT):  # it lived for a while, and was seen
            now = datetime.now(UTC)
            row = {"key": KEY, "name": "celery-worker", "host": "here", "beat_at": now, "seen_at": now}
            people.works.execute(sa.insert(SEEN).values(row))
        assert mortals.ask(look=LIVE, points=[point])["died"] == point
        start(mortals, TELL)
        people.redis.delete(KEY)  # as after a minute and a half
        long_ago = datetime.now(UTC) - timedelta(minutes=2)
        people.works.execute(sa.update(SEEN).where(SEEN.key == KEY).values(seen_at=long_ago))
        people.wait()
        start(mortals, TELL)
        missed = [[("raised", "dead_service")]] if point in MISSED else []
        assert people.heard() == missed, point
        with HealthCheck("tests", "celery-worker", redis=people.redis, instance="started again"):
            eventually(lambda: people.redis.exists("health:tests:celery-worker:started again"))
            people.wait()
            start(mortals, TELL)
        assert people.heard() == [*missed, *([[("cleared", "dead_service")]] if missed else [])], point


def test_what_is_free_is_known_after_the_next_look_and_whoever_waits_for_room_is_woken(
    people: People, mortals: Mortals
) -> None:
    stop, works = Stop(), people.works
    people.see(free=9)
    with works.database.listen(stop=stop) as wakeups:
        wakeups.wait(timedelta(seconds=5))  # connects
        for point in points_of(SEE, mortals):
            people.see(free=0)
            assert wakeups.wait(timedelta(seconds=20)) == {LIMITS_CHANGED}
            assert mortals.ask(look=SEE, points=[point])["died"] == point
            assert state(works) is (SpaceState.OK if point.endswith("commit:after") else SpaceState.BELOW_RESERVE)
            start(mortals, SEE)
            assert state(works) is SpaceState.OK
            assert wakeups.wait(timedelta(seconds=20)) == {LIMITS_CHANGED}
            assert works.all_of(sa.select(models.DataLocation.total_bytes).filter_by(id=works.location_id)) == [
                shutil.disk_usage(works.root).total
            ]
    stop.close()


def test_a_manager_dies_when_it_has_told_people_and_another_one_tells_them_again(
    people: People, mortals: Mortals, redis_address: RedisAddress
) -> None:
    people.begin()
    works, log = people.works, people.works.root / "trigger-manager.log"
    more = {
        "CCAT_CRASH_AT": "ccat.watch.looking._tell:commit:3:before",
        "CCAT_WORKFLOW_MANAGER_ALERT_COMMAND": f"/bin/sh -c 'exec cat >>{heard(works.root)}'",
    }
    manager = ManagerProcess("trigger-manager", works, redis_address, log=log, **more)
    try:
        assert manager.end() == -SIGKILL
    finally:
        manager.kill()
    assert people.heard() == [[("raised", "full_disk")]]
    assert [(one.kind, one.told_at) for one in works.all(models.Alert)] == [(AlertKind.FULL_DISK, None)]
    people.wait()
    start(mortals, TELL)
    assert people.heard() == [[("raised", "full_disk")]] * 2
    assert works.all(models.Alert, told_at=None) == []


def points_of(look: str, mortals: Mortals) -> list[str]:
    found = mortals.points_of(look)
    assert found
    return found


def start(mortals: Mortals, look: str) -> None:
    """A process is started that lives."""
    assert mortals.ask(look=look, points=[]) == {"died": None, "part": 0}


def state(works: Works) -> SpaceState:
    found = works.session(lambda session: list_locations(session, now=datetime.now(UTC)))
    [here] = [one for one in found if one.name == LOCATION_NAME]
    return here.state
