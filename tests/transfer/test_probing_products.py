"""An archive that has nothing but products which are directories is read like any other."""

from collections.abc import Iterator

import pytest

from ccat_data_transfer.verbs.probing import probe
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.reading import note_unreadable
from tests.transfer.reductions import Reductions
from tests.transfer.support import Observatory

ARCHIVE = "cologne/lta"


@pytest.fixture
def reductions(observatory: Observatory) -> Iterator[Reductions]:
    made = Reductions(observatory)
    yield made
    made.end()


def look(reductions: Reductions) -> str | None:
    """What keeps everybody from reading at the archive, as its worker looks and writes it down."""
    location_id = reductions.observatory.location_id(ARCHIVE)
    probe(reductions.engine, location_id, by="worker")
    with transaction(reductions.engine) as session:
        return find(session, LOCATION, ARCHIVE).unreadable


def test_an_archive_of_trees_that_is_gone_is_seen_and_stays_so_until_it_is_back(reductions: Reductions) -> None:
    run_id = reductions.make({"science/cube.zarr/0.0": b"zero"})
    reductions.archive()
    assert reductions.copies(run_id, ARCHIVE).keys() == {"science/cube.zarr"}
    assert look(reductions) is None
    place = reductions.observatory.directory(ARCHIVE)
    place.rename(place.with_name("away"))
    for _ in range(2):
        assert look(reductions) is not None
    place.with_name("away").rename(place)
    assert look(reductions) is None, "its listing is read"


def test_what_a_reader_saw_stays_where_no_copy_is_verified(reductions: Reductions) -> None:
    run_id = reductions.make({"science/cube.zarr/0.0": b"zero"})
    reductions.archive()
    [copy] = reductions.copies(run_id, ARCHIVE).values()
    with transaction(reductions.engine) as session:
        session.merge(copy).verified_at = None
        note_unreadable(session, copy.data_location_id, "The bucket is gone.", by="worker")
    assert look(reductions) == "The bucket is gone."
