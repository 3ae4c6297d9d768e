from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ccat_data_transfer.destinations import Destination, Turns, preferred

archives = st.lists(
    st.builds(
        Destination,
        location_id=st.integers(1, 20),
        site_id=st.integers(1, 4),
        priority=st.integers(0, 2),
        newest=st.integers(0, 50),
    ),
    min_size=1,
    unique_by=lambda one: one.location_id,
)


def dealt(places: list[Destination], number: int, *, first: int) -> tuple[list[int], list[Destination]]:
    """Where so many packages go, and the archives afterwards: transfers are numbered as they are made."""
    turns = Turns(places)
    gone = [one.location_id for _ in range(number) if (one := turns.take(places)) is not None]
    last = {place: first + index for index, place in enumerate(gone)}
    return gone, [replace(one, newest=last.get(one.location_id, one.newest)) for one in places]


@given(archives, st.lists(st.integers(1, 5), max_size=6))
def test_packages_go_where_they_went_one_by_one_however_many_are_planned_together(
    places: list[Destination], batches: list[int]
) -> None:
    together, alone = list[int](), list[int]()
    now, first = places, 100
    for number in batches:
        gone, now = dealt(now, number, first=first)
        together, first = together + gone, first + number
    now = places
    for index in range(sum(batches)):
        gone, now = dealt(now, 1, first=100 + index)
        alone += gone
    assert together == alone


@given(archives, st.integers(0, 40))
def test_no_site_gets_two_more_than_another_and_each_gets_its_preferred_archive(
    places: list[Destination], number: int
) -> None:
    gone, _ = dealt(places, number, first=100)
    site = {one.location_id: one.site_id for one in places}
    counts = Counter(site[one] for one in gone)
    each = [counts[one] for one in set(site.values())]
    assert max(each) - min(each) <= 1
    for one in set(gone):
        best = preferred(place for place in places if place.site_id == site[one])
        assert best is not None
        assert best.location_id == one


def test_without_a_way_nothing_is_dealt() -> None:
    assert Turns([]).take([]) is None
