"""What the demo tells of raw packages on their way into the archive."""

from collections.abc import Sequence

from ccat.demo.crossing import Package, crossing_deviations, crossing_sentences, package_of, route_sentence

ARCHIVED = ("ccat/buffer", "cologne/buffer", "cologne/lta")
STAGED = (*ARCHIVED, "cologne/ramses")


def package(number: int, parcel: str | None = "crossing-1", copies: Sequence[str] = ARCHIVED) -> Package:
    return Package(
        id=number, name=f"package-{number}", size_bytes=20_000_000, transfer_package=parcel, copies=list(copies)
    )


def test_each_transfer_package_is_told_with_what_it_brought() -> None:
    two = [package(1), package(2, copies=STAGED)]
    [first, second] = crossing_sentences([*two, package(3, "crossing-2")])
    way = "sent from ccat/buffer to cologne/buffer, verified there, archived at cologne/lta"
    assert first == (f"transfer package crossing-1: 2 raw packages, 40 MB, {way}; 1 staged at cologne/ramses so far")
    assert second == (f"transfer package crossing-2: 1 raw package, 20 MB, {way}; none staged at cologne/ramses so far")


def test_what_crossed_and_is_in_the_archive_is_as_expected() -> None:
    assert crossing_deviations([package(1), package(2, copies=STAGED)]) == []


def test_what_did_not_cross_or_is_not_in_the_archive_is_told() -> None:
    lost = [package(1, None), package(2, copies=["ccat/buffer", "cologne/buffer"]), package(3, None, copies=[])]
    assert crossing_deviations(lost) == [
        "raw package package-1: expected a transfer package that it crossed in, found none",
        "raw package package-2: expected a copy at cologne/lta, found copies at ccat/buffer, cologne/buffer",
        "raw package package-3: expected a transfer package that it crossed in, found none",
        "raw package package-3: expected a copy at cologne/lta, found copies at no place",
    ]


def test_a_package_whose_size_is_not_known_yet_counts_nothing() -> None:
    row = {"id": 7, "name": "new", "size_bytes": None, "transfer_package": None, "copies": [], "state": "waiting"}
    assert package_of(row) == Package(id=7, name="new", size_bytes=0, transfer_package=None, copies=[])


def test_a_route_is_told_with_when_it_sends() -> None:
    told = route_sentence({"name": "ccat_to_cologne", "package_bytes": 10**12, "package_wait_seconds": 600})
    assert told.endswith("each is sent once it has 1.0 TB, or its oldest data waited 10 min for more")
