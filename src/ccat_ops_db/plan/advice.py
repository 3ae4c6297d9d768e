"""What a step should ask its cluster for, judged by what its attempts used."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ccat_ops_db.plan.spaces import size

FEWEST: Final = 5
"""So many attempts have to be measured before anything is judged by them."""
WORTH_IT: Final = 1.25
"""Times as much, or as little, that is worth a change; below that advice would change with every attempt."""
_BRIM: Final = 1.05
"""Times the most that was used, within which what is asked for is too little."""
_OFTEN: Final = 0.05
"""Of attempts that ran out of something, so many show that all need more; fewer are tried again with more."""
_GROWTH: Final = 1.5
"""Times as much as what did not suffice."""
_BUSY: Final = 1.5
"""CPUs for each that was kept busy on average: not all of a job is done by all of them."""
_ALONE: Final = 1.05
"""CPUs that a program keeps busy which uses one at a time, and how it is measured."""
_CLEARLY: Final = 2
"""Times as many CPUs as are of use that are clearly too many."""
_ALMOST: Final = 1 - 1e-9
"""A product of two figures may be too large in its last digit."""
_FIGURES: Final = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
_S_PER_H, _MIN_PER_H = 3600, 60


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a step asks for, as its `resources` say."""

    cpu: int
    """For each of its tasks."""
    memory_gb: float
    time_hours: float
    max_memory_gb: float | None = None
    """Up to which its attempts may grow, where it says so."""
    max_time_hours: float | None = None
    ntasks: int = 1
    nodes: int = 1


@dataclass(frozen=True, kw_only=True)
class Used:
    """What attempts used of something, in the unit in which it is asked for."""

    known: int = 0
    """Attempts that succeeded and of which it is known."""
    usual: float | None = None
    """What 95 of 100 of them did not exceed."""
    most: float | None = None
    """What none of them exceeded."""
    ran_out: int = 0
    """Attempts that it did not suffice for."""
    ran_out_at: float | None = None
    """The most that one of these had."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What attempts used that succeeded or ran out of something; none of the others says what is needed."""

    attempts: int = 0
    memory: Used = Used()
    """In GB."""
    time: Used = Used()
    """In hours."""
    cpu: Used = Used()
    """CPUs that were kept busy, on average over the time of an attempt."""
    cpu_efficiency: float | None = None
    """CPU time as a fraction of what the CPUs could have given that attempts had."""


@dataclass(frozen=True)
class Advice:
    """What should be asked for instead, and why."""

    proposal: Mapping[str, float]
    """Those `resources` that should be different; empty where none should."""
    because: str


@dataclass(frozen=True)
class _Finding:
    """What is to be said of one of the resources."""

    name: str
    because: str
    proposed: float | None = None
    is_open: bool = False
    """Whether something is unknown, or left for people to do."""


@dataclass(frozen=True)
class _Kind:
    """A resource of which a step asks for some, and an attempt that runs out of it for more."""

    name: str
    what: str
    headroom: float
    """Times the most that was ever used."""
    floor: float
    """Nothing below that is proposed."""
    fact: str
    told: Callable[[float], str]
    """How it is said what was used."""
    given: Callable[[float], str]
    """How it is said what was asked for."""
    of: Callable[[Measured], Used]


@dataclass(frozen=True)
class _Request:
    """What a step asks for of a resource."""

    amount: float
    most: float | None
    """Up to which its attempts may grow, where it says so."""
    tasks: int = 1
    """Among which it is divided."""

    @property
    def cap(self) -> float:
        return math.inf if self.most is None else self.most


def gigabytes(amount: float) -> str:
    """So much memory as it was measured, for people."""
    return size(round(amount * 10**9))


def span(hours: float) -> str:
    """So much time, for people: `12 min`."""
    if hours < 1 / _MIN_PER_H:
        return f"{hours * _S_PER_H:.2g} s"
    return f"{hours * _MIN_PER_H:.3g} min" if hours < 1 else f"{hours:.3g} h"


def efficiency(cpu_time_s: float | None, wall_time_s: float | None, cpus: int) -> float | None:
    """CPU time as a fraction of what so many CPUs could have given meanwhile; None where that is not known."""
    return cpu_time_s / (wall_time_s * cpus) if cpu_time_s is not None and wall_time_s else None


_MEMORY: Final = _Kind(
    "memory_gb",
    "memory",
    headroom=1.25,
    floor=0.5,
    fact="its largest of {} attempts used {}",
    told=gigabytes,
    given=lambda amount: f"{amount:g} GB",
    of=lambda measured: measured.memory,
)
_TIME: Final = _Kind(
    "time_hours",
    "time",
    headroom=1.5,
    floor=0.1,
    fact="its longest of {} attempts took {}",
    told=span,
    given=span,
    of=lambda measured: measured.time,
)


def advise(asked: Asked, measured: Measured) -> Advice:
    """What a step should ask for: more where it did not suffice, less where that is worth it.

    Who takes it over, and asks again before anything else was measured, gets no other proposal.
    """
    if measured.attempts < FEWEST:
        return Advice({}, _too_few(measured.attempts))
    found = [
        _amount(_MEMORY, _Request(asked.memory_gb, asked.max_memory_gb, max(asked.ntasks, asked.nodes)), measured),
        _amount(_TIME, _Request(asked.time_hours, asked.max_time_hours), measured),
        *_cpus(asked, measured.cpu),
    ]
    return Advice({one.name: one.proposed for one in found if one.proposed is not None}, _because(found))


def sensible(amount: float) -> float:
    """The next figure, from there upwards, that a person would write: 1, 1.2, 1.5, 2, 2.5, … or a power of ten more."""
    exponent = math.floor(math.log10(amount))
    return next(found for one in _FIGURES if (found := float(f"{one}e{exponent}")) >= amount * _ALMOST)


def _too_few(number: int) -> str:
    if not number:
        return "none of its attempts has succeeded yet"
    return f"too few attempts are measured to judge by: {number} of at least {FEWEST}"


def _amount(kind: _Kind, asked: _Request, measured: Measured) -> _Finding:
    used = kind.of(measured)
    need = _need(kind, measured)
    if need <= asked.amount and (used.known < FEWEST or asked.tasks > 1):
        return _Finding(kind.name, _unknown(kind, used), is_open=True)
    enough = sensible(max(need, kind.floor))
    is_at_the_brim = max(used.most or 0.0, _too_little(kind, measured)) * _BRIM > asked.amount
    little_more = asked.amount * (1 if is_at_the_brim else WORTH_IT)
    is_short = need > asked.amount and enough > little_more
    because, wanted = _fact(kind, asked.amount, measured, is_short=is_short), min(enough, asked.cap)
    is_capped = is_short and wanted < enough
    if is_capped:
        because += f", and `max_{kind.name}` allows no more than {asked.cap:g}: raise that"
    is_worth_it = (is_short and wanted > little_more) or wanted * WORTH_IT < asked.amount
    return _Finding(kind.name, because, wanted if is_worth_it else None, is_open=is_capped)


def _need(kind: _Kind, measured: Measured) -> float:
    """What suffices, as far as is known."""
    most, too_little = kind.of(measured).most or 0.0, _too_little(kind, measured)
    return max(most * kind.headroom, too_little * _GROWTH if too_little >= most else 0.0)


def _too_little(kind: _Kind, measured: Measured) -> float:
    """The most that did not suffice, where that was no exception."""
    used = kind.of(measured)
    return used.ran_out_at or 0.0 if used.ran_out > measured.attempts * _OFTEN else 0.0


def _fact(kind: _Kind, asked: float, measured: Measured, *, is_short: bool) -> str:
    """What was measured, in one sentence: that there was too little, where there still is."""
    used = kind.of(measured)
    most, too_little = used.most or 0.0, _too_little(kind, measured)
    ran_out = f"{used.ran_out:,} of {measured.attempts:,} attempts ran out of {kind.what}"
    if (too_little and too_little >= most and is_short) or not used.known:
        return f"{ran_out}, and had {kind.given(used.ran_out_at or 0.0)} or less"
    beside = f" of {kind.given(asked)}" if most <= asked else f", and {kind.given(asked)} is asked for"
    fact = kind.fact.format(f"{used.known:,}", kind.told(most)) + beside
    return f"{fact}; {ran_out}, and are tried again with more" if used.ran_out and not too_little else fact


def _unknown(kind: _Kind, used: Used) -> str:
    if used.known >= FEWEST:
        return f"how much {kind.what} several tasks used together is not measured"
    if used.known:
        return f"{kind.what} is known of {used.known} attempts only, of at least {FEWEST}"
    return f"how much {kind.what} it used is known of none of its attempts"


def _cpus(asked: Asked, used: Used) -> Iterator[_Finding]:
    """Fewer, where it is clear that most of them were idle."""
    if used.most is None or used.known < FEWEST:
        return
    busy = used.most / asked.ntasks
    wanted = 1 if busy <= _ALONE else math.ceil(busy * _BUSY)
    if wanted * _CLEARLY <= asked.cpu:
        because = f"at most {used.most:.1f} of {asked.cpu * asked.ntasks} CPUs were busy on average"
        yield _Finding("cpu", because, wanted)


def _because(found: Sequence[_Finding]) -> str:
    """What is said of all together: first what should be changed, then what is open, and else what is right."""
    changes = [one.because for one in found if one.proposed is not None]
    opens = [one.because for one in found if one.proposed is None and one.is_open]
    right = "; ".join(one.because for one in found if one.proposed is None and not one.is_open)
    if changes or not right:
        return "; ".join([*changes, *opens])
    return "; ".join([*opens, f"{'the rest is ' if opens else ''}right as it is: {right}"])
