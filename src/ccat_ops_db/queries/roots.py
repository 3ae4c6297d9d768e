"""What something can be made from, as people call it: where a search for descendants, or a withdrawal, begins."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import CONFIG, SOFTWARE, Named, UnknownName, find
from ccat_ops_db.queries.lineage import UnknownProduct
from ccat_ops_db.queries.packages import UnknownPackage
from ccat_ops_db.queries.runs import UnknownRun

_PACKAGE: Final = Named("raw package", sa.select(models.RawDataPackage), models.RawDataPackage.name)
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}")
_Revision = models.ReductionStepConfigRevision


class Kind(StrEnum):
    """What products can be made from."""

    PACKAGE = "package"
    PRODUCT = "product"
    RUN = "run"
    VERSION = "version"
    CONFIG = "config"


class NoNumber(CcatError):
    """Something that has a number was called by something else."""

    code = "no_number"

    def __init__(self, kind: Kind, name: str) -> None:
        super().__init__(f"A {kind} is called by its number, and `{name}` is none; `ccat {kind}s` lists them.")


class IncompleteName(CcatError):
    """A software version was named without its software, or without its version."""

    code = "incomplete_name"

    def __init__(self, name: str) -> None:
        super().__init__(f"`{name}` names no version: write SOFTWARE/VERSION, such as `gridder/1.0`.")


class SeveralRevisions(CcatError):
    """A config was named that has several revisions, where one of them has to be meant."""

    code = "several_revisions"

    def __init__(self, name: str, numbers: Collection[int]) -> None:
        listed = ", ".join(f"{name}/{number}" for number in numbers)
        super().__init__(f"Config {name} has {len(numbers)} revisions; name the one that is meant: {listed}.")


@dataclass(frozen=True)
class Root:
    """An object that products are made from; of a config there may be several revisions."""

    kind: Kind
    ids: tuple[int, ...]
    label: str
    """As people call it."""


def find_root(session: Session, kind: Kind, name: str) -> Root:
    """The object of that name or number; raises UnknownName, UnknownPackage and the like, and errors of this module."""
    match kind:
        case Kind.PACKAGE:
            return _package(session, name)
        case Kind.PRODUCT:
            return _product(session, _number(kind, name))
        case Kind.RUN:
            return _run(session, _number(kind, name))
        case Kind.VERSION:
            return _version(session, name)
        case Kind.CONFIG:
            return _config(session, name)


def find_one(session: Session, kind: Kind, name: str) -> Root:
    """The same, but of a config one revision: the only one, or the one that is named; raises SeveralRevisions."""
    root = find_root(session, kind, name)
    if len(root.ids) == 1:
        return root
    numbers = session.scalars(sa.select(_Revision.number).where(_Revision.id.in_(root.ids)).order_by(_Revision.number))
    raise SeveralRevisions(name, numbers.all())


def _number(kind: Kind, name: str) -> int:
    if not _NUMBER.fullmatch(name):
        raise NoNumber(kind, name)
    return int(name)


def _package(session: Session, name: str) -> Root:
    if not _NUMBER.fullmatch(name):
        found = find(session, _PACKAGE, name)
    elif (known := session.get(models.RawDataPackage, int(name))) is None:
        raise UnknownPackage(int(name))
    else:
        found = known
    return Root(Kind.PACKAGE, (found.id,), f"raw package {found.name}")


def _product(session: Session, number: int) -> Root:
    found = session.get(models.DataProduct, number)
    if found is None:
        raise UnknownProduct(number)
    return Root(Kind.PRODUCT, (number,), f"product {number} ({found.relative_path})")


def _run(session: Session, number: int) -> Root:
    if session.get(models.ExecutedReductionStep, number) is None:
        raise UnknownRun(number)
    return Root(Kind.RUN, (number,), f"run {number}")


def _version(session: Session, name: str) -> Root:
    software_name, slash, version = name.rpartition("/")
    if not slash:
        raise IncompleteName(name)
    software, noun = find(session, SOFTWARE, software_name), models.ReductionSoftwareVersion
    known = session.execute(
        sa.select(noun.version, noun.id).where(noun.reduction_software_id == software.id).order_by(noun.id)
    ).all()
    ids = {row.version: row.id for row in known}
    if version not in ids:
        raise UnknownName("version", version, list(ids), of=software_name)
    return Root(Kind.VERSION, (ids[version],), f"version {name}")


def _config(session: Session, name: str) -> Root:
    config_name, slash, number = name.partition("/")
    config = find(session, CONFIG, config_name)
    revisions = session.execute(
        sa.select(_Revision.number, _Revision.id)
        .where(_Revision.reduction_step_config_id == config.id)
        .order_by(_Revision.number)
    ).all()
    ids = {str(row.number): row.id for row in revisions}
    if not slash:
        return Root(Kind.CONFIG, tuple(ids.values()), f"config {name}{_only(list(ids))}")
    if number not in ids:
        raise UnknownName("revision", number, list(ids), of=f"config {config_name}")
    return Root(Kind.CONFIG, (ids[number],), f"config {name}")


def _only(numbers: Sequence[str]) -> str:
    """The revision that is meant where there is one only."""
    return f"/{numbers[0]}" if len(numbers) == 1 else ""
