"""What of an archive may be taken up: packages that lie there and are not known, as the files beside them tell.

Nothing that is known is ever changed by what an archive tells: where the two disagree, the package is refused.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import Final, TypeAlias

from ccat_data_transfer.backends.base import Seal
from ccat_data_transfer.plan import Group, tar_path
from ccat_data_transfer.sidecar import DescribedFile, Sidecar

_TOLD_FIRST: Final = "say it first (`ccat apply -f`), then adopt again"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A tar in an archive, of which no copy is known there, and what lies beside it tells of it."""

    path: str
    size_bytes: int
    seal: Seal
    told: Sidecar

    @property
    def name(self) -> str:
        """Name of the package."""
        return self.told.package.name

    @property
    def scan_id(self) -> uuid.UUID:
        """Scan whose files it holds."""
        return self.told.observation.id

    @property
    def module(self) -> str:
        """Module whose files it holds, as `instrument/module`."""
        return f"{self.told.instrument.instrument}/{self.told.instrument.module}"


@dataclass(frozen=True)
class Refused:
    """Something in an archive that is not taken up."""

    path: str
    because: str


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A package that is to be taken up, and what its names mean here."""

    found: Found
    obs_unit_id: int
    telescope_id: int
    module_id: int
    package_id: int | None
    """The package, where only this copy of it is not known, or that it is in an archive."""

    @property
    def files(self) -> Mapping[uuid.UUID, DescribedFile]:
        """Its raw files by their identifiers."""
        return {identifier(self.found.scan_id, file): file for file in self.found.told.files}


Verdict: TypeAlias = Accepted | Refused


@dataclass(frozen=True)
class KnownScan:
    """What is known of a scan."""

    obs_unit_id: int
    telescope_id: int
    started_at: datetime


@dataclass(frozen=True)
class KnownPackage:
    """What is known of a package."""

    id: int | None
    """None for one that is about to be taken up."""
    name: str
    group: Group
    part: int
    checksum: str | None
    """None while it is not packed."""


@dataclass(frozen=True)
class KnownFile:
    """What is known of a raw file."""

    id: uuid.UUID
    group: Group
    path: str
    content: tuple[int, str]
    """Size in bytes and checksum."""
    package: str | None
    """Name of the package that holds it, once that was decided."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of what packages name; `judge` adds what it accepts, so that these agree with one another."""

    obs_units: Mapping[str, int]
    telescopes: Mapping[str, int]
    modules: Mapping[str, int]
    scans: dict[uuid.UUID, KnownScan] = field(default_factory=dict)
    packages: dict[str, KnownPackage] = field(default_factory=dict)
    parts: dict[tuple[Group, int], str] = field(default_factory=dict)
    """Names of packages."""
    files: dict[tuple[Group, str], KnownFile] = field(default_factory=dict)
    places: dict[uuid.UUID, tuple[Group, str]] = field(default_factory=dict)
    """Where in `files` a file is."""

    def add_package(self, package: KnownPackage) -> None:
        """Know a package too."""
        self.packages[package.name] = package
        self.parts[package.group, package.part] = package.name

    def add_file(self, file: KnownFile) -> None:
        """Know a raw file too."""
        self.files[file.group, file.path] = file
        self.places[file.id] = (file.group, file.path)


def identifier(scan_id: uuid.UUID, file: DescribedFile) -> uuid.UUID:
    """Identifier of a raw file; where version 1 does not tell it, the one that `ccat scan add` makes."""
    return file.id or uuid.uuid5(scan_id, file.path)


def judge(found: Iterable[Found], known: Known) -> list[Verdict]:
    """Which packages may be taken up, and why not the others, in their order."""
    return [_judge(one, known) for one in found]


def _judge(one: Found, known: Known) -> Verdict:
    because = _misplaced(one) or _not_planned(one, known)
    if because is not None:
        return Refused(one.path, because)
    module_id, told = known.modules[one.module], one.told.observation
    scan = KnownScan(known.obs_units[told.obs_unit], known.telescopes[one.told.instrument.telescope], told.start)
    group = one.scan_id, module_id
    because = _of_another_scan(one, scan, known) or _another_package(one, group, known)
    because = because or _other_files(one, group, known)
    if because is not None:
        return Refused(one.path, because)
    package = known.packages.get(one.name)
    accepted = Accepted(
        found=one,
        obs_unit_id=scan.obs_unit_id,
        telescope_id=scan.telescope_id,
        module_id=module_id,
        package_id=package.id if package else None,
    )
    _remember(accepted, group, known)
    return accepted


def _misplaced(one: Found) -> str | None:
    """What a tar and its description do not agree about, or a description within itself."""
    told = one.told
    place, paths = tar_path(one.name, told.observation.observing_night), [file.path for file in told.files]
    if one.path != place or told.tar.name != PurePosixPath(place).name:
        return f"what lies beside it describes {place}"
    if one.size_bytes != told.tar.size_bytes:
        return f"it has {one.size_bytes:,} bytes, and is described as {told.tar.size_bytes:,}"
    if told.observation.end is not None and told.observation.end < told.observation.start:
        return "its scan is described as one that ended before it started"
    if len(set(paths)) < len(paths) or not paths:
        return "its files are not described one by one"
    return None


def _not_planned(one: Found, known: Known) -> str | None:
    """What has to be defined here before a package can be taken up."""
    told, of = one.told.observation, one.told.instrument
    if told.obs_unit not in known.obs_units:
        planned = f"program `{told.program.short_name}`, source `{told.target.name}`, mode `{told.mode}`"
        return f"observation `{told.obs_unit}` ({planned}) is not known: {_TOLD_FIRST}"
    if of.telescope not in known.telescopes:
        return f"telescope `{of.telescope}` of observatory `{of.observatory}` is not known: record it, then adopt again"
    if one.module not in known.modules:
        return f"instrument module `{one.module}` of `{of.telescope}` is not known: record it, then adopt again"
    return None


def _of_another_scan(one: Found, told: KnownScan, known: Known) -> str | None:
    recorded = known.scans.get(one.scan_id, told)
    if recorded == told:
        return None
    return (
        f"scan {one.scan_id} is known with another observation, telescope or start than is described: "
        f"{recorded.started_at:%F %T}, described {told.started_at:%F %T}"
    )


def _another_package(one: Found, group: Group, known: Known) -> str | None:
    told, here = one.told.package, known.packages.get(one.name)
    if here is not None and (here.group, here.part) != (group, told.part):
        return f"package {one.name} is known as one of another scan, module or part"
    other = known.parts.get((group, told.part), one.name)
    if other != one.name:
        return f"part {told.part} of its scan and module is known as package {other}"
    if here is not None and here.id is None:
        return f"package {one.name} lies there more than once"
    if here is not None and here.checksum not in {None, one.told.tar.checksum}:
        return f"package {one.name} is known with other bytes: {here.checksum}, described is {one.told.tar.checksum}"
    return None


def _other_files(one: Found, group: Group, known: Known) -> str | None:
    here = known.packages.get(one.name)
    if here is not None and here.checksum is not None:
        return None  # the same tar
    for file in one.told.files:
        if because := _another_file(one, file, group=group, known=known):
            return because
    of_package = {file.path for file in known.files.values() if file.package == one.name} if here else set[str]()
    left_out = of_package.difference(file.path for file in one.told.files)
    return f"package {one.name} is known to hold {min(left_out)} too, which is not described" if left_out else None


def _another_file(one: Found, file: DescribedFile, *, group: Group, known: Known) -> str | None:
    here, identity = known.files.get((group, file.path)), identifier(one.scan_id, file)
    if known.places.get(identity, (group, file.path)) != (group, file.path):
        return f"raw file {identity} is known under another path than {file.path}"
    if here is None:
        return None
    if here.content != (file.size_bytes, file.checksum):
        return f"raw file {file.path} is known with other bytes: {here.content[1]}, described is {file.checksum}"
    if here.package not in {None, one.name}:
        return f"raw file {file.path} is known to be in package {here.package}"
    return None


def _remember(accepted: Accepted, group: Group, known: Known) -> None:
    one = accepted.found
    known.scans[one.scan_id] = KnownScan(accepted.obs_unit_id, accepted.telescope_id, one.told.observation.start)
    part, checksum = one.told.package.part, one.told.tar.checksum
    known.add_package(KnownPackage(accepted.package_id, one.name, group, part, checksum))
    for identity, file in accepted.files.items():
        if (group, file.path) not in known.files:
            content = file.size_bytes, file.checksum
            known.add_file(KnownFile(identity, group, file.path, content, one.name))
