"""Which way data take: what `routing.way` says of one package is what the database says of all."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from ccat_data_transfer.routing import (
    MOST_TOGETHER,
    Hop,
    NoWay,
    Place,
    Route,
    Straight,
    Waiting,
    together,
    way,
)
from ccat_data_transfer.verbs.ways import is_straight, the_map
from ccat_ops_db import models
from ccat_ops_db.states import LocationType, Mover, PackageState, RouteType, Status
from tests.transfer.support import Observatory

NOW = datetime(2026, 4, 1, 12, tzinfo=UTC)
CCAT, COLOGNE, US = 1, 2, 3
BUFFERS = {CCAT: 10, COLOGNE: 20, US: 30}
BUFFER = Place(location_id=10, site_id=CCAT, site="ccat")
ARCHIVE = Place(location_id=21, site_id=COLOGNE, site="cologne")


def route(number: int, kind: RouteType = RouteType.DIRECT, **values: Any) -> Route:
    sites: dict[str, Any] = {"origin_site_id": CCAT, "destination_site_id": COLOGNE}
    return Route(id=number, type=kind, package_bytes=100, package_wait=timedelta(minutes=10), **(sites | values))


def test_what_is_at_the_site_of_its_archive_needs_no_route() -> None:
    here = Place(location_id=20, site_id=COLOGNE, site="cologne")
    assert way([], {}, origin=here, destination=ARCHIVE) == Straight()


def test_without_a_route_nothing_goes_and_the_remedy_is_told() -> None:
    found = way([route(1, origin_site_id=US)], BUFFERS, origin=BUFFER, destination=ARCHIVE)
    assert found == NoWay("No route leads from site ccat to cologne: `ccat route add` makes one.")


def test_a_direct_route_leads_to_the_buffer_of_the_site_or_into_its_archive_where_there_is_none() -> None:
    direct = route(1)
    assert way([direct], BUFFERS, origin=BUFFER, destination=ARCHIVE) == Hop(direct, 20)
    assert way([direct], {CCAT: 10}, origin=BUFFER, destination=ARCHIVE) == Straight()


def test_a_relay_leads_to_the_buffer_on_the_way_and_nowhere_without_one() -> None:
    relay = route(1, RouteType.RELAY, via_site_id=US)
    assert way([relay], BUFFERS, origin=BUFFER, destination=ARCHIVE) == Hop(relay, 30)
    assert isinstance(way([relay], {COLOGNE: 20}, origin=BUFFER, destination=ARCHIVE), NoWay)


def test_relays_that_send_on_to_one_another_lead_nowhere() -> None:
    there = route(1, RouteType.RELAY, via_site_id=US)
    back = route(2, RouteType.RELAY, origin_site_id=US, via_site_id=CCAT)
    found = way([there, back], BUFFERS, origin=BUFFER, destination=ARCHIVE)
    assert found == NoWay(
        "The routes from site ccat to cologne lead in a circle: `ccat routes` lists them, and "
        "`ccat route set NAME --inactive` takes one of them out."
    )
    onward = route(3, RouteType.CUSTOM, origin_site_id=US, origin_id=30, destination_id=20)
    assert way([there, back, onward], BUFFERS, origin=BUFFER, destination=ARCHIVE) == Hop(there, 30)
    assert way([there], BUFFERS, origin=BUFFER, destination=ARCHIVE) == Hop(there, 30)


def test_a_custom_route_comes_before_all_others_for_its_locations_only() -> None:
    into_the_archive = route(3, RouteType.CUSTOM, origin_id=10, destination_id=21)
    to_a_buffer = route(2, RouteType.CUSTOM, origin_id=10, destination_id=22)
    of_another = route(2, RouteType.CUSTOM, origin_id=11, destination_id=21)
    direct = route(1)
    assert way([direct, into_the_archive], BUFFERS, origin=BUFFER, destination=ARCHIVE) == Straight()
    assert way([direct, to_a_buffer], BUFFERS, origin=BUFFER, destination=ARCHIVE) == Hop(to_a_buffer, 22)
    assert way([direct, of_another], BUFFERS, origin=BUFFER, destination=ARCHIVE) == Hop(direct, 20)


def test_a_custom_route_into_another_archive_is_not_taken() -> None:
    into_another = route(1, RouteType.CUSTOM, origin_id=10, destination_id=22, leads_to_buffer=False)
    direct = route(2)
    assert way([into_another, direct], BUFFERS, origin=BUFFER, destination=ARCHIVE) == Hop(direct, 20)
    assert isinstance(way([into_another], BUFFERS, origin=BUFFER, destination=ARCHIVE), NoWay)
    itself = Place(location_id=22, site_id=COLOGNE, site="cologne")
    assert way([into_another, direct], BUFFERS, origin=BUFFER, destination=itself) == Straight()


def waiting(*sizes: int, since: datetime = NOW) -> list[Waiting]:
    return [Waiting(transfer_id=number, size_bytes=size, since=since) for number, size in enumerate(sizes)]


def test_what_travels_the_same_way_waits_until_it_is_enough_or_the_first_has_waited_for_long() -> None:
    some = waiting(60, 30, 20, 40)
    assert [[one.transfer_id for one in parcel] for parcel in together(some, route(1), now=NOW)] == [[0, 1, 2]]
    later = NOW + timedelta(minutes=10)
    assert [[one.transfer_id for one in parcel] for parcel in together(some, route(1), now=later)] == [[0, 1, 2], [3]]
    assert list(together([], route(1), now=later)) == []


@given(st.lists(st.tuples(st.integers(0, 150), st.integers(0, 1200)), max_size=40))
def test_everything_is_sent_once_or_waits_and_no_parcel_could_do_with_less(given_: list[tuple[int, int]]) -> None:
    some = [
        Waiting(transfer_id=number, size_bytes=size, since=NOW - timedelta(seconds=age))
        for number, (size, age) in enumerate(given_)
    ]
    parcels = list(together(some, route(1), now=NOW))
    sent = [one for parcel in parcels for one in parcel]
    assert len({one.transfer_id for one in sent}) == len(sent)
    assert sum(one.size_bytes for one in some if one not in sent) < 100
    assert all(one.since > NOW - timedelta(minutes=10) for one in some if one not in sent)
    for parcel in parcels:
        assert 0 < len(parcel) <= MOST_TOGETHER
        assert sum(one.size_bytes for one in parcel[:-1]) < 100


@pytest.fixture
def session(observatory: Observatory) -> Iterator[Session]:
    """A transaction that leaves nothing, in which there is one archive transfer."""
    package_id = observatory.observe({"a.fits": b"a"})
    with Session(observatory.engine) as session, session.begin() as everything:
        session.execute(sa.delete(models.DataTransferRoute))
        site = models.Site(short_name="us", name="Cornell")
        cologne = session.scalars(sa.select(models.Site).filter_by(short_name="cologne")).one()
        kinds = {"arrivals": LocationType.BUFFER, "tapes": LocationType.LONG_TERM_ARCHIVE}
        for at in (site, cologne):
            for name, kind in kinds.items():
                path = f"/nowhere/{at.short_name}/{name}"
                session.add(models.DiskDataLocation(site=at, name=name, location_type=kind, path=path))
        session.flush()
        assert session.get_one(models.RawDataPackage, package_id).state is PackageState.WAITING
        yield session
        everything.rollback()


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_database_calls_straight_what_the_rule_calls_straight_and_all_else_goes_to_a_buffer(
    session: Session, data: st.DataObject
) -> None:
    with session.begin_nested() as nested:
        locations = session.scalars(sa.select(models.DataLocation).order_by(models.DataLocation.id)).all()
        for buffer in (one for one in locations if one.location_type is LocationType.BUFFER):
            buffer.active = data.draw(st.booleans())
        origin = data.draw(st.sampled_from([one for one in locations if one.location_type is LocationType.BUFFER]))
        archives = [one for one in locations if one.location_type is LocationType.LONG_TERM_ARCHIVE]
        archive = data.draw(st.sampled_from(archives))
        for number in range(data.draw(st.integers(0, 4))):
            session.add(drawn_route(data, number, list(locations), often=(origin, archive)))
        session.flush()
        transfer = session.scalars(sa.select(models.LongTermArchiveTransfer)).one()
        transfer.origin_id, transfer.destination_id, transfer.status = origin.id, archive.id, Status.PENDING
        session.flush()
        here = the_map(session)
        found = way(here.routes, here.buffers, origin=here.places[origin.id], destination=here.places[archive.id])
        told = session.scalar(sa.select(is_straight()).select_from(models.LongTermArchiveTransfer))
        assert told is isinstance(found, Straight)
        if isinstance(found, Hop):
            receives = session.get_one(models.DataLocation, found.destination_id)
            assert (receives.location_type, receives.active) == (LocationType.BUFFER, True)
        nested.rollback()


def drawn_route(
    data: st.DataObject,
    number: int,
    locations: list[models.DataLocation],
    *,
    often: tuple[models.DataLocation, models.DataLocation],
) -> models.DataTransferRoute:
    sites = sorted({one.site_id for one in locations})
    kind = data.draw(st.sampled_from(RouteType))
    pairs = [(a, b) for a in sites for b in sites if a != b]
    asked = (often[0].site_id, often[1].site_id)
    origin, destination = data.draw(st.sampled_from([*pairs, *([asked] * 6 if asked in pairs else [])]))
    values: dict[str, int] = {}
    if kind is RouteType.RELAY:
        values["via_site_id"] = next(one for one in sites if one not in {origin, destination})
    if kind is RouteType.CUSTOM:
        starts = [one.id for one in [*locations, *[often[0]] * 6] if one.site_id == origin]
        values["origin_id"] = data.draw(st.sampled_from(starts))
        values["destination_id"] = data.draw(
            st.sampled_from([one.id for one in locations if one.site_id == destination])
        )
    return models.DataTransferRoute(
        name=f"route-{number}",
        origin_site_id=origin,
        destination_site_id=destination,
        route_type=kind,
        method=Mover.COPY,
        active=data.draw(st.booleans()),
        **values,
    )
