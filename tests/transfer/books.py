"""What the database says of copies, and what lies where: whether a file is safe."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.plan.marks import MARK
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState, PhysicalCopyStatus
from tests.transfer.support import Observatory, digest

_Status: Final = PhysicalCopyStatus
THERE: Final = (_Status.PRESENT, _Status.STAGED)
_LET_GO: Final = (_Status.DELETION_IN_PROGRESS, _Status.DELETION_FAILED, _Status.DELETED)


@dataclass(frozen=True)
class Place:
    """A file, or a directory, somewhere."""

    location: str
    path: str


@dataclass
class Grounds:
    """The disks of an observatory, some of which may be away, and what was damaged there behind everybody's back."""

    observatory: Observatory
    away: set[str] = field(default_factory=set)
    hurt: dict[Place, datetime] = field(default_factory=dict)
    """What was damaged or removed, and when."""

    def root(self, location: str) -> Path:
        top = self.observatory.root
        return top / f"away/{location}" if location in self.away else top / location

    def file(self, place: Place) -> Path:
        return self.root(place.location) / place.path

    def lose_or_return(self, location: str) -> None:
        here, there = self.observatory.directory(location), self.observatory.root / f"away/{location}"
        if location in self.away:
            there.rename(here)
            self.away.remove(location)
        else:
            there.parent.mkdir(parents=True, exist_ok=True)
            here.rename(there)
            self.away.add(location)

    def hurt_file(self, place: Place, how: str) -> None:
        """Damage or remove a file."""
        file = self.file(place)
        whole = file.read_bytes()
        file.chmod(0o600)
        if how == "remove":
            file.unlink()
        else:
            file.write_bytes(whole[:-1] if how == "cut" else flipped(whole))

    def files(self, locations: Collection[str]) -> list[Place]:
        found = ((one, self.root(one)) for one in locations)
        places = (Place(one, str(file.relative_to(root))) for one, root in found for file in root.rglob("*"))
        there = (one for one in places if self.file(one).is_file() and one.path != MARK)
        return sorted(there, key=lambda one: (one.location, one.path))

    def is_hurt_since(self, place: Place, copy: models.PhysicalCopy) -> bool:
        """Whether somebody hurt it, or a file of it, and nobody has read it since, whatever a person said of it."""
        inside = f"{place.path}/"
        times = [
            at
            for one, at in self.hurt.items()
            if one.location == place.location and (one.path == place.path or one.path.startswith(inside))
        ]
        return any(copy.verified_at is None or copy.verified_at < at for at in times)


@dataclass(frozen=True)
class Books:
    """Everything at one moment; the files themselves are looked at when they are asked for."""

    grounds: Grounds
    files: Mapping[str, bytes]
    """What was registered, by path at the source."""
    package_of: Mapping[str, int]
    archives: Collection[str]

    @cached_property
    def rows(self) -> list[tuple[Place, models.PhysicalCopy]]:
        query = LOCATION.rows.with_only_columns(models.PhysicalCopy, LOCATION.label)
        query = query.join(models.PhysicalCopy, models.PhysicalCopy.data_location_id == models.DataLocation.id)
        with transaction(self.grounds.observatory.engine) as session:
            found = session.execute(query.order_by(models.PhysicalCopy.id)).all()
            return [(Place(name, copy.path), copy) for copy, name in found]

    @cached_property
    def packages(self) -> Mapping[int, models.RawDataPackage]:
        with transaction(self.grounds.observatory.engine) as session:
            return {one.id: one for one in session.scalars(sa.select(models.RawDataPackage))}

    def archived(self) -> list[int]:
        return sorted(one.id for one in self.packages.values() if one.state is PackageState.ARCHIVED)

    def tars(self, package_id: int) -> Iterator[tuple[Place, models.PhysicalCopy]]:
        """Copies of a package that are not unpacked, and that anybody may rely on, whatever they are."""
        for place, copy in self.rows:
            if copy.raw_data_package_id == package_id and copy.path.endswith(".tar") and copy.status not in _LET_GO:
                yield place, copy

    def counted(self, package_id: int) -> list[Place]:
        """Archive copies that other copies may go for."""
        checksum = self.packages[package_id].checksum
        return [
            place
            for place, copy in self.tars(package_id)
            if place.location in self.archives and copy.status is _Status.PRESENT
            if copy.verified_at is not None and copy.checksum == checksum
        ]

    def is_safe(self, path: str) -> bool:
        """Whether a file is whole where the rules let nothing go.

        That is in an archive, where other copies may go for one that counts there, and anywhere where none does.
        """
        package_id = self.package_of[path]
        counted = self.counted(package_id)
        if counted:
            return any(self.is_whole(place, package_id) for place in counted)
        return self.is_spared(path)

    def is_spared(self, path: str) -> bool:
        """Whether it is whole in any tar, or as its instrument wrote it, that was not let go."""
        package_id = self.package_of[path]
        return self.is_whole_at_source(path) or any(
            self.is_whole(place, package_id) for place, _ in self.tars(package_id)
        )

    def is_whole_at_source(self, path: str) -> bool:
        found = [self.grounds.file(place) for place in self.raw(path)]
        return any(one.exists() and one.read_bytes() == self.files[path] for one in found)

    def raw(self, path: str) -> list[Place]:
        """Where a raw file is that was not let go, whatever it is; one place or none."""
        return [
            place
            for place, copy in self.rows
            if copy.raw_data_file_id is not None and copy.path == path and copy.status not in _LET_GO
        ]

    def is_whole(self, place: Place, package_id: int) -> bool:
        file = self.grounds.file(place)
        return file.exists() and digest(file.read_bytes()) == self.packages[package_id].checksum


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data
