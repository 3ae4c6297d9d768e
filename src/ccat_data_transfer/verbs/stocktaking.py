"""An archive is looked through for packages that are not known here, which are taken up; whoever does so has to see it.

What is known already costs a look at its name, so it can be done again at any time.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from pathlib import PurePosixPath
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.adoption import Found, Refused
from ccat_data_transfer.backends.base import Listed, Store, load
from ccat_data_transfer.backends.errors import FileMissing, LocationTrouble
from ccat_data_transfer.backends.s3.parts import PART_BYTES
from ccat_data_transfer.plan import FILES_AT_ONCE, RAW
from ccat_data_transfer.sidecar import read_sidecar, sidecar_path
from ccat_data_transfer.verbs.adopting import adopt, would_adopt
from ccat_data_transfer.verbs.attempts import store_of
from ccat_data_transfer.verbs.recalling import known_at
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.session import in_transaction
from ccat_ops_db.states import LocationType
from ccat_service.retries import first_line

_AT_ONCE: Final = 500
"""Tars that are looked up, and of which the descriptions are read, together."""
_READERS: Final = 8
_TAR, _BESIDE = ".tar", ".json"


class NotAnArchive(CcatError):
    """Packages are to be adopted from a location that keeps none for good."""

    code = "not_an_archive"

    def __init__(self, location: str, kind: LocationType) -> None:
        super().__init__(f"Location {location} is a {kind} location: packages are adopted from long-term archives.")


class ArchiveIsLost(CcatError):
    """Packages are to be adopted from a location that is said to be lost."""

    code = "archive_is_lost"

    def __init__(self, location: str) -> None:
        super().__init__(
            f"Archive {location} is said to be lost, so that nothing there counts. If it is back, have it used again: "
            f"`ccat location set {location} --active`; then adopt what it has. Nothing was changed."
        )


class NotSeenHere(CcatError):
    """An archive is to be looked through where it cannot be seen."""

    code = "not_seen_here"

    def __init__(self, location: str, trouble: CcatError) -> None:
        super().__init__(
            f"Archive {location} is looked through by this command itself, so say it where a transfer-worker of that "
            f"location runs. {trouble}"
        )


@dataclass(kw_only=True)
class Stock:
    """What became of the packages of an archive, or would."""

    location: str
    is_dry_run: bool
    known: int = 0
    """How many are known to be there."""
    adopted: list[str] = field(default_factory=list)
    """Names of those that were taken up, or would be."""
    refused: list[Refused] = field(default_factory=list)


def take_stock(
    engine: sa.Engine, location: str, *, dry_run: bool, by: str, progress: Callable[[int], None] = lambda _: None
) -> Stock:
    """Look through an archive, and take up what is not known here, unless it is a dry run.

    `progress` is told how many tars were looked at. Each transaction is about some hundreds of them; stopped half-way,
    it can be done again. Raises UnknownName, NotAnArchive, and NotSeenHere where the archive cannot be seen.
    """
    stock, seen = Stock(location=location, is_dry_run=dry_run), 0
    location_id, store = in_transaction(engine, partial(_archive, name=location))
    try:
        for some in _in_batches(_pairs(store)):
            _take(engine, store, some, location_id=location_id, stock=stock, by=by)
            progress(seen := seen + len(some))
    except LocationTrouble as trouble:
        raise NotSeenHere(location, trouble) from trouble
    if stock.adopted and not dry_run:
        in_transaction(engine, partial(_have_read, location_id=location_id))
    return stock


def _archive(session: Session, *, name: str) -> tuple[int, Store]:
    location = find(session, LOCATION, name)
    if location.location_type is not LocationType.LONG_TERM_ARCHIVE:
        raise NotAnArchive(name, location.location_type)
    if location.lost_at is not None:
        raise ArchiveIsLost(name)
    return location.id, store_of(location, token="stock", progress=lambda: None, part_bytes=PART_BYTES)  # noqa: S106 - no password, and it writes nothing


def _have_read(session: Session, *, location_id: int) -> None:
    """Have the next look at an archive, which has copies that were never read, be now."""
    session.get_one(models.DataLocation, location_id).archive_look_at = None


@dataclass(frozen=True)
class _Pair:
    """What has the name of a package in an archive."""

    path: str
    """Of the tar."""
    tar: Listed | None
    is_described: bool

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).stem


def _pairs(store: Store) -> Iterator[_Pair]:
    """Tars with what lies beside them; of a directory at a time, for an archive has millions."""
    for _, files in groupby(store.listed(RAW), key=lambda one: PurePosixPath(one.path).parent):
        found: Mapping[str, dict[str, Listed]] = defaultdict(dict)
        for one in files:
            place = PurePosixPath(one.path)
            found[str(place.with_suffix(_TAR))][place.suffix] = one
        for path, ends in found.items():
            if ends.keys() & {_TAR, _BESIDE}:
                yield _Pair(path, ends.get(_TAR), _BESIDE in ends)


def _in_batches(pairs: Iterator[_Pair]) -> Iterator[Sequence[_Pair]]:
    while some := list(islice(pairs, _AT_ONCE)):
        yield some


def _take(engine: sa.Engine, store: Store, some: Collection[_Pair], *, location_id: int, stock: Stock, by: str) -> None:
    names = {one.name for one in some}
    known = in_transaction(engine, partial(known_at, location_id=location_id, names=names))
    stock.known += len(known)
    with ThreadPoolExecutor(_READERS) as readers:
        read = list(readers.map(partial(_read, store), [one for one in some if one.name not in known]))
    stock.refused += [one for one in read if isinstance(one, Refused)]
    for found in _of_bounded_size(one for one in read if isinstance(one, Found)):
        do = (
            partial(would_adopt, found=found)
            if stock.is_dry_run
            else partial(adopt, found=found, location_id=location_id, by=by)
        )
        adopted = in_transaction(engine, do)
        stock.adopted += adopted.packages
        stock.refused += adopted.refused


def _read(store: Store, pair: _Pair) -> Found | Refused:
    """A tar with its description; why it cannot be taken up, where it has none that says what it is."""
    if pair.tar is None:
        return Refused(pair.path, "it is described, and is not there")
    if not pair.is_described:
        return Refused(pair.path, "nothing beside it says what it is")
    try:
        told = read_sidecar(load(store, sidecar_path(pair.path)))
    except (FileMissing, ValueError) as error:
        return Refused(pair.path, f"what lies beside it cannot be read: {first_line(error)}")
    return Found(path=pair.path, size_bytes=pair.tar.size_bytes, seal=pair.tar.seal, told=told)


def _of_bounded_size(found: Iterable[Found]) -> Iterator[Sequence[Found]]:
    """Packages that one transaction takes up: as many as have not too many files."""
    some: list[Found] = []
    files = 0
    for one in found:
        if some and files + len(one.told.files) > FILES_AT_ONCE:
            yield some
            some, files = [], 0
        some.append(one)
        files += len(one.told.files)
    if some:
        yield some
