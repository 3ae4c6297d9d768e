from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from packaging.version import Version
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.definitions import document as written
from ccat_ops_db.definitions.images import ImageReference, ImageSource
from ccat_ops_db.definitions.parsing import InvalidDefinition
from ccat_ops_db.distributions import DistributionMissing, code_digest, installed_distribution
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.roots import Kind, Root
from ccat_ops_db.queries.validity import lock_validity
from ccat_ops_db.states import VERSION_MOVES, Runtime, VersionState
from ccat_ops_db.verbs.changes import Change, put, update
from ccat_ops_db.verbs.withdrawing import reinstate, withdraw


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
        super().__init__(
            f"{where}: {environment} holds version {installed}. Install the one that you release there. "
            "Nothing was applied."
        )


class SameVersion(CcatError):
    """A version was told that by PEP 440 is one that is released already, written differently."""

    code = "same_version"

    def __init__(self, where: str, *, recorded: str) -> None:
        super().__init__(
            f"{where} is the same version as {recorded}, which is released; write it so, or raise it. "
            "Nothing was applied."
        )


class VersionCannotMove(CcatError):
    """A released version was told a state that it cannot come to."""

    code = "version_cannot_move"

    def __init__(self, where: str, version: str, *, recorded: VersionState, told: VersionState) -> None:
        ways = sorted(VERSION_MOVES.get(recorded, ()))
        hint = (
            f"Write `state: withdrawn` for it in the file, or, if it was right after all, `ccat reinstate {version}`. "
            if recorded is VersionState.WITHDRAWN
            else ""
        )
        super().__init__(
            f"{where} is {recorded}, now told {told}. What is {recorded} can become {' or '.join(ways)} only. {hint}"
            "Nothing was applied."
        )


@dataclass(frozen=True)
class _Told:
    """A version as a file tells of it, and where in the file."""

    place: str
    name: str
    """Program and version, for people."""
    version: written.SoftwareVersion


def hold_validity(session: Session, software: Iterable[written.Software]) -> None:
    """Lock what is valid where versions are told to be withdrawn, or that no longer; whoever has the turn does it next.

    Locked only when a version is come to, it would be locked after what those wait for who share it.
    """
    version, program = models.ReductionSoftwareVersion, models.ReductionSoftware
    recorded = sa.select(program.name, version.version).join(version.reduction_software)
    are_off = recorded.where(version.state == VersionState.WITHDRAWN)
    withdrawn = {(name, number) for name, number in session.execute(are_off)}
    told = [((one.name, each.version), each.state) for one in software for each in one.versions]
    if any((state is VersionState.WITHDRAWN) != (place in withdrawn) for place, state in told):
        lock_validity(session)


def release_versions(session: Session, one: written.Software, *, folder: Path, place: str, by: str) -> Iterator[Change]:
    """Record a program and its released versions; `place` is where the file tells of it.

    Raises VersionChanged where one was something else before, and others of this module.
    """
    key, values = {"name": one.name}, {"description": one.description}
    software, change = put(session, models.ReductionSoftware, key, values=values, kind="software", name=one.name)
    yield change
    for index, version in enumerate(one.versions):
        told = _Told(f"{place}.versions[{index}]", f"{software.name} {version.version}", version)
        yield _apply_version(session, software, told, folder=folder, by=by)


def _apply_version(
    session: Session, software: models.ReductionSoftware, told: _Told, *, folder: Path, by: str
) -> Change:
    one, where = told.version, f"{told.place}: {told.name}"
    environment = str((folder / one.environment).resolve()) if one.environment else None
    image = _place_of_image(one.image, folder) if one.image else None
    known = _known_version(session, software.id, one.version, where=where)
    is_history = one.state is not VersionState.RELEASED  # what starts nothing need not be installed any more
    values = {
        "series": one.series,
        "runtime": one.runtime,
        "command": list(one.command),
        "image_ref": image,
        "environment_prefix": environment,
        "distribution": one.distribution,
        "content_digest": known.content_digest if known and is_history else _content_digest(told, environment),
    }
    if known is None:
        new = models.ReductionSoftwareVersion(reduction_software_id=software.id, version=one.version, **values)
        session.add(new)
        session.flush()
        if one.state is not VersionState.RELEASED:
            _move(session, new, one.state, told=told, by=by)
        return Change("version", told.name, "created", f"series {one.series}")
    for field in ("content_digest", "series", "command"):
        if getattr(known, field) != values[field]:
            raise VersionChanged(where, field, recorded=getattr(known, field), told=values[field])
    place = update(known, {"environment_prefix": environment, "image_ref": image}, kind="version", name=told.name)
    if known.state is one.state:
        return place
    _move(session, known, one.state, told=told, by=by)
    return Change("version", told.name, "changed", f"now {one.state}")


def _known_version(
    session: Session, software_id: int, version: str, *, where: str
) -> models.ReductionSoftwareVersion | None:
    rows = session.scalars(sa.select(models.ReductionSoftwareVersion).filter_by(reduction_software_id=software_id))
    known = next((row for row in rows if Version(row.version) == Version(version)), None)
    if known is not None and known.version != version:
        raise SameVersion(where, recorded=known.version)
    return known


def _move(
    session: Session, version: models.ReductionSoftwareVersion, to: VersionState, *, told: _Told, by: str
) -> None:
    root, now = Root(Kind.VERSION, (version.id,), f"version {told.name.replace(' ', '/')}"), datetime.now(UTC)
    if to not in VERSION_MOVES.get(version.state, ()):
        raise VersionCannotMove(f"{told.place}: {told.name}", root.label, recorded=version.state, told=to)
    if to is VersionState.WITHDRAWN:
        withdraw(session, root, because="a file of definitions that was applied says so", now=now, by=by)
        return
    if version.state is VersionState.WITHDRAWN:
        reinstate(session, root, now=now, by=by)
    advance(session, models.ReductionSoftwareVersion, [version.id], to=to, because="applied", by=by)


def _place_of_image(image: str, folder: Path) -> str:
    if ImageReference.parse(image).source is ImageSource.FILE:
        return str((folder / image).resolve())
    return image


def _content_digest(told: _Told, environment: str | None) -> str:
    one = told.version
    if one.runtime is Runtime.APPTAINER or environment is None or one.distribution is None:
        return str(one.image_digest)
    try:
        installed = installed_distribution(Path(environment), one.distribution)
    except DistributionMissing as error:
        raise InvalidDefinition([f"{told.place}.environment: {error}"]) from error
    if installed.version != one.version:
        where = f"{told.place}: {told.name}"
        raise WrongVersionInstalled(where, installed=installed.version, environment=Path(environment))
    return code_digest(installed)
