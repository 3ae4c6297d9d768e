"""Chains of steps while something is killed all the time."""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Final

from ccat_ops_db.states import RunStatus
from tests.chaos.chains import STEPS, Chains
from tests.chaos.killing import KINDS, POSTMASTER, WRAPPER, Kill, Killer, deck
from tests.end_to_end.installation import Installation

_POLL: Final = 0.1
_TOLD_EVERY: Final = 5.0

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of what."""

    seed: int
    chains: int = 300
    kills: int = 1000
    """At most."""
    each: int = 3
    """How often each kind is killed."""
    every: timedelta = timedelta(seconds=5)
    rest: timedelta = timedelta(seconds=20)
    """Between two kills of the postmaster, at least."""
    job_seconds: float = 0.3
    patience: timedelta = timedelta(minutes=3)
    """After the last kill."""


@dataclass
class Outcome:
    """What came of it."""

    wrong: list[str]
    kills: list[Kill]
    attempts: int = 0
    lost: int = 0
    """Jobs whose software was started and did not come to its end."""
    seconds: float = 0

    @property
    def recovery_s(self) -> float:
        """The longest time until work flowed again after one kill that no other followed too early."""
        known = [one for one in self.kills if one.recovered_after and one.kind != WRAPPER and not one.was_disturbed]
        return max((one.recovered_after.total_seconds() for one in known if one.recovered_after), default=0.0)

    def table(self) -> Iterator[str]:
        """One line for each kind."""
        yield f"{'killed':<20}{'times':>6}{'work flows again after (s), median and worst':>48}"
        for kind in KINDS:
            found = [one for one in self.kills if one.kind == kind]
            known = [one.recovered_after.total_seconds() for one in found if one.recovered_after]
            told = f"{median(known):.1f}  {max(known):.1f}" if known else "nothing was left to do"
            yield f"{kind:<20}{len(found):>6}{told:>48}"


def lacking(plan: Plan, kills: Sequence[Kill], *, is_over: bool) -> Iterator[str]:
    """What kills did not show: kinds that were killed too rarely, and work that was left and did not flow again."""
    if plan.kills >= plan.each * len(KINDS):
        for kind, times in {kind: sum(one.kind == kind for one in kills) for kind in KINDS}.items():
            if times < plan.each:
                yield f"{kind} was killed {times} of {plan.each} times"
    for one in kills:
        if not (is_over or one.was_disturbed or one.recovered_after):
            yield f"work did not flow again after {one.kind} was killed at {one.at:%T} UTC"


@dataclass
class Play:
    """One installation, from its first scan to its end."""

    plan: Plan
    chains: Chains
    killer: Killer
    say: Say
    _cards: list[str] = field(default_factory=list)
    _last_postmaster: float = -1e9

    def run(self) -> Outcome:
        """Take scans and kill; when both are done, wait until all is made."""
        self._cards = deck(self.plan.seed, most=self.plan.kills, each=self.plan.each)
        begin = time.monotonic()
        span, next_kill, next_word = self.plan.every.total_seconds() * len(self._cards), begin, begin
        deadline = begin + span + self.plan.patience.total_seconds()
        while time.monotonic() < deadline:
            elapsed = time.monotonic() - begin
            progress = self.chains.progress()
            wanted = min(self.plan.chains, 1 + int(self.plan.chains * elapsed / max(span, 1)))
            if self._cards and elapsed > span and self.chains.is_over(progress):
                wanted = len(self.chains.texts) + 1  # of whose job the wrapper can be killed
            while len(self.chains.texts) < wanted and self.chains.observe():
                pass
            if self._cards and time.monotonic() >= next_kill + self.plan.every.total_seconds():
                next_kill = time.monotonic() if self._kill(elapsed) else next_kill
            self.killer.look()
            if time.monotonic() >= next_word:
                self._tell(elapsed, progress)
                next_word = time.monotonic() + _TOLD_EVERY
            if not self._cards and len(self.chains.texts) >= self.plan.chains and self.chains.is_over(progress):
                break
            time.sleep(_POLL)
        return self._outcome(time.monotonic() - begin)

    def _kill(self, elapsed: float) -> bool:
        """Turn the first card that can be played."""
        is_early = time.monotonic() - self._last_postmaster < self.plan.rest.total_seconds()
        for number, kind in enumerate(self._cards):
            if kind == POSTMASTER and is_early:
                continue
            kill = self.killer.kill(kind)
            if kill is not None:
                self._last_postmaster = time.monotonic() if kind == POSTMASTER else self._last_postmaster
                del self._cards[number]
                self.say(f"{elapsed:6.1f} s  killed {kind} (pid {kill.pid})")
                return True
        return False

    def _tell(self, elapsed: float, progress: Counter[RunStatus] | None) -> None:
        told = "the database is away"
        if progress is not None:
            told = ", ".join(f"{number} {status}" for status, number in sorted(progress.items()))
        self.say(f"{elapsed:6.1f} s  {len(self.chains.texts)} of {self.plan.chains} scans; runs: {told}")

    def _outcome(self, seconds: float) -> Outcome:
        marks = self.chains.marks_by_kind()
        is_over = self.chains.is_over(self.chains.progress())
        wrong = [*self.chains.wrong(), *lacking(self.plan, self.killer.kills, is_over=is_over)]
        if len(self.chains.texts) < self.plan.chains:
            wrong.append(f"only {len(self.chains.texts)} of {self.plan.chains} scans were taken")
        outcome = Outcome(wrong, self.killer.kills, self.chains.attempts())
        outcome.lost = len(marks["start"] - marks["end"])
        outcome.seconds = seconds
        return outcome


def play(plan: Plan, say: Say) -> Outcome:
    """Set an installation up, kill, and see what came of it; nothing of it is left."""
    with _installation(say) as installation:
        chains = Chains(installation, plan.job_seconds)
        try:
            chains.define()
            killer = Killer(installation, chains.engine, random.Random(plan.seed))  # noqa: S311 - no secret
            outcome = Play(plan, chains, killer, say).run()
        finally:
            chains.engine.dispose()
        outcome.wrong += [f"a job is left: {one}" for one in killer.jobs_left()]
        down = installation.process("down")
        outcome.wrong += [f"a process is left: {one}" for one in killer.left()]
        outcome.wrong += [down.stdout + down.stderr] if down.returncode else []
        return outcome


@contextmanager
def _installation(say: Say) -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(prefix="ccat-chaos-") as directory:
        installation = Installation(Path(directory) / "data")
        try:
            up = installation.process("up", "--detach")
            if up.returncode:
                raise RuntimeError(up.stdout + up.stderr)
            say(f"{len(STEPS)} steps by scan, in {directory}")
            yield installation
        finally:
            installation.process("down")
