"""Products that are directories: their files, as their registered digest says, and whether all of them are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ccat_data_transfer.backends.base import Seal, Store, load
from ccat_data_transfer.backends.errors import BadFile, FileDiffers, LocationFails
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.verbs.products.plan import listing_beside
from ccat_ops_db.plan.trees import TreeFile, listed, tree_checksum

_SHA256: Final = "sha256:"


class Registered(Protocol):
    """A product as it was registered."""

    @property
    def relative_path(self) -> str:
        """Path below the products of its run."""

    @property
    def size_bytes(self) -> int:
        """Size; of a directory that of all its files."""

    @property
    def checksum(self) -> str:
        """Digest."""


def digest_of(file: TreeFile) -> str:
    """Digest of a file of a product, as it is written everywhere."""
    return _SHA256 + file.sha256


def looked(disk: Disk, top: str) -> list[TreeFile]:
    """The files of a directory, each read."""
    return [_look(disk, top, path) for path in sorted(disk.files(top))]


def _look(disk: Disk, top: str, path: str) -> TreeFile:
    place = f"{top}/{path}"
    return TreeFile(path, disk.mode(place), disk.checksum(place).removeprefix(_SHA256))


def is_directory(disk: Disk, path: str) -> bool:
    """Whether a directory has this name."""
    return disk.size(path) is None and disk.seal(path) is not None


def tree_at(store: Store, path: str, product: Registered) -> Sequence[TreeFile] | None:
    """The files of a product at a location, where it is a directory; None where it is a file, or nothing.

    They are those of its listing, where one lies beside it as in archives. Raises BadFile where that, or what is there,
    is not what was registered.
    """
    if (listing := _listing(store, path, product)) is not None:
        return listing
    if not isinstance(store, Disk) or not is_directory(store, path):
        return None
    files = looked(store, path)
    _require(store, path, product, found=tree_checksum(files))
    return files


def _listing(store: Store, path: str, product: Registered) -> Sequence[TreeFile] | None:
    place = listing_beside(path, product.relative_path)
    if store.size(place) is None:
        return None
    return list(listed(load(store, place, checksum=product.checksum)))


def confirm(disk: Disk, path: str, product: Registered) -> None:
    """Read a product at a location on disk as a whole; raises BadFile where it is not what was registered.

    Where its listing lies beside it, files get the permissions that this says.
    """
    if not is_directory(disk, path):
        with disk.open(path, size_bytes=product.size_bytes) as reader:
            reader.drain()
            reader.require(product.checksum)
        return
    found, listing = looked(disk, path), _listing(disk, path, product)
    if listing is None or {one.path: one.sha256 for one in found} != {one.path: one.sha256 for one in listing}:
        _require(disk, path, product, found=tree_checksum(found))
        return
    for one in listing:
        disk.set_mode(f"{path}/{one.path}", one.mode)


@dataclass(frozen=True)
class Before:
    """What has the name of a product at a location where it is to be."""

    is_whole: bool
    """Whether it is what was registered."""
    seal: Seal | None
    """None where nothing has the name."""


def look_before(disk: Disk, path: str, product: Registered) -> Before:
    """What is there before a product is brought: every byte is read.

    It is left there whatever it is, also a directory that cannot be read while its location can be: bytes that are
    nearly right are better than none, until a whole one takes their place.
    """
    before = disk.seal(path)
    try:
        if before is not None:
            confirm(disk, path, product)
    except BadFile:
        return Before(is_whole=False, seal=before)
    except LocationFails:
        disk.require_there()
        return Before(is_whole=False, seal=before)
    return Before(is_whole=before is not None, seal=before)


def _require(store: Store, path: str, product: Registered, *, found: str) -> None:
    if found != product.checksum:
        raise FileDiffers(store.name, store.where(path), registered=product.checksum, found=found)
