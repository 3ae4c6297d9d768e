"""One initialised database for many tests: what a test wrote is deleted, the reference data stay."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.lookup import MODULE, OBS_UNIT, TELESCOPE, find
from ccat_ops_db.moves import advance
from ccat_ops_db.nights import observing_night
from ccat_ops_db.session import create_engine, transaction
from ccat_ops_db.states import PackageState
from ccat_ops_db.verbs.initialization import initialize
from tests.engine.prepared import keep_prepared
from tests.seed import straight_into_the_archive


@contextmanager
def initialized(postgresql_url: str, *, template: str, storage: Path) -> Iterator[sa.Engine]:
    """Engine on a database as `opsdb_init` leaves it, but for the buffer in Cologne: packages need one hop less."""
    name = f"initialized_{uuid.uuid4().hex[:12]}"
    administrator = sa.create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        url = administrator.url.set(database=name).render_as_string(hide_password=False)
        engine = create_engine(url, application_name="tests")
        keep_prepared(engine)
        with transaction(engine) as session:
            initialize(session, straight_into_the_archive(), storage_root=storage)
            hand_out(session)  # to nobody
        yield engine
        engine.dispose()
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    administrator.dispose()


def plan(session: Session, observation: str, *, source: str, program: str = "Cal") -> None:
    """A planned observation of a source."""
    if not session.scalar(sa.select(models.ObservingProgram.id).filter_by(short_name=program)):
        session.add(models.ObservingProgram(short_name=program, name=program))
    if not session.scalar(sa.select(models.Source.id).filter_by(name=source)):
        session.add(models.FixedSource(name=source, ra_deg=10.0, dec_deg=-20.0))
    session.flush()
    session.add(
        models.ObsUnit(
            name=observation,
            observing_program_id=session.scalars(
                sa.select(models.ObservingProgram.id).filter_by(short_name=program)
            ).one(),
            source_id=session.scalars(sa.select(models.Source.id).filter_by(name=source)).one(),
            obs_mode_id=session.scalars(sa.select(models.ObsMode.id).filter_by(name="OTF")).one(),
        )
    )
    session.flush()


def archive(session: Session, name: str, *, observation: str, at: datetime, module: str = "CHAI/LFA") -> int:
    """A package of a scan of its own, ARCHIVED, of which no file exists; its id."""
    telescope = find(session, TELESCOPE, "FYST")
    scan = models.ExecutedObsUnit(
        id=uuid.uuid4(),
        obs_unit_id=find(session, OBS_UNIT, observation).id,
        telescope_id=telescope.id,
        started_at=at,
        ended_at=at,
        observing_night=observing_night(at, telescope.observatory.longitude_deg),
    )
    session.add(scan)
    session.flush()
    package_id = package(session, name, scan_id=scan.id, module=module)
    bring(session, package_id, at=at)
    return package_id


def package(session: Session, name: str, *, scan_id: uuid.UUID, module: str, part: int = 1) -> int:
    """A package that is not in the archive yet; its id."""
    made = models.RawDataPackage(
        executed_obs_unit_id=scan_id,
        part=part,
        instrument_module_id=find(session, MODULE, module).id,
        name=name,
        checksum=f"sha256:{uuid.uuid5(uuid.NAMESPACE_URL, name).hex * 2}",
    )
    session.add(made)
    session.flush()
    return made.id


def bring(session: Session, package_id: int, *, at: datetime) -> None:
    """Have a package archived."""
    for state, values in ((PackageState.TRANSFERRING, {}), (PackageState.ARCHIVED, {"archived_at": at})):
        advance(session, models.RawDataPackage, [package_id], to=state, because="a test", by="a test", values=values)
