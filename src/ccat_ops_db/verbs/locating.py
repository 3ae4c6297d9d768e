import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from posixpath import normpath
from typing import Any, ClassVar, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import LOCATION, SITE, find
from ccat_ops_db.naming import listed
from ccat_ops_db.states import STORAGES, BackendName, LocationType, StorageType
from ccat_ops_db.verbs.limiting import tell_limits
from ccat_ops_db.verbs.vacating import vacate

_SITE_NAME: Final = re.compile(r"[a-z0-9-]+")
_LOCATION_NAME: Final = re.compile(r"[a-z0-9_-]+")
_BUCKET_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ARE_FILLED: Final = (LocationType.BUFFER, LocationType.LONG_TERM_ARCHIVE)
_STORE_URL: Final = re.compile(r"https?://[^/@\s]+/?")
_HOST: Final = re.compile(r"([a-zA-Z0-9_][a-zA-Z0-9_.-]*@)?[a-zA-Z0-9][a-zA-Z0-9.-]*")


@dataclass(frozen=True)
class OnDisk:
    """A directory, at the same path for all that serve it."""

    storage: ClassVar = StorageType.DISK
    path: str
    host: str | None = None
    """Host that has the disk, perhaps with `user@` before; None where all that serve it see it."""

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, kw_only=True)
class InBucket:
    """A bucket of an object store, or what begins with a prefix in it."""

    storage: ClassVar = StorageType.S3
    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True)
class OnTape:
    """A tape library, which is known and refused."""

    storage: ClassVar = StorageType.TAPE


Place: TypeAlias = OnDisk | InBucket | OnTape


class NameTaken(CcatError):
    """A site is to be added whose name another one has."""

    code = "name_taken"

    def __init__(self, site: str) -> None:
        super().__init__(f"There is a site {site} already: `ccat sites` lists them.")


class LocationTaken(CcatError):
    """A location is to be added whose name or place another one has."""

    code = "location_taken"

    def __init__(self, name: str, other: str, place: Place) -> None:
        kind = "directory" if isinstance(place, OnDisk) else "bucket"
        what = f"There is a location {name} already" if name == other else f"{place} is the {kind} of {other} already"
        super().__init__(f"{what}: `ccat locations` lists them, and `ccat location set {other}` changes it.")


class BadName(CcatError):
    """A name or an address of something that is to be added cannot be one."""

    code = "bad_name"

    def __init__(self, what: str, name: str, rule: str) -> None:
        super().__init__(f"`{name}` cannot be the {what}: {rule}. Nothing was changed.")


class StorageRefused(CcatError):
    """A location is to be added on a storage that cannot be used for what it is for."""

    code = "storage_refused"

    def __init__(self, name: str, location_type: LocationType, storage: StorageType) -> None:
        possible = listed(sorted(STORAGES[location_type]))
        why = "no backend reads and writes tape" if storage is StorageType.TAPE else "its files are read in place"
        gateway = " A tape library with a disk in front of it, or with an S3 gateway, is one of these."
        super().__init__(
            f"Location {name} cannot be on {storage}: {why}. As {location_type} it can be on {possible} (`--storage`)."
            f"{gateway if storage is StorageType.TAPE else ''} Nothing was added."
        )


def add_site(session: Session, short_name: str, *, name: str) -> models.Site:
    """One more place with storage or computers. Raises BadName and NameTaken."""
    if not _SITE_NAME.fullmatch(short_name):
        raise BadName("short name of a site", short_name, "it has small letters, digits and `-`")
    if session.scalar(sa.select(models.Site.id).filter_by(short_name=short_name)) is not None:
        raise NameTaken(short_name)
    site = models.Site(short_name=short_name, name=name)
    session.add(site)
    session.flush()
    return site


def list_sites(session: Session) -> Mapping[str, str]:
    """Full names of the sites, by their short ones."""
    site = models.Site
    return dict(session.execute(sa.select(site.short_name, site.name).order_by(site.short_name)).all())


def add_location(
    session: Session,
    site: str,
    name: str,
    *,
    place: Place,
    location_type: LocationType,
    backend: BackendName | None = None,
    priority: int = 0,
) -> models.DataLocation:
    """One more location; only a processing location has a backend.

    Raises UnknownName, BadName, StorageRefused and LocationTaken.
    """
    at_site = find(session, SITE, site)
    whole = f"{site}/{name}"
    if isinstance(place, OnTape) or place.storage not in STORAGES[location_type]:
        raise StorageRefused(whole, location_type, place.storage)
    _require_names(name, place)
    for one in session.scalars(sa.select(models.DataLocation)).all():
        if (one.site_id == at_site.id and one.name == name) or _is_there(one, place, at_site):
            raise LocationTaken(whole, f"{one.site.short_name}/{one.name}", place)
    kind = {"location_type": location_type, "backend": backend, "priority": priority}
    location = _row(place, site=at_site, name=name, **kind)
    session.add(location)
    session.flush()
    return location


def _require_names(name: str, place: Place) -> None:
    if not _LOCATION_NAME.fullmatch(name):
        raise BadName("name of a location", name, "it has small letters, digits, `-` and `_`")
    if isinstance(place, OnDisk):
        _require_disk(place)
    if not isinstance(place, InBucket):
        return
    if not _BUCKET_NAME.fullmatch(place.bucket):
        raise BadName("bucket", place.bucket, "it has 3 to 63 small letters, digits, `-` and `.`")
    if place.prefix.startswith("/") or ".." in place.prefix.split("/"):
        raise BadName("prefix", place.prefix, "it is a path below the bucket, such as `raw`")
    if place.endpoint_url is not None and not _STORE_URL.fullmatch(place.endpoint_url):
        rule = "it is the address of a store, such as `https://s3.example.org`; credentials come from the environment"
        raise BadName("endpoint", place.endpoint_url, rule)


def _require_disk(place: OnDisk) -> None:
    if not place.path.startswith("/") or normpath(place.path).strip("/") == "":
        raise BadName("directory", place.path, "it is an absolute path below `/`, such as `/data/ccat/buffer`")
    if not place.path.isprintable():
        raise BadName("directory", repr(place.path), "each of its characters can be printed")
    if place.host is not None and not _HOST.fullmatch(place.host):
        raise BadName("host", place.host, "it is what rsync reaches over SSH, such as `telescope` or `ccat@telescope`")


def _is_there(one: models.DataLocation, place: Place, site: models.Site) -> bool:
    match place, one:
        case OnDisk(path=path), models.DiskDataLocation():
            return one.site_id == site.id and normpath(one.path) == normpath(path)
        case InBucket(), models.S3DataLocation():
            return _keys(one) == _keys(place)
        case _:
            return False


def _keys(place: InBucket | models.S3DataLocation) -> tuple[str, str, str]:
    """Where the keys of a location lie, however that is written."""
    return (place.endpoint_url or "").rstrip("/"), place.bucket, place.prefix.rstrip("/")


def _row(place: OnDisk | InBucket, **values: Any) -> models.DataLocation:
    match place:
        case OnDisk():
            return models.DiskDataLocation(**vars(place), **values)
        case InBucket():
            return models.S3DataLocation(**vars(place), **values)


_TAKEN_AWAY: Final = {"path": "", "bucket": "", "prefix": ""}
"""What is left of what a place always has; else None."""


class OtherStorage(CcatError):
    """Something is said of where the files of a location lie that its storage does not have."""

    code = "other_storage"

    def __init__(self, name: str, storage: StorageType, options: Collection[str]) -> None:
        super().__init__(
            f"Location {name} is on {storage}, which has no {listed(sorted(options))}. Nothing was changed."
        )


def move_location(session: Session, name: str, **now: str | None) -> int:
    """Say where the files of a location lie now: nothing is copied, and no process is told.

    How many copies count only once they were read there: those that were verified where it lay before. `now` has fields
    of OnDisk or InBucket: None is as it was, and an empty text takes a value away. Raises UnknownName, OtherStorage,
    BadName, LocationTaken and, where it lies elsewhere then, LocationInUse.
    """
    location = find(session, LOCATION, name)
    given: dict[str, Any] = {
        field: value or _TAKEN_AWAY.get(field) for field, value in now.items() if value is not None
    }
    was = _place(location)
    if others := given.keys() - vars(was).keys():
        raise OtherStorage(name, location.storage_type, others)
    place = replace(was, **given)
    _require_names(location.name, place)
    for one in session.scalars(sa.select(models.DataLocation).where(models.DataLocation.id != location.id)).all():
        if _is_there(one, place, location.site):
            raise LocationTaken(name, f"{one.site.short_name}/{one.name}", place)
    unread = 0 if _is_same(was, place) else vacate(session, location, name)
    for field in given:
        setattr(location, field, getattr(place, field))
    session.flush()
    return unread


def _is_same(was: Place, now: Place) -> bool:
    """Whether files lie where they lay: a host that was not named before, or an account there, is another way to it."""
    match was, now:
        case OnDisk(), OnDisk():
            hosts = {one.host.rpartition("@")[2] for one in (was, now) if one.host}
            return normpath(was.path) == normpath(now.path) and len(hosts) < 2  # noqa: PLR2004 - another one
        case InBucket(), InBucket():
            return _keys(was) == _keys(now)
        case _:
            return was == now


def _place(one: models.DataLocation) -> Place:
    match one:
        case models.DiskDataLocation():
            return OnDisk(one.path, host=one.host)
        case models.S3DataLocation():
            return InBucket(bucket=one.bucket, prefix=one.prefix, endpoint_url=one.endpoint_url, region=one.region)
        case _:
            return OnTape()


class NoArchive(CcatError):
    """Something of archives is said of another location."""

    code = "no_archive"

    def __init__(self, name: str, kind: LocationType) -> None:
        super().__init__(f"Location {name} is a {kind} location: only archives are read again. Nothing was changed.")


class NothingIsPut(CcatError):
    """A location was to be put out of use, or into it, where no transfer puts anything new."""

    code = "nothing_is_put"

    def __init__(self, name: str, kind: LocationType) -> None:
        super().__init__(
            f"Location {name} is a {kind} location: only buffers and archives are active or not. "
            "`ccat pause --location` holds runs. Nothing was changed."
        )


def change_scrubbing(session: Session, name: str, *, days: int | None, mb_per_s: float | None) -> None:
    """Change after how many days copies at an archive are read again, and how fast. Raises UnknownName, NoArchive."""
    if days is None and mb_per_s is None:
        return
    location = find(session, LOCATION, name)
    if location.location_type is not LocationType.LONG_TERM_ARCHIVE:
        raise NoArchive(name, location.location_type)
    location.scrub_days = location.scrub_days if days is None else days
    location.scrub_mb_per_s = location.scrub_mb_per_s if mb_per_s is None else mb_per_s
    location.archive_look_at = None


def change_location(
    session: Session,
    name: str,
    *,
    reserve_bytes: int | None = None,
    settings: Mapping[str, Any] | None = None,
    active: bool | None = None,
    priority: int | None = None,
) -> models.DataLocation:
    """Change the reserve of a location, settings of its backend, or whether it is active and how it ranks.

    None of the settings takes one away; processes read them when they start. At a location that is not active nothing
    new is put; what is on its way goes on, and what is there is used. Raises UnknownName and NothingIsPut.
    """
    location = find(session, LOCATION, name)
    if active is not None and location.location_type not in _ARE_FILLED:
        raise NothingIsPut(name, location.location_type)
    if reserve_bytes is not None:
        location.free_space_reserve_bytes = reserve_bytes
        tell_limits(session)
    merged = {**location.backend_settings, **(settings or {})}
    location.backend_settings = {key: value for key, value in merged.items() if value is not None}
    location.active = location.active if active is None else active
    if location.active:
        location.lost_at = location.lost_because = None
    location.priority = location.priority if priority is None else priority
    session.flush()
    return location
