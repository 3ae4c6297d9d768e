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
HANGS: Final = timedelta(minutes=5)
"""How long a process that lives may have done nothing: the longest round looks at a million sub-groups."""
FORGOTTEN: Final = timedelta(days=1)
"""After so long a service that never came back was taken away on purpose."""
GROWN: Final = 10
"""What has grown so many times since it was told is told again."""
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
    """Those that are gone, and those that hang."""
    forgotten: Collection[str]
    """Keys of those that need not be remembered."""
    given_up: Collection[str] = ()
    """Keys of those of these that never came back."""


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
    remembered: Iterable[SignOfLife],
    alive: Collection[SignOfLife],
    ended: Collection[str],
    *,
    now: datetime,
    sees_since: datetime | None = None,
) -> Services:
    """Which processes are gone that did not end on purpose, and that none replaced which started after their last beat.

    Each that started replaces one of its name, wherever it runs; what is silent for less than a minute may come back.
    Those that live and have done nothing for long hang, unless they could do nothing until `sees_since`.
    """
    living, starts = {one.key for one in alive}, _starts(alive)
    dead, forgotten, given_up = [_hung(one) for one in alive if _hangs(one, sees_since or now, now)], [], []
    for one in sorted(remembered, key=lambda one: one.beat):
        if one.key in living:
            continue
        successor = next((start for start in sorted(starts.get(one.name, [])) if start > one.beat), None)
        if one.key in ended:
            forgotten.append(one.key)
        elif now - one.seen > FORGOTTEN:
            given_up.append(one.key)
        elif successor is not None:
            starts[one.name].remove(successor)
            forgotten.append(one.key)
        elif now - one.seen > GRACE:
            dead.append(_dead(one))
    return Services(dead=dead, forgotten=[*forgotten, *given_up], given_up=given_up)


def _starts(alive: Iterable[SignOfLife]) -> Mapping[str, list[datetime]]:
    """When the processes of each name started."""
    starts: defaultdict[str, list[datetime]] = defaultdict(list)
    for one in alive:
        if one.started is not None:
            starts[one.name].append(one.started)
    return starts


def _hangs(one: SignOfLife, sees_since: datetime, now: datetime) -> bool:
    return now - max(one.beat, sees_since) > HANGS


def _hung(one: SignOfLife) -> Condition:
    sentence = f"{one.name} on {one.host} hangs since {one.beat:%F %T} UTC: its log says at what; start it again"
    return Condition(kind=AlertKind.DEAD_SERVICE, key=one.key, sentence=sentence)


def _dead(one: SignOfLife) -> Condition:
    sentence = f"{one.name} on {one.host} has shown no sign of life since {one.beat:%F %T} UTC: start it again"
    if one.key == REDIS:
        sentence = f"Redis has not answered since {one.seen:%F %T} UTC: messages are lost until it does; start it again"
    return Condition(kind=AlertKind.DEAD_SERVICE, key=one.key, sentence=sentence)


def is_time_to_tell(*, told_at: datetime | None, next_try_at: datetime | None, pace: timedelta, now: datetime) -> bool:
    """Whether the hook may be used now: not more often than the pace, and not while it rests after a failure."""
    return (told_at is None or told_at + pace <= now) and (next_try_at is None or next_try_at <= now)


def unheard(news: Iterable[News], heard: Mapping[int, News]) -> list[News]:
    """What is new to somebody who has heard of these, by id."""
    return [one for one in news if one.id not in heard or _is_other(one, heard[one.id])]


def _is_other(now: News, before: News) -> bool:
    return now.number >= GROWN * before.number or (now.cleared_at is None) != (before.cleared_at is None)


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
