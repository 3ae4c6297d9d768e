from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import definitions as written
from ccat_ops_db import models
from ccat_ops_db.distributions import code_digest, installed_distribution
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import advance
from ccat_ops_db.states import Runtime
from ccat_ops_db.verbs.changes import Change, identity, update


class VersionChanged(CcatError):
    """A released version was told to be something else."""

    code = "version_changed"

    def __init__(self, where: str, field: str, *, recorded: object, told: object) -> None:
        super().__init__(
            f"{where} is released with {field} {recorded}, now told {told}. A released version never changes, "
            "because products name it: release a new version. Nothing was applied."
        )


class WrongVersionInstalled(CcatError):
    """The environment of a software version holds another version."""

    code = "wrong_version_installed"

    def __init__(self, where: str, *, installed: str, environment: Path) -> None:
        super().__init__(f"{where}: {environment} holds version {installed}. Install the one that you release there.")


def release_versions(session: Session, one: written.Software, *, folder: Path, by: str) -> Iterator[Change]:
    """Record a program and its released versions; raises VersionChanged where one was something else before."""
    software = identity(session, models.ReductionSoftware, name=one.name)
    software.description = one.description
    for version in one.versions:
        yield _apply_version(session, software, version, folder=folder, by=by)


def _apply_version(
    session: Session, software: models.ReductionSoftware, one: written.SoftwareVersion, *, folder: Path, by: str
) -> Change:
    where = f"{software.name} {one.version}"
    environment = str((folder / one.environment).resolve()) if one.environment else None
    values = {
        "series": one.series,
        "runtime": one.runtime,
        "command": list(one.command),
        "image_ref": one.image,
        "environment_prefix": environment,
        "distribution": one.distribution,
        "content_digest": _content_digest(one, where, environment),
    }
    key = {"reduction_software_id": software.id, "version": one.version}
    known = session.scalars(sa.select(models.ReductionSoftwareVersion).filter_by(**key)).one_or_none()
    if known is None:
        session.add(models.ReductionSoftwareVersion(**key, **values, state=one.state))
        session.flush()
        return Change("version", where, "created", f"series {one.series}")
    for field in ("content_digest", "series", "command"):
        if getattr(known, field) != values[field]:
            raise VersionChanged(where, field, recorded=getattr(known, field), told=values[field])
    moved = known.state != one.state
    if moved:
        advance(session, models.ReductionSoftwareVersion, [known.id], to=one.state, because="applied", by=by)
    place = update(known, {"environment_prefix": environment, "image_ref": one.image}, kind="version", name=where)
    return Change("version", where, "changed", f"now {one.state}") if moved else place


def _content_digest(one: written.SoftwareVersion, where: str, environment: str | None) -> str:
    if one.runtime is Runtime.APPTAINER or environment is None or one.distribution is None:
        return str(one.image_digest)
    installed = installed_distribution(Path(environment), one.distribution)
    if installed.version != one.version:
        raise WrongVersionInstalled(where, installed=installed.version, environment=Path(environment))
    return code_digest(installed)
