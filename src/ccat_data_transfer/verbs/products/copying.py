"""The bytes of products on their way into an archive: each file compared with what was registered, and read back."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from ccat_data_transfer.backends.base import Store, Stored, pour
from ccat_data_transfer.backends.behind import Behind
from ccat_data_transfer.backends.errors import (
    BadFile,
    FileDiffers,
    FileMissing,
    FileUnreadable,
    LocationFails,
    PathLeavesLocation,
)
from ccat_data_transfer.backends.movers import unreadable
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.tar import Writable
from ccat_data_transfer.verbs.products.plan import listing_path
from ccat_data_transfer.verbs.products.trees import digest_of, is_directory, looked
from ccat_ops_db.errors import CcatError
from ccat_ops_db.plan.trees import TreeFile, tree_checksum, tree_listing

_AT_ONCE: Final = 4
_SMALL: Final = 1 << 20
"""Bytes up to which products are copied side by side, as they wait for the disk or the store most of the time."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A product that is archived."""

    relative_path: str
    size_bytes: int
    checksum: str
    copy_id: int
    """Its copy in the archive, which is WRITING."""
    origin_copy_id: int | None
    origin_path: str | None
    """None where it has no copy where it comes from."""


@dataclass(frozen=True)
class Seen:
    """A product as it is in the archive."""

    size_bytes: int
    checksum: str
    mtime_ns: int | None
    """None for a directory in an object store, which has none; so is its inode."""
    inode: int | None


Outcome = tuple[Item, Seen | BadFile | FileUnreadable]
"""What was seen of a product, or what is wrong with it alone."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Products that were not copied, each with the reason."""

    bad: list[tuple[Item, BadFile]] = field(default_factory=list)
    unread: list[tuple[Item, FileUnreadable]] = field(default_factory=list)
    """What cannot be read, while others at its location can."""

    def add(self, item: Item, problem: BadFile | FileUnreadable, *, is_condemned: bool) -> None:
        """Note why a product was not copied; what cannot be read, and was condemned where it lies, is bad."""
        if isinstance(problem, BadFile):
            self.bad.append((item, problem))
        elif is_condemned:
            told = f"cannot be read ({problem.said}), and was found damaged or gone there"
            self.bad.append((item, BadFile(problem.location, problem.path, told)))
        else:
            self.unread.append((item, problem))


@dataclass(frozen=True, kw_only=True)
class Copier:
    """Copies products of one run."""

    origin: Disk
    archive: Store
    directory: str
    """Where they go."""

    def copy_all(self, items: Sequence[Item]) -> Iterator[Outcome]:
        """Copy products; each with what was seen of it in the archive, or with why it alone cannot be copied."""
        small = [item for item in items if item.size_bytes <= _SMALL]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            yield from zip(small, threads.map(self._outcome, small), strict=True)
        yield from ((item, self._outcome(item)) for item in items if item.size_bytes > _SMALL)

    def is_begun(self, item: Item) -> bool:
        """Whether anything of a product may be in the archive; of a directory that is not known."""
        return PurePosixPath(item.relative_path).suffix == ".zarr" or self.archive.seal(self._path(item)) is not None

    def _outcome(self, item: Item) -> Seen | BadFile | FileUnreadable:
        try:
            return self._copy(item)
        except BadFile as problem:
            return problem
        except (LocationFails, PathLeavesLocation) as trouble:
            if trouble.location != self.origin.name:
                raise
            return unreadable(self.origin, item.origin_path or item.relative_path, trouble)

    def _copy(self, item: Item) -> Seen:
        if item.origin_path is None:
            raise FileMissing(self.origin.name, item.relative_path)
        if is_directory(self.origin, item.origin_path):
            return self._copy_tree(item, item.origin_path)
        stored = self._copy_file(item.origin_path, self._path(item), size_bytes=item.size_bytes, checksum=item.checksum)
        return Seen(stored.size_bytes, item.checksum, stored.seal.mtime_ns, stored.seal.inode)

    def _copy_file(self, origin_path: str, path: str, *, size_bytes: int, checksum: str) -> Stored:
        def write(sink: Writable) -> None:
            pour(self.origin, origin_path, sink, size_bytes=size_bytes, checksum=checksum)

        return self.archive.publish(path, write, needs=size_bytes, checksum=checksum)

    def _copy_tree(self, item: Item, top: str) -> Seen:
        """Copy all files of a directory, then its listing: where that is, everything is.

        Each is read twice, as nobody knows the digest of one before all were read.
        """
        files = looked(self.origin, top)
        if tree_checksum(files) != item.checksum:
            where = self.origin.where(top)
            raise FileDiffers(self.origin.name, where, registered=item.checksum, found=tree_checksum(files))
        size = self._copy_files(item, top, files)
        listing = tree_listing(files)
        path = listing_path(self.directory, item.relative_path)
        self.archive.publish(path, _writing(listing), needs=len(listing), checksum=item.checksum)
        seal = self.archive.seal(self._path(item))
        return Seen(size, item.checksum, seal.mtime_ns if seal else None, seal.inode if seal else None)

    def _copy_files(self, item: Item, top: str, files: Sequence[TreeFile]) -> int:
        """Copy the files of a directory, small ones side by side; their size together."""
        sizes = {file: self.origin.size(f"{top}/{file.path}") or 0 for file in files}
        with closing(Behind(_AT_ONCE, progress=self.origin.progress, explain=self._explain)) as behind:
            for file, size in sizes.items():
                origin_path, path = f"{top}/{file.path}", f"{self._path(item)}/{file.path}"
                copy = partial(self._copy_file, origin_path, path, size_bytes=size, checksum=digest_of(file))
                behind.do(copy) if size <= _SMALL else copy()
            behind.finish()
        return sum(sizes.values())

    def _explain(self, error: OSError) -> CcatError:
        return LocationFails(self.archive.name, self.origin.root, error)

    def _path(self, item: Item) -> str:
        return f"{self.directory}/{item.relative_path}"


def _writing(content: bytes) -> Callable[[Writable], object]:
    return lambda sink: sink.write(content)
