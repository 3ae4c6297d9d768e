"""Data transfer between two sites while its processes are killed, bits flip, and whatever may go does."""

import logging
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from ccat.stack.postgresql import embedded_postgresql
from ccat.stack.redis import embedded_redis
from ccat_ops_db.migrating import migrate
from ccat_ops_db.session import create_engine
from ccat_ops_db.states import Mover
from ccat_service.servers import RedisSettings
from tests.chaos.rot import Rot
from tests.chaos.sites import KINDS, Crew, Crossings, prepare
from tests.seed import sending_at_once
from tests.transfer.object_store import ObjectStore
from tests.transfer.support import Observatory

_POLL: Final = 0.1
_TOLD_EVERY: Final = 5.0
_HURRIED_EVERY: Final = 3.0

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of what."""

    seed: int
    packages: int = 200
    kills: int = 60
    every: timedelta = timedelta(seconds=2)
    """Between two kills."""
    flips: int = 40
    flips_at: Sequence[str] = ()
    """Where, in turn; anywhere, where none is said."""
    mover: Mover = Mover.COPY
    """What brings packages from site to site."""
    patience: timedelta = timedelta(minutes=20)
    """After the last kill."""


@dataclass
class Outcome:
    """What came of it."""

    wrong: list[str]
    kills: Counter[str]
    flips: Counter[str]
    """By location."""
    troubles: dict[str, int] = field(default_factory=dict)
    packages: int = 0
    seconds: float = 0

    def table(self) -> Iterator[str]:
        """One line for each figure."""
        yield from (f"{f'killed: {kind}':<40}{self.kills[kind]:>6}" for kind in KINDS)
        yield from (f"{f'bits flipped at {name}':<40}{number:>6}" for name, number in sorted(self.flips.items()))
        yield from (f"{name:<40}{number:>6}" for name, number in self.troubles.items())


@dataclass
class Play:
    """From the first scan to the end."""

    plan: Plan
    crossings: Crossings
    rot: Rot
    crew: Crew
    say: Say
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    flips: Counter[str] = field(default_factory=Counter)
    cards: list[str] = field(default_factory=list)
    """What is still to be killed, the next one last."""
    _began: float = field(default_factory=time.monotonic)
    _last_kill: float = 0

    def run(self) -> Outcome:
        """Take scans, kill, flip and let copies go; when that is done, wait until all is archived and staged."""
        for kind in KINDS:
            self.crew.start(kind)
        while len(self.cards) < self.plan.kills:
            self.cards += self.chance.sample(KINDS, len(KINDS))
        del self.cards[self.plan.kills :]
        next_word = next_hurry = 0.0
        while self._elapsed() - self._last_kill < self.plan.patience.total_seconds():
            share = min(1.0, (self.kills.total() + 1) / max(self.plan.kills, 1))
            while len(self.crossings.scans) < share * self.plan.packages:
                self.crossings.observe()
            self._kill()
            self._flip(share)
            self.crossings.want_staged()
            if self._elapsed() >= next_hurry:
                self.crossings.hurry()
                next_hurry = self._elapsed() + _HURRIED_EVERY
            if self._elapsed() >= next_word:
                self._tell()
                next_word = self._elapsed() + _TOLD_EVERY
            if not self.cards and self.flips.total() >= self.plan.flips and self._is_over():
                break
            time.sleep(_POLL)
        return self._outcome()

    def _is_over(self) -> bool:
        """Whether all is as it should be; before, what is staged may go again, and be wanted again."""
        self.crossings.is_full = False
        return self.crossings.is_over()

    def _kill(self) -> None:
        """Kill the next one, once it works again after its last death."""
        is_early = self._elapsed() < self._last_kill + self.plan.every.total_seconds()
        if is_early or not self.cards or not self.crew.running[self.cards[-1]].has_started():
            return
        kind = self.cards.pop()
        pid = self.crew.kill(kind, patience=self.plan.every)
        self.kills[kind] += 1
        self._last_kill = self._elapsed()
        self.say(f"{self._last_kill:6.1f} s  killed {kind} (pid {pid})")

    def _flip(self, share: float) -> None:
        if self.flips.total() < share * self.plan.flips:
            places = self.plan.flips_at
            where = self.rot.flip(only_at=places[self.flips.total() % len(places)] if places else None)
            if where is not None:
                self.flips["/".join(where.split("/")[:2])] += 1
                self.say(f"{self._elapsed():6.1f} s  flipped a bit of {where}")

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _tell(self) -> None:
        told = ", ".join(f"{number} {state}" for state, number in sorted(self.crossings.progress().items()))
        self.say(
            f"{self._elapsed():6.1f} s  {len(self.crossings.scans)} of {self.plan.packages} scans; packages: {told}"
        )

    def _outcome(self) -> Outcome:
        seconds = self._elapsed()
        self.crew.stop()
        wrong = [*self.crossings.wrong(self.crew.site_of), *self.crew.left()]
        if self.kills.total() < self.plan.kills:
            wrong.append(f"only {self.kills.total()} of {self.plan.kills} kills")
        outcome = Outcome(wrong, self.kills, self.flips, self.crossings.troubles())
        outcome.packages, outcome.seconds = len(self.crossings.scans), seconds
        return outcome


def play(
    plan: Plan, observatory: Observatory, *, redis: RedisSettings, store: ObjectStore, logs: Path, say: Say
) -> Outcome:
    """Play on servers that are there, in an observatory where nothing was observed; no process of it is left."""
    prepare(observatory, store, mover=plan.mover)
    chance = random.Random(plan.seed)  # noqa: S311 - a game, not a secret
    crew = Crew(observatory, redis, logs)
    try:
        crossings, rot = Crossings(observatory, store, chance), Rot(observatory, store, chance)
        return Play(plan, crossings, rot, crew, say, chance).run()
    finally:
        crew.end()


def play_alone(plan: Plan, say: Say) -> Outcome:
    """Play on servers of our own; nothing of it is left."""
    with (
        tempfile.TemporaryDirectory(prefix="ccat-chaos-") as place,
        _servers(Path(place)) as (observatory, redis, store),
    ):
        logs = Path(place) / "logs"
        logs.mkdir()
        say(f"two sites, in {place}")
        return play(plan, observatory, redis=redis, store=store, logs=logs, say=say)


@contextmanager
def _servers(place: Path) -> Iterator[tuple[Observatory, RedisSettings, ObjectStore]]:
    with embedded_postgresql(place / "postgresql") as url, embedded_redis(place / "redis") as address:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the server of the object store tells every request
        engine, store = create_engine(url, application_name="chaos"), ObjectStore()
        try:
            migrate(engine)
            observatory = Observatory(engine, place / "storage")
            observatory.set_up(sending_at_once)
            store.make_bucket()
            password = SecretStr(address.password)
            yield (
                observatory,
                RedisSettings(redis_host=address.host, redis_port=address.port, redis_password=password),
                store,
            )
        finally:
            store.stop()
            engine.dispose()
