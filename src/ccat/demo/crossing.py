"""How raw packages got from the telescope into the archive, as `ccat packages` and `ccat routes` list it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ccat_ops_db.plan.advice import span
from ccat_ops_db.plan.spaces import size

PACKED_AT: Final = "ccat/buffer"
RECEIVED_AT: Final = "cologne/buffer"
ARCHIVED_AT: Final = "cologne/lta"
STAGED_AT: Final = "cologne/ramses"


@dataclass(frozen=True, kw_only=True)
class Package:
    """A raw package, as far as its way is concerned."""

    id: int
    name: str
    size_bytes: int
    transfer_package: str | None
    copies: Sequence[str]
    """Locations where it is."""


def package_of(row: Mapping[str, Any]) -> Package:
    """A package as `ccat packages` lists it."""
    same = ("id", "name", "transfer_package", "copies")
    return Package(**{name: row[name] for name in same}, size_bytes=row["size_bytes"] or 0)


def route_sentence(route: Mapping[str, Any]) -> str:
    """What a route does, as `ccat routes` lists it."""
    wait = span(route["package_wait_seconds"] / 3600)
    return (
        f"Raw data cross from {PACKED_AT} to {RECEIVED_AT} in transfer packages, along the route {route['name']}: "
        f"each is sent once it has {size(route['package_bytes'])}, or its oldest data waited {wait} for more"
    )


def crossing_sentences(packages: Iterable[Package]) -> list[str]:
    """What became of packages, a sentence for each transfer package."""
    by_parcel: dict[str, list[Package]] = {}
    for one in packages:
        if one.transfer_package:
            by_parcel.setdefault(one.transfer_package, []).append(one)
    return [_sentence(parcel, inside) for parcel, inside in by_parcel.items()]


def _sentence(parcel: str, inside: Sequence[Package]) -> str:
    packages = f"{len(inside)} raw package{'' if len(inside) == 1 else 's'}"
    bytes_inside = size(sum(one.size_bytes for one in inside))
    staged = sum(STAGED_AT in one.copies for one in inside) or "none"
    return (
        f"transfer package {parcel}: {packages}, {bytes_inside}, sent from {PACKED_AT} to {RECEIVED_AT}, "
        f"verified there, archived at {ARCHIVED_AT}; {staged} staged at {STAGED_AT} so far"
    )


def crossing_deviations(packages: Iterable[Package]) -> list[str]:
    """A sentence for every package that did not cross, or is not in the archive."""
    return [
        f"raw package {one.name}: expected {expected}, found {found}"
        for one in packages
        for is_so, expected, found in (
            (one.transfer_package is not None, "a transfer package that it crossed in", "none"),
            (ARCHIVED_AT in one.copies, f"a copy at {ARCHIVED_AT}", f"copies at {', '.join(one.copies) or 'no place'}"),
        )
        if not is_so
    ]
