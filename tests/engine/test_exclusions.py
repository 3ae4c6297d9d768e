"""What people know to be bad is out, whatever comes first: the word, the package, or the time of its scan."""

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import UnknownName
from ccat_ops_db.nights import night_of, observing_night
from ccat_ops_db.session import transaction
from ccat_ops_db.states import RunReason
from ccat_ops_db.verbs.excluding import (
    BadData,
    EmptyTime,
    NightAndTime,
    NothingNamed,
    NoTime,
    OtherInstrument,
    PixelWithoutName,
    UnknownExclusion,
    exclude,
    exclude_package,
    lift,
    readmit_package,
)
from ccat_ops_db.verbs.foreseeing import Caused
from ccat_ops_db.verbs.reasons import ReasonMissing
from ccat_ops_db.verbs.weighing import weigh
from tests.engine.conftest import OpsDb
from tests.engine.database import archive, plan
from tests.engine.history import History

DAWN = datetime(2026, 4, 5, 9, 0, tzinfo=UTC)
WHO = {"because": "wet window", "by": "Ann"}
MAP = {"key": "grid", "group_by": ["source"]}
_Package, _Exclusion, _Scan = models.RawDataPackage, models.Exclusion, models.ExecutedObsUnit


def at(minutes: float) -> datetime:
    return DAWN + timedelta(minutes=minutes)


@dataclass(frozen=True)
class Sky:
    """An installation where scans are taken, one package each."""

    engine: sa.Engine

    def scan(
        self, session: Session, *, start: float, end: float | None, module: str = "CHAI/LFA", name: str = ""
    ) -> int:
        if not session.scalar(sa.select(models.ObsUnit.id).filter_by(name="M17")):
            plan(session, "M17", source="M17")
        number = archive(session, name or str(uuid.uuid4()), observation="M17", at=at(start), module=module)
        ended = None if end is None else at(end)
        session.execute(sa.update(_Scan).where(_Scan.id == scan_of(session, number)).values(ended_at=ended))
        return number

    def take(self, start: float, end: float | None, module: str = "CHAI/LFA") -> int:
        with transaction(self.engine) as session:
            return self.scan(session, start=start, end=end, module=module)

    def exclude(self, begins: float | None, ends: float | None, *modules: str, pixels: tuple[str, ...] = ()) -> int:
        with transaction(self.engine) as session:
            [made] = exclude(session, bad(begins, ends, *modules, pixels=pixels), **WHO)
            return made.id

    def lift(self, number: int) -> bool:
        with transaction(self.engine) as session:
            return lift(session, number, because="it dried", now=DAWN, by="Ben").held

    def out(self) -> set[int]:
        with transaction(self.engine) as session:
            return set(session.scalars(sa.select(_Package.id).where(_Package.excluded_at.is_not(None))))

    def pixels(self, number: int) -> list[str] | None:
        with transaction(self.engine) as session:
            return session.get_one(_Package, number).excluded_pixels


def bad(begins: float | None, ends: float | None, *modules: str, pixels: tuple[str, ...] = ()) -> BadData:
    return BadData(
        instrument=None if modules else "CHAI",
        modules=modules,
        begins_at=None if begins is None else at(begins),
        ends_at=None if ends is None else at(ends),
        pixels=pixels,
    )


def scan_of(session: Session, package_id: int) -> uuid.UUID:
    return session.get_one(_Package, package_id).executed_obs_unit_id


@pytest.fixture
def sky(ops_db: sa.Engine) -> Sky:
    return Sky(ops_db)


# The rule

MINUTES = st.integers(0, 6)


@dataclass(frozen=True)
class Told:
    """An exclusion, a scan and its package, in minutes and names."""

    begins: int | None
    ends: int | None
    module: str | None
    start: int
    end: int | None
    of: str

    def matches(self) -> bool:
        """Some of the scan was taken in that time: its start always, and what follows until before its end."""
        last = self.start if self.end is None or self.end == self.start else self.end - 0.5
        starts_in_time = self.ends is None or self.start < self.ends
        return starts_in_time and (self.begins is None or last >= self.begins) and self.module in {None, self.of}


def is_possible(one: Told) -> bool:
    is_time = one.begins is None or one.ends is None or one.begins < one.ends
    is_said = one.begins is not None or one.ends is not None
    return is_time and is_said and (one.end is None or one.start <= one.end)


TOLD: st.SearchStrategy[Told] = st.builds(
    Told,
    begins=st.none() | MINUTES,
    ends=st.none() | MINUTES,
    module=st.sampled_from([None, "CHAI/LFA", "CHAI/HFA"]),
    start=MINUTES,
    end=st.none() | MINUTES,
    of=st.sampled_from(["CHAI/LFA", "CHAI/HFA", "Prime-Cam/280GHz"]),
).filter(is_possible)


@settings(max_examples=50)
@given(TOLD, st.permutations(["exclude", "archive", "correct"]))
def test_a_scan_is_out_if_some_of_it_was_taken_in_that_time_by_that_module_in_whatever_order_it_comes_to_be_known(
    rule: tuple[sa.Connection, Sky], told: Told, order: list[str]
) -> None:
    connection, sky = rule
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        found: list[int] = []

        def archived() -> None:
            found.append(sky.scan(session, start=-100, end=-100, module=told.of))
            if "correct" in order[: order.index("archive")]:
                corrected()

        def corrected() -> None:
            for number in found:
                ended = None if told.end is None else at(told.end)
                of_package = sa.update(_Scan).where(_Scan.id == scan_of(session, number))
                session.execute(of_package.values(started_at=at(told.start), ended_at=ended))

        acts = {
            "exclude": lambda: exclude(session, bad(told.begins, told.ends, *filter(None, [told.module])), **WHO),
            "archive": archived,
            "correct": corrected,
        }
        for act in order:
            acts[act]()
        in_chai = told.of.startswith("CHAI/")
        excluded = session.scalar(sa.select(_Package.excluded_at.is_not(None)).where(_Package.id == found[0]))
        session.rollback()
    assert excluded == (told.matches() and in_chai)


@pytest.fixture(scope="module")
def rule(clean_ops_db: OpsDb) -> Iterator[tuple[sa.Connection, Sky]]:
    with clean_ops_db() as engine, engine.connect() as connection, connection.begin():
        yield connection, Sky(engine)


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.floats(-180, 180))
def test_a_night_holds_the_moments_of_that_night_and_no_others(evening: date, longitude: float) -> None:
    begins, ends = night_of(evening, longitude)
    instant = timedelta(seconds=1)
    assert {observing_night(one, longitude) for one in (begins + instant, ends - instant)} == {evening}
    assert observing_night(begins - instant, longitude) == evening - timedelta(days=1)
    assert observing_night(ends + instant, longitude) == evening + timedelta(days=1)


# What holds, and what does not any more


def test_lifting_lets_in_again_what_no_other_exclusion_keeps_out(sky: Sky) -> None:
    early, late = sky.take(0, 1), sky.take(10, 11)
    first, second = sky.exclude(0, None), sky.exclude(5, None, "CHAI/LFA")
    assert sky.out() == {early, late}
    assert sky.lift(first)
    assert sky.out() == {late}
    assert sky.lift(second)
    assert not sky.lift(second)
    assert sky.out() == set()


def test_a_package_says_who_excluded_it_first_and_why_and_by_which_exclusion(sky: Sky) -> None:
    package = sky.take(0, 1)
    number = sky.exclude(0, 1)
    with transaction(sky.engine) as session:
        exclude_package(session, package, because="clouds", by="Ben")
        told = partial(session.scalar, sa.select(_Package.excluded_because).filter_by(id=package))
        assert told() == f"wet window (Ann; exclusion {number})"
        lift(session, number, because="it dried", now=DAWN, by="Ben")
        assert str(told()).startswith("clouds (Ben; exclusion ")
        assert len(readmit_package(session, package, because="fog", now=DAWN, by="Ben")) == 1
        assert told() is None


def test_what_is_lifted_stays_on_record_with_who_lifted_it_and_why(sky: Sky) -> None:
    sky.lift(sky.exclude(0, 1))
    with transaction(sky.engine) as session:
        [kept] = session.scalars(sa.select(_Exclusion))
    assert (kept.what, kept.because, kept.by) == ("CHAI", "wet window", "Ann")
    assert (kept.lifted_at, kept.lifted_because, kept.lifted_by) == (DAWN, "it dried", "Ben")


def test_pixels_of_several_exclusions_come_together_and_the_package_stays_in(sky: Sky) -> None:
    package = sky.take(0, 1)
    first = sky.exclude(0, 5, "CHAI/LFA", pixels=("7", "3"))
    sky.exclude(0, 9, pixels=("7", "12"))
    assert (sky.out(), sky.pixels(package)) == (set(), ["12", "3", "7"])
    sky.lift(first)
    assert sky.pixels(package) == ["12", "7"]


def test_a_package_that_turns_out_to_be_of_another_scan_is_judged_by_that(sky: Sky) -> None:
    good, spoilt = sky.take(0, 1), sky.take(10, 11)
    sky.exclude(5, 20)
    with transaction(sky.engine) as session:
        moved = sa.update(_Package).where(_Package.id == good)
        session.execute(moved.values(executed_obs_unit_id=scan_of(session, spoilt), part=2))
    assert sky.out() == {good, spoilt}


def test_a_module_that_turns_out_to_be_of_another_instrument_is_judged_by_that(sky: Sky) -> None:
    package = sky.take(0, 1, "Prime-Cam/280GHz")
    sky.exclude(0, 1)
    with transaction(sky.engine) as session:
        chai = sa.select(models.Instrument.id).filter_by(name="CHAI").scalar_subquery()
        prime = sa.select(models.Instrument.id).filter_by(name="Prime-Cam").scalar_subquery()
        module = sa.update(models.InstrumentModule).where(models.InstrumentModule.name == "280GHz")
        session.execute(module.values(instrument_id=chai))
        assert session.get_one(_Package, package).excluded_at is not None
        session.execute(module.values(instrument_id=prime))
    assert sky.out() == set()


def test_a_thousand_packages_are_taken_out_by_a_handful_of_statements(sky: Sky) -> None:
    sky.take(0, 1)
    with transaction(sky.engine) as session:
        more = sa.text(
            "INSERT INTO raw_data_package (executed_obs_unit_id, instrument_module_id, part, name) "
            "SELECT executed_obs_unit_id, instrument_module_id, n, 'p' || n FROM raw_data_package, "
            "generate_series(2, 1000) n"
        )
        session.execute(more)
    number = sky.exclude(0, 1)
    assert len(sky.out()) == 1000
    sky.lift(number)
    assert sky.out() == set()


# One beside the other: whoever comes second sees what the first did


def meanwhile(sky: Sky, first: Callable[[Session], object], second: Callable[[Session], object]) -> None:
    """Have the second begin while the first is not committed; it may have to wait."""
    began = threading.Event()

    def other() -> None:
        with transaction(sky.engine) as session:
            session.execute(sa.select(1))
            began.set()
            second(session)

    thread = threading.Thread(target=other)
    with transaction(sky.engine) as session:
        first(session)
        thread.start()
        began.wait()
        thread.join(0.2)
    thread.join(20)
    assert not thread.is_alive()


def excluding(session: Session) -> None:
    exclude(session, bad(5, 20), **WHO)


def ending(session: Session, scan: uuid.UUID) -> None:
    session.execute(sa.update(_Scan).where(_Scan.id == scan).values(ended_at=at(10)))


def adding(session: Session, scan: uuid.UUID) -> None:
    module = sa.select(models.InstrumentModule.id).filter_by(name="HFA").scalar_subquery()
    values = {"executed_obs_unit_id": scan, "instrument_module_id": module, "name": "late"}
    session.execute(sa.insert(_Package).values(values))


@pytest.mark.parametrize("is_first", [True, False])
def test_a_package_that_is_planned_while_its_time_is_excluded_is_out(sky: Sky, *, is_first: bool) -> None:
    planning = partial(sky.scan, start=10, end=11)
    acts = (planning, excluding) if is_first else (excluding, planning)
    meanwhile(sky, *acts)
    assert len(sky.out()) == 1


@pytest.mark.parametrize("is_first", [True, False])
def test_a_scan_that_ends_while_its_time_is_excluded_is_out(sky: Sky, *, is_first: bool) -> None:
    package = sky.take(0, None)
    with transaction(sky.engine) as session:
        end = partial(ending, scan=scan_of(session, package))
    meanwhile(sky, *((end, excluding) if is_first else (excluding, end)))
    assert sky.out() == {package}


@pytest.mark.parametrize("is_first", [True, False])
def test_a_package_that_is_planned_while_its_scan_is_corrected_is_judged_by_the_corrected_time(
    sky: Sky, *, is_first: bool
) -> None:
    package = sky.take(0, None)
    sky.exclude(5, 20)
    with transaction(sky.engine) as session:
        scan = scan_of(session, package)
    acts = [partial(adding, scan=scan), partial(ending, scan=scan)]
    meanwhile(sky, *(acts if is_first else reversed(acts)))
    assert len(sky.out()) == 2


@pytest.mark.parametrize("is_first", [True, False])
def test_a_package_that_is_taken_out_while_the_exclusion_of_its_time_is_lifted_stays_out(
    sky: Sky, *, is_first: bool
) -> None:
    package, number = sky.take(10, 11), sky.exclude(5, 20)

    def lifting(session: Session) -> None:
        lift(session, number, because="it dried", now=DAWN, by="Ben")

    def taking_out(session: Session) -> None:
        exclude_package(session, package, because="clouds", by="Ben")

    meanwhile(sky, *((lifting, taking_out) if is_first else (taking_out, lifting)))
    assert sky.out() == {package}
    with transaction(sky.engine) as session:
        assert str(session.get_one(_Package, package).excluded_because).startswith("clouds (Ben;")


def test_of_two_exclusions_at_once_each_is_heeded(sky: Sky) -> None:
    package = sky.take(10, 11)
    meanwhile(
        sky,
        lambda session: exclude(session, bad(5, 20, pixels=("3",)), **WHO),
        lambda session: exclude_package(session, package, because="noise", by="Ben", pixels=["7"]),
    )
    assert sky.pixels(package) == ["3", "7"]


def test_packages_of_other_people_are_planned_while_one_package_is_taken_out(sky: Sky) -> None:
    package = sky.take(10, 11)
    with transaction(sky.engine) as session:
        exclude_package(session, package, because="clouds", by="Ben")
        assert sky.take(0, 1)  # though the other is not committed


# What is refused


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (BadData(begins_at=DAWN), NothingNamed, "Say of which instrument data are bad"),
        (BadData(instrument="CHAJ", begins_at=DAWN), UnknownName, "Did you mean `CHAI`?"),
        (BadData(modules=["CHAI/LFB"], begins_at=DAWN), UnknownName, "Did you mean `CHAI/LFA`?"),
        (
            BadData(instrument="Prime-Cam", modules=["CHAI/LFA"], begins_at=DAWN),
            OtherInstrument,
            "is not of instrument",
        ),
        (BadData(instrument="CHAI"), NoTime, "`--from` and `--to`, one of which may be left out"),
        (BadData(instrument="CHAI", begins_at=DAWN, ends_at=DAWN), EmptyTime, "is not before `--to 2026-04-05T09:00"),
        (BadData(instrument="CHAI", night=date(2026, 4, 4), ends_at=DAWN), NightAndTime, "names a time already"),
        (BadData(instrument="CHAI", begins_at=DAWN, pixels=["7", " "]), PixelWithoutName, "name a pixel"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_write(
    sky: Sky, wrong: BadData, error: type[Exception], said: str
) -> None:
    with transaction(sky.engine) as session, pytest.raises(error) as refused:
        exclude(session, wrong, **WHO)
    assert said in str(refused.value)


def test_a_reason_is_needed_and_an_exclusion_that_there_is(sky: Sky) -> None:
    number = sky.exclude(0, 1)
    with transaction(sky.engine) as session:
        with pytest.raises(ReasonMissing, match="Nothing was excluded"):
            exclude(session, bad(0, 1), because=" ", by="Ann")
        with pytest.raises(ReasonMissing, match="Nothing was lifted"):
            lift(session, number, because="", now=DAWN, by="Ann")
        with pytest.raises(UnknownExclusion, match="There is no exclusion 4711"):
            lift(session, 4711, because="x", now=DAWN, by="Ann")


# What follows


@pytest.fixture
def mapped(fresh_history: Callable[[], History]) -> History:
    """A map of M17, of two scans an hour apart, which was made."""
    history = fresh_history()
    history.define(MAP)
    history.archive(until=at(60))
    history.archive(until=at(0))
    history.settle()
    return history


def keep_out(history: History, begins: float, ends: float, *pixels: str) -> int:
    def work(session: Session) -> int:
        [made] = exclude(session, bad(begins, ends, pixels=pixels), **WHO)
        return made.id

    return history.session(work)


def let_in(history: History, number: int) -> None:
    history.session(lambda session: lift(session, number, because="it dried", now=history.now, by="Ben"))


def test_a_map_is_made_again_without_what_is_bad_and_says_why_and_again_with_it(mapped: History) -> None:
    number = keep_out(mapped, 30, 90)
    told = mapped.gap()["grid M17"]
    assert (told.reason, told.because) == (
        RunReason.INPUTS_CHANGED,
        f"excluded since run {mapped.runs()[0].id}: p1: wet window (Ann; exclusion {number})",
    )
    assert mapped.settle() == ["grid"]
    mapped.archive(until=at(40))
    assert mapped.settle() == []
    let_in(mapped, number)
    assert mapped.settle() == ["grid"]
    assert mapped.rebuilt() == 0


def test_a_map_is_made_again_when_pixels_are_excluded_and_when_they_are_let_in(mapped: History) -> None:
    number = keep_out(mapped, 30, 90, "7", "12")
    told = mapped.gap()["grid M17"]
    assert (told.reason, told.because) == (
        RunReason.INPUTS_CHANGED,
        f"other pixels are excluded than for run {mapped.runs()[0].id}, now of p1: 12, 7",
    )
    assert mapped.settle() == ["grid"]
    let_in(mapped, number)
    assert mapped.gap()["grid M17"].because.endswith("now of p1: none")
    assert mapped.settle() == ["grid"]
    assert mapped.rebuilt() == 0
    first, _, third = mapped.runs()
    assert first.input_digest == third.input_digest


def test_what_was_made_of_bad_data_only_is_orphaned(mapped: History) -> None:
    keep_out(mapped, -90, 90)
    assert mapped.settle() == []
    assert [str(one) for one in mapped.products()] == ["orphaned"]


def test_what_it_would_mean_is_told_before_and_nothing_of_it_stays(mapped: History) -> None:
    def work(session: Session) -> list[int]:
        return [one.id for one in exclude(session, bad(30, 90), **WHO)]

    weighed = mapped.session(lambda session: weigh(session, lambda: work(session), now=mapped.now, by="Ann"))
    assert (weighed.concerned.packages, weighed.concerned.out) == (1, 1)
    assert [(one.pipeline, one.step, one.sub_groups, one.emptied) for one in weighed.sub_groups] == [
        ("it", "grid", 1, 0)
    ]
    assert weighed.foreseen.runs == [Caused("it", "grid", RunReason.INPUTS_CHANGED, 1)]
    assert mapped.session(lambda session: session.scalars(sa.select(_Exclusion.id)).all()) == []
    assert mapped.settle() == []
