"""What is the matter with copies: archived ones that are damaged or gone, and those that cannot be made or deleted."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.models.data import DOUBTED, GOING, LOST, UNREADABLE
from ccat_ops_db.models.transfers import LIVE
from ccat_ops_db.plan.alerts import Condition
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.lost_packages import IS_GIVEN_UP
from ccat_ops_db.queries.pauses import is_held
from ccat_ops_db.queries.serving import DELETION, SCRUBBING, is_unserved
from ccat_ops_db.states import AlertKind, LocationType, PackageState, PhysicalCopyStatus, ProductState, Status

_Copy, _Location, _Product = models.PhysicalCopy, models.DataLocation, models.DataProduct
_Way, _Trip, _Package = models.LongTermArchiveTransfer, models.DataTransfer, models.RawDataPackage
_IS_LOST: Final = sa.and_(_Location.location_type == LocationType.LONG_TERM_ARCHIVE, sa.text(f"physical_copy.{LOST}"))
_TRIED: Final = (PhysicalCopyStatus.DELETION_SCHEDULED, PhysicalCopyStatus.DELETION_FAILED)
"""What the database keeps is scheduled still."""
_TRIES: Final = 5
"""To delete a copy, until people are told."""
_WAITS: Final = timedelta(hours=1)
"""No pause is as long after trouble that passes."""


def troubled_copies(session: Session) -> Iterator[Condition]:
    """What people are told of copies."""
    yield from _lost_packages(session)
    yield from _lost_products(session)
    yield from _unreadable(session)
    yield from _doubted(session)
    yield from _given_up(session)
    yield from _undeletable(session)
    yield from _undeleted(session)


def _lost_packages(session: Session) -> Iterator[Condition]:
    """Archive copies of raw packages that are damaged or gone, until they are made anew or given up."""
    told = _by_location(sa.func.count(), sa.func.min(_Copy.path))
    of_packages = told.join(_Package, _Package.id == _Copy.raw_data_package_id)
    rows = session.execute(of_packages.where(_Copy.raw_data_package_id.is_not(None), _IS_LOST, sa.not_(IS_GIVEN_UP)))
    for name, number, path in rows:
        copies = counted(number, "archive copy is", "archive copies are")
        yield Condition(
            kind=AlertKind.LOST_COPY,
            key=f"archive {name}",
            sentence=f"{copies} damaged or gone at {name}, such as {path}: what another sound copy can make anew is "
            "made anew by itself; else restore it there, then `ccat package retry PACKAGE`",
            number=number,
        )


def _lost_products(session: Session) -> Iterator[Condition]:
    """Products that count and whose copy in an archive is damaged or gone, until they are archived anew."""
    sound = aliased(_Copy, flat=True)
    has_another = sa.exists().where(sound.data_product_id == _Product.id, sound.status == PhysicalCopyStatus.PRESENT)
    only, path = sa.not_(has_another), sa.func.min(_Copy.path)
    told = (sa.func.count(), path, sa.func.count().filter(only), path.filter(only))
    counts = sa.and_(_Product.id == _Copy.data_product_id, _Product.state == ProductState.CURRENT)
    is_product = _Copy.data_product_id.is_not(None)  # as the index says it
    for name, number, such, lost, such_lost in session.execute(
        _by_location(*told).join(_Product, counts).where(is_product, _IS_LOST)
    ):
        products = counted(number, "archived product is", "archived products are")
        sentence = f"{products} damaged or gone at {name}, such as {such}: "
        sentence += "what is sound where it was made is archived anew by itself, else `ccat run archive RUN` says why"
        if lost:
            sentence += f"; lost, as no sound copy is left: {lost:,}, such as {such_lost}"
        yield Condition(kind=AlertKind.LOST_COPY, key=f"archived products {name}", sentence=sentence, number=number)


def _unreadable(session: Session) -> Iterator[Condition]:
    """Copies that cannot be read where others can, until they are or something sound is there to make them anew of."""
    told = (sa.func.count(), sa.func.min(_Copy.path), sa.func.min(_Copy.failure))
    for name, number, path, failure in session.execute(
        _by_location(*told).where(sa.text(f"physical_copy.{UNREADABLE}"))
    ):
        copies = counted(number, "copy", "copies")
        yield Condition(
            kind=AlertKind.LOST_COPY,
            key=f"unreadable {name}",
            sentence=f"{copies} cannot be read at {name}, such as {path}, while others there can: {failure} Nothing "
            "sound is known that could replace it, so it does not count any more, and is read again each day: save "
            "what can be saved of it, and restore it there",
            number=number,
        )


def _doubted(session: Session) -> Iterator[Condition]:
    """Copies in doubt where no transfer-worker serves, which would read them; what is paused may wait."""
    told = (sa.func.count(), sa.func.min(_Copy.path))
    is_awaited = sa.and_(is_unserved(SCRUBBING), sa.not_(is_held()))
    in_doubt = _by_location(*told).where(sa.text(f"physical_copy.{DOUBTED}"), is_awaited)
    for name, number, path in session.execute(in_doubt):
        copies = counted(number, "copy in doubt is", "copies in doubt are")
        yield Condition(
            kind=AlertKind.BACKLOG,
            key=f"in doubt {name}",
            sentence=f"{copies} to be read at {name} before anything is brought from there, such as {path}, and no "
            f"transfer-worker serves it: start `ccat transfer-worker --location {name}` on a host that has it",
            number=number,
        )


def _given_up(session: Session) -> Iterator[Condition]:
    """Further archive copies, of packages that are archived, which could not be made and are not there."""
    is_there = sa.exists().where(
        _Copy.raw_data_package_id == _Way.raw_data_package_id,
        _Copy.data_location_id == _Way.destination_id,
        _Copy.status == PhysicalCopyStatus.PRESENT,
    )
    on_failed_trips = sa.select(_Way.id).join(_Trip, _Trip.id == _Way.data_transfer_id)
    given_up = sa.union_all(  # each by an index of its own
        sa.select(_Way.id).where(sa.text("long_term_archive_transfer.status = 'failed'")),
        on_failed_trips.where(sa.text(f"long_term_archive_transfer.{LIVE}"), _Trip.status == Status.FAILED),
    ).subquery()
    rows = session.execute(
        sa.select(
            LOCATION.label,
            sa.func.count(),
            sa.func.min(_Package.id),
            sa.func.min(sa.func.coalesce(_Way.failure, _Trip.failure)),
        )
        .select_from(given_up)  # the first, as the database joins so many tables in the order in which they are named
        .join(_Way, _Way.id == given_up.c.id)
        .join(_Package, _Package.id == _Way.raw_data_package_id)
        .join(_Location, _Location.id == _Way.destination_id)
        .join(_Location.site)
        .outerjoin(_Trip, _Trip.id == _Way.data_transfer_id)
        .where(_Package.state == PackageState.ARCHIVED, _Location.active, sa.not_(IS_GIVEN_UP))
        .where(sa.not_(is_there))
        .group_by(LOCATION.label)
    )
    for name, number, package_id, cause in rows:
        copies = counted(number, "archive copy", "archive copies")
        yield Condition(
            kind=AlertKind.FAILED_FOR_GOOD,
            key=f"copies for {name}",
            sentence=f"{copies} cannot be made at {name}, such as that of package {package_id}: {cause}",
            number=number,
        )


def _undeletable(session: Session) -> Iterator[Condition]:
    """Copies that could not be deleted several times, or not before a person has mended something."""
    waits = sa.or_(_Copy.trouble_count >= _TRIES, _Copy.not_before > sa.func.clock_timestamp() + _WAITS)
    told = (sa.func.count(), sa.func.min(_Copy.failure))
    failed = _by_location(*told).where(_Copy.status.in_(_TRIED), waits)
    for name, number, failure in session.execute(failed):
        copies = counted(number, "copy", "copies")
        yield Condition(
            kind=AlertKind.FAILED_FOR_GOOD,
            key=f"deletions {name}",
            sentence=f"{copies} cannot be deleted at {name}: {failure} "
            f"Once that is mended, `ccat retention retry {name}` tries again at once",
            number=number,
        )


def _undeleted(session: Session) -> Iterator[Condition]:
    """Copies that are to be deleted where no transfer-worker would; what is paused may wait."""
    is_due = sa.or_(_Copy.not_before.is_(None), _Copy.not_before <= sa.func.clock_timestamp())
    is_awaited = sa.and_(is_unserved(DELETION), _Location.retention_paused.is_(None), sa.not_(is_held()))
    going = _by_location(sa.func.count()).where(sa.text(f"physical_copy.{GOING}"), is_due, is_awaited)
    for name, number in session.execute(going):
        copies = counted(number, "copy is", "copies are")
        yield Condition(
            kind=AlertKind.BACKLOG,
            key=f"undeleted {name}",
            sentence=f"{copies} to be deleted at {name}, and no transfer-worker does that there: start "
            f"`ccat transfer-worker --location {name}` on a host that has it, also in place of one that runs already",
            number=number,
        )


def _by_location(*told: Any) -> Any:
    """What is told of the copies at each location, after its name."""
    copies = sa.select(LOCATION.label, *told).select_from(_Copy).join(_Location, _Location.id == _Copy.data_location_id)
    return copies.join(_Location.site).group_by(LOCATION.label)
