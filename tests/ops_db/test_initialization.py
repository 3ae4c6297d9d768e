from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, MODULE, OBS_MODE, find
from ccat_ops_db.models import Base
from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.initialization import initialize, reference_data

LOCATIONS = {
    "ccat/chai_raw_data": ("source", "/storage/ccat/chai_raw_data"),
    "ccat/primecam_raw_data": ("source", "/storage/ccat/primecam_raw_data"),
    "ccat/buffer": ("buffer", "/storage/ccat/buffer"),
    "cologne/buffer": ("buffer", "/storage/cologne/buffer"),
    "cologne/lta": ("long_term_archive", "/storage/cologne/lta"),
    "cologne/ramses": ("processing", "/storage/cologne/ramses"),
}


def begin(engine: sa.Engine, *, storage_root: str = "/storage") -> None:
    with transaction(engine) as session:
        assert initialize(session, reference_data(), storage_root=Path(storage_root))


@pytest.fixture(scope="module")
def initialized(shared_engine: sa.Engine) -> sa.Engine:
    begin(shared_engine)
    return shared_engine


@pytest.fixture
def session(initialized: sa.Engine) -> Iterator[Session]:
    """A session whose work is undone."""
    with Session(initialized) as session:
        yield session


def everything(session: Session) -> dict[str, list[tuple[object, ...]]]:
    return {
        table.name: sorted((tuple(row) for row in session.execute(sa.select(table))), key=repr)
        for table in Base.metadata.sorted_tables
    }


def test_the_telescope_its_instruments_and_their_modules_are_known(session: Session) -> None:
    (telescope,) = session.scalars(sa.select(models.Telescope))
    assert (telescope.name, telescope.observatory.name) == ("FYST", "CCAT Observatory")
    modules = session.scalars(sa.select(MODULE.label).select_from(models.InstrumentModule).join(models.Instrument))
    assert set(modules) == {
        "CHAI/LFA",
        "CHAI/HFA",
        "Prime-Cam/280GHz",
        "Prime-Cam/350GHz",
        "Prime-Cam/850GHz",
        "Prime-Cam/EoR-Spec",
    }


def test_the_sites_have_their_locations_below_the_storage_root(session: Session) -> None:
    for name, (location_type, path) in LOCATIONS.items():
        location = find(session, LOCATION, name)
        assert isinstance(location, models.DiskDataLocation)
        assert (location.location_type, location.path) == (location_type, path)
    assert session.scalar(sa.select(sa.func.count()).select_from(models.DataLocation)) == len(LOCATIONS)
    assert find(session, LOCATION, "cologne/ramses").backend is models.BackendName.LOCAL


def test_what_is_recorded_at_the_telescope_crosses_to_the_archive_many_packages_at_a_time(session: Session) -> None:
    [route] = session.scalars(sa.select(models.DataTransferRoute))
    ends = [session.get_one(models.Site, one).short_name for one in (route.origin_site_id, route.destination_site_id)]
    assert (ends, route.method) == (["ccat", "cologne"], "copy")
    assert (route.package_bytes, route.package_wait_seconds) == (10**12, 600)


def test_every_role_of_the_design_may_do_something_and_only_admins_manage_users(session: Session) -> None:
    roles = {role.name: {one.name for one in role.permissions} for role in session.scalars(sa.select(models.Role))}
    assert set(roles) == {"admin", "operator", "scientist", "viewer", "instrument"}
    assert all(roles.values())
    assert [name for name, permissions in roles.items() if "manage:users" in permissions] == ["admin"]


def test_initialising_again_changes_nothing_and_keeps_the_installation_id(session: Session) -> None:
    before = everything(session)
    assert len(before["installation"]) == 1
    assert not initialize(session, reference_data(), storage_root=Path("/storage"))
    assert everything(session) == before


def test_what_an_operator_changed_or_added_stays(session: Session) -> None:
    ramses = find(session, LOCATION, "cologne/ramses")
    assert isinstance(ramses, models.DiskDataLocation)
    ramses.path, ramses.backend = "/scratch/ramses", models.BackendName.SLURM
    find(session, MODULE, "CHAI/LFA").description = "first light"
    session.add(models.Telescope(name="NANTEN2", observatory_id=1))
    before = everything(session)
    initialize(session, reference_data(), storage_root=Path("/elsewhere"))
    assert everything(session) == before


def test_modes_and_roles_that_a_later_version_brings_are_added(session: Session) -> None:
    seed = reference_data()
    later = {**seed, "obs_modes": [*seed["obs_modes"], {"name": "Daisy", "description": "constant scan in petals"}]}
    initialize(session, later, storage_root=Path("/storage"))
    assert find(session, OBS_MODE, "Daisy").description == "constant scan in petals"


def test_data_go_on_the_way_that_they_went_whatever_a_later_version_ships(session: Session) -> None:
    seed = reference_data()
    session.delete(find(session, LOCATION, "cologne/buffer"))  # as in an installation that was made without one
    session.flush()
    before = everything(session)
    bonn = {"site": "bonn", "name": "buffer", "location_type": "buffer", "path": "bonn/buffer"}
    later = {
        **seed,
        "sites": [*seed["sites"], {"short_name": "bonn", "name": "University of Bonn"}],
        "locations": [*seed["locations"], bonn],
        "routes": [*seed["routes"], {**seed["routes"][0], "name": "ccat_to_bonn", "destination": "bonn"}],
    }
    initialize(session, later, storage_root=Path("/storage"))
    assert everything(session) == before


def test_an_installation_id_is_made_for_each_database(session: Session, engine: sa.Engine) -> None:
    begin(engine)
    with Session(engine) as elsewhere:
        ids = {one.scalars(sa.select(models.Installation.installation_id)).one() for one in (session, elsewhere)}
    assert len(ids) == 2
