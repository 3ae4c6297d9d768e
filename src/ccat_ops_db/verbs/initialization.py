import tomllib
import uuid
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from ccat_ops_db import models
from ccat_ops_db.queries.retention import USUAL_CLASS

Seed = Mapping[str, Any]


def reference_data() -> Seed:
    """Reference data of the CCAT Observatory, as shipped."""
    return tomllib.loads(files("ccat_ops_db").joinpath("seed/fyst.toml").read_text())


def initialize(session: Session, seed: Seed, *, storage_root: Path, archive_copies: int = 1) -> bool:
    """Give the database its installation id and its reference data, and return whether it had none before.

    What exists already is left as it is. Sites, locations and routes are given to a new installation only: they say
    which way data go, and of one that works that is its operator's to say, whatever a later version ships.

    Paths of the seed's locations are taken below `storage_root`, which is absolute. Raw data of a new installation want
    so many verified archive copies before any copy elsewhere goes.
    """
    is_new = _begin(session)
    _seed_telescopes(session, seed)
    _seed_instruments(session, seed["instruments"])
    _insert(session, models.ObsMode, seed["obs_modes"])
    if is_new:
        usual = sa.update(models.DataClass).where(models.DataClass.name == USUAL_CLASS)
        session.execute(usual.values(min_verified_archive_copies=archive_copies))
        _insert(session, models.Site, seed["sites"])
        _seed_locations(session, seed["locations"], storage_root)
        _seed_routes(session, seed["routes"])
    _seed_roles(session, seed["roles"])
    return is_new


def _begin(session: Session) -> bool:
    """Make the installation id, unless there is one; whether it was made."""
    row = {"id": 1, "installation_id": uuid.uuid4()}
    made = insert(models.Installation).values(row).on_conflict_do_nothing().returning(models.Installation.id)
    return session.scalar(made) is not None


def _insert(session: Session, noun: type[models.Base], rows: Sequence[Mapping[str, Any]]) -> None:
    session.execute(insert(noun).on_conflict_do_nothing(), [dict(row) for row in rows])


def _ids(session: Session, name: InstrumentedAttribute[str]) -> dict[str, int]:
    return dict(session.execute(sa.select(name, name.class_.id)).all())


def _seed_telescopes(session: Session, seed: Seed) -> None:
    _insert(session, models.Observatory, [seed["observatory"]])
    observatory_id = _ids(session, models.Observatory.name)[seed["observatory"]["name"]]
    _insert(session, models.Telescope, [{"observatory_id": observatory_id, **row} for row in seed["telescopes"]])


def _seed_instruments(session: Session, instruments: Sequence[Seed]) -> None:
    telescopes = _ids(session, models.Telescope.name)
    rows = [{key: row[key] for key in ("name", "description")} for row in instruments]
    _insert(
        session,
        models.Instrument,
        [row | {"telescope_id": telescopes[one["telescope"]]} for row, one in zip(rows, instruments, strict=True)],
    )
    numbers = _ids(session, models.Instrument.name)
    modules = [{"instrument_id": numbers[one["name"]], **module} for one in instruments for module in one["modules"]]
    _insert(session, models.InstrumentModule, modules)


def _seed_locations(session: Session, locations: Sequence[Seed], storage_root: Path) -> None:
    sites = _ids(session, models.Site.short_name)
    known = set(session.execute(sa.select(models.DataLocation.site_id, models.DataLocation.name)))
    for row in locations:
        site_id = sites[row["site"]]
        if (site_id, row["name"]) not in known:
            details = {key: value for key, value in row.items() if key not in {"site", "path"}}
            path = str(storage_root / row["path"])
            session.add(models.DiskDataLocation(site_id=site_id, path=path, **details))
    session.flush()


def _seed_routes(session: Session, routes: Sequence[Seed]) -> None:
    sites = _ids(session, models.Site.short_name)
    rows = [
        {
            **{key: value for key, value in row.items() if key not in {"origin", "destination"}},
            "origin_site_id": sites[row["origin"]],
            "destination_site_id": sites[row["destination"]],
        }
        for row in routes
    ]
    _insert(session, models.DataTransferRoute, rows)


def _seed_roles(session: Session, roles: Mapping[str, Seed]) -> None:
    granted = sorted({name for role in roles.values() for name in role["permissions"]})
    _insert(session, models.Permission, [{"name": name} for name in granted])
    _insert(session, models.Role, [{"name": name, "description": role["description"]} for name, role in roles.items()])
    role_ids, permission_ids = _ids(session, models.Role.name), _ids(session, models.Permission.name)
    rows = [
        {"role_id": role_ids[name], "permission_id": permission_ids[permission]}
        for name, role in roles.items()
        for permission in role["permissions"]
    ]
    session.execute(insert(models.role_permission).on_conflict_do_nothing(), rows)
