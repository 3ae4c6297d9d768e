"""What people are told without asking: when something is the matter, and how it is said."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ccat_ops_db.states import AlertKind

REDIS: Final = "redis"
"""Redis as a service among the others: it cannot say itself that it is gone."""
GRACE: Final = timedelta(minutes=1)
"""How long a service is silent, beyond the lifetime of its sign of life, before that is told."""
FORGOTTEN: Final = timedelta(days=1)
"""After so long a service that never came back was taken away on purpose."""
_LISTED: Final = 20
"""So many alerts are spelled out in one message; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Something that is the matter now."""

    kind: AlertKind
    key: str
    """Which of its kind."""
    sentence: str
    number: int = 1


@dataclass(frozen=True, kw_only=True)
class SignOfLife:
    """A process as it was seen."""

    key: str
    name: str
    host: str
    started: datetime | None = None
    """None where it is remembered only."""
    beat: datetime
    """When it last did something, as it says itself."""
    seen: datetime
    """When somebody saw it last."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """What became of the processes that were seen before."""

    dead: Sequence[Condition]
    forgotten: Collection[str]
    """Keys of those that need not be remembered."""


@dataclass(frozen=True, kw_only=True)
class News:
    """An alert that has to be told: that it is there, that it has grown, or that it is over."""

    id: int
    kind: AlertKind
    key: str
    sentence: str
    number: int
    since: datetime
    cleared_at: datetime | None


def judge_services(
    remembered: Iterable[SignOfLife], alive: Collection[SignOfLife], ended: Collection[str], *, now: datetime
) -> Services:
    """Which processes are gone that did not end on purpose, and that none replaced which started after their last beat.

    Each that started replaces one of its name, wherever it runs; what is silent for less than a minute may come back.
    """
    living = {one.key for one in alive}
    starts: defaultdict[str, list[datetime]] = defaultdict(list)
    for one in alive:
        if one.started is not None:
            starts[one.name].append(one.started)
    dead, forgotten = [], []
    for one in sorted(remembered, key=lambda one: one.beat):
        if one.key in living:
            continue
        successor = next((start for start in sorted(starts[one.name]) if start > one.beat), None)
        if one.key in ended or now - one.seen > FORGOTTEN:
            forgotten.append(one.key)
        elif successor is not None:
            starts[one.name].remove(successor)
            forgotten.append(one.key)
        elif now - one.seen > GRACE:
            dead.append(_dead(one))
    return Services(dead=dead, forgotten=forgotten)


def _dead(one: SignOfLife) -> Condition:
    sentence = f"{one.name} on {one.host} has shown no sign of life since {one.beat:%F %T} UTC: start it again"
    if one.key == REDIS:
        sentence = f"Redis has not answered since {one.seen:%F %T} UTC: messages are lost until it does; start it again"
    return Condition(kind=AlertKind.DEAD_SERVICE, key=one.key, sentence=sentence)


def is_time_to_tell(*, told_at: datetime | None, next_try_at: datetime | None, pace: timedelta, now: datetime) -> bool:
    """Whether the hook may be used now: not more often than the pace, and not while it rests after a failure."""
    return (told_at is None or told_at + pace <= now) and (next_try_at is None or next_try_at <= now)


def text_of(news: Sequence[News]) -> str:
    """One message about all news: how much there is in the first line, then a line for each of the first."""
    new = [one for one in news if one.cleared_at is None]
    over = [one for one in news if one.cleared_at is not None]
    parts = {f"{len(new)} new": new, f"{len(over)} over": over}
    lines = [f"{one.kind}: {one.sentence}" for one in new] + [f"over: {one.kind}: {one.sentence}" for one in over]
    rest = [f"and {len(lines) - _LISTED} more: `ccat alerts`"] if len(lines) > _LISTED else []
    head = "CCAT data center: " + ", ".join(part for part, ones in parts.items() if ones)
    return "\n".join([head, *lines[:_LISTED], *rest])


def message_of(news: Sequence[News]) -> Mapping[str, object]:
    """The same for programs."""
    listed = [
        {
            "event": "raised" if one.cleared_at is None else "cleared",
            "kind": one.kind.value,
            "key": one.key,
            "sentence": one.sentence,
            "number": one.number,
            "since": one.since.isoformat(),
            "cleared_at": one.cleared_at.isoformat() if one.cleared_at else None,
        }
        for one in news[:_LISTED]
    ]
    return {"text": text_of(news), "alerts": listed, "more": max(0, len(news) - _LISTED)}
