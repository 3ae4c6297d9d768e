"""Files of a location on disk: written whole or not at all, and on the disk before anybody hears of them."""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from io import FileIO
from pathlib import Path
from stat import S_IMODE
from typing import Final, Protocol

from ccat_data_transfer.backends.base import Listed, Seal, Stored
from ccat_data_transfer.backends.behind import Behind, ReadBack, flush_files
from ccat_data_transfer.backends.directories import (
    files_below,
    flush_directories,
    flush_directory,
    make_directory,
    remove_quietly,
)
from ccat_data_transfer.backends.errors import (
    FileDiffers,
    FileMissing,
    LocationFails,
    LocationFull,
    LocationMissing,
    LocationTrouble,
    NoInodes,
    PathLeavesLocation,
    QuotaUsedUp,
    ReadBackDiffers,
)
from ccat_data_transfer.backends.filling import READ_ONLY, Filling
from ccat_data_transfer.backends.looks import look_of, seal_of, size_of
from ccat_data_transfer.backends.marks import leave_mark, require_own_disk
from ccat_data_transfer.backends.names import beside, left_of
from ccat_data_transfer.backends.page_cache import open_to_read
from ccat_data_transfer.backends.removing import give_back, remove, remove_left
from ccat_data_transfer.backends.streams import Reader, Sink
from ccat_data_transfer.tar import Writable
from ccat_ops_db.plan.marks import Mark
from ccat_ops_db.plan.names import PARTIAL, REMOVED
from ccat_service.spaces import has_inodes, require_mounted

_FLUSHED_AT_ONCE: Final = 8
_NOT_TO_BE_CHANGED: Final = (errno.EPERM, errno.EACCES, errno.EROFS)
_A_SECOND: Final = 10**9
"""In ns; disks that know times no better are rare."""


class Tree(Protocol):
    """A directory that is being filled."""

    def writing(self, relative_path: str, *, mode: int = READ_ONLY) -> AbstractContextManager[Sink]:
        """A new file of it, which gets these permissions in the end."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A location on disk, as one try of one transfer uses it.

    Paths are relative to its root and never lead out of it. Errors are a LocationTrouble or a BadFile.
    """

    name: str
    """`site/location`."""
    root: Path
    reserve_bytes: int = 0
    """Space that is left free."""
    token: str
    """Ends the names of what is unfinished; different for each try."""
    progress: Callable[[], None]
    """Called after every chunk that is read or written; what it raises ends the work."""
    mark: Mark | None = None
    """What its directory bears, from the first file on that is written there; None for one that goes without."""
    bore_mark: bool = False
    """Whether that was seen there: then a directory that has files without it is that of another disk."""
    holds_data: bool = False
    """Whether something is known to lie there: then an empty directory is one whose disk is away."""
    from_disk: bool = False
    """Whether files are read as the disk gives them, whatever of them is in memory."""
    _left: dict[Path, list[str]] = field(default_factory=dict, repr=False, compare=False)
    """What was unfinished in directories when this try came there first."""

    def where(self, path: str) -> Path:
        """A file as people would look for it."""
        return self.root / path

    def open(self, path: str, *, size_bytes: int | None = None, start: int = 0) -> Reader:
        """Reader of a file, for a `with`; raises FileMissing, or FileDiffers where its size is not `size_bytes`.

        It reads what is behind the first `start` bytes.
        """
        found = self._below(path)
        with self.explained():
            if not found.is_file():
                require_mounted(self.root)
                raise FileMissing(self.name, found)
            size = found.stat().st_size
            if size_bytes not in {None, size}:
                raise FileDiffers(self.name, found, registered=f"{size_bytes} bytes", found=f"{size} bytes")
            return self._reader(found, start=start)

    def checksum(self, path: str) -> str:
        """Digest of a file; raises FileMissing."""
        with self.open(path) as reader:
            reader.drain()
            return reader.checksum

    def was_put_as(self, path: str, checksum: str) -> bool:
        """Whether a file has this digest; only what has it gets its name."""
        return self.size(path) is not None and self.checksum(path) == checksum

    def publish(
        self,
        path: str,
        write: Callable[[Writable], object],
        *,
        needs: int,
        checksum: str | None = None,
        instead_of: Seal | None = None,
    ) -> Stored:
        """Make a file of what `write` gives, in place of any that is there; raises FileDiffers for another digest.

        It appears under its name whole, after it was flushed to the disk, read back from there and found right.
        `needs` is the space that it takes at most. A directory that is there has to have the seal `instead_of`.
        """
        with self._unfinished(path, needs) as (unfinished, target):
            with unfinished.open("x+b", buffering=0) as out, closing(self._behind(1, needs)) as behind:
                back = ReadBack(out, behind=behind, progress=self.progress)
                with self._writing(out, needs=needs, checksum=checksum, on_window=back.follow) as sink:
                    write(sink)
                os.fsync(out.fileno())
                read = back.checksum()
            if read != sink.checksum:
                raise ReadBackDiffers(self.name, self.root, written=sink.checksum, read=read)
            self._give_name(unfinished, target, instead_of)
            return Stored(sink.tell(), read, seal_of(target))

    def publish_tree(
        self, path: str, write: Callable[[Tree], None], *, needs: int, instead_of: Seal | None = None
    ) -> Stored:
        """Make a directory of the files that `write` writes; it appears whole, after it was flushed to the disk.

        Nothing must be there, or what has the seal `instead_of`. `needs` is the space that it takes at most.
        """
        with self._unfinished(path, needs) as (unfinished, target):
            unfinished.mkdir()
            with closing(self._behind(_FLUSHED_AT_ONCE, needs)) as behind:
                write(Filling(unfinished, behind, partial(self._writing, needs=needs)))
                behind.finish()
            flush_directories(unfinished, self.progress)
            self._give_name(unfinished, target, instead_of)
        return self.published_tree(path)

    def published_tree(self, path: str) -> Stored:
        """What `publish_tree` made at some time, flushed to the disk once more."""
        target = self._below(path)
        with self.explained():
            flush_directory(target.parent)
            return look_of(target, self.progress)

    def tree(self, path: str) -> Stored | None:
        """What a directory looks like now, which is what it was when it was made; None where there is none."""
        found = self._below(path)
        with self.explained():
            if found.is_dir():
                return look_of(found, self.progress)
            require_mounted(self.root)
            return None

    def inbox(self, path: str, *, needs: int) -> Path:
        """Directory for what somebody else brings, made where there is none; raises LocationFull without room for it.

        `needs` is what is still to come.
        """
        directory = self._below(path)
        with self.explained(needs):
            self._require_room(needs)
            make_directory(directory)
            return directory

    def require_there(self) -> None:
        """Raise LocationTrouble where the location as a whole cannot be used: it is not mounted, or cannot be read."""
        with self.explained():
            require_mounted(self.root)

    def room(self) -> int:
        """Bytes that may be written there now."""
        with self.explained():
            return shutil.disk_usage(self._below(".")).free - self.reserve_bytes

    def missing_bytes(self, path: str, files: Iterable[tuple[str, int]]) -> int:
        """How much of files, given by name and size, is not in an inbox yet."""
        directory = self._below(path)
        with self.explained():
            return sum(max(size - size_of(directory / name), 0) for name, size in files)

    def adopt(self, path: str, target: str, *, instead_of: Seal | None = None) -> Stored:
        """Give a file of an inbox, that was found right, its name, in place of any that has it; again if need be.

        A directory that has it has to have the seal `instead_of`.
        """
        found, wanted = self._below(path), self._below(target)
        with self.explained():
            make_directory(wanted.parent)
            if found.exists():
                found.chmod(READ_ONLY)
                self._give_name(found, wanted, instead_of)
                flush_directory(found.parent)
            flush_directory(wanted.parent)
            return Stored(wanted.stat().st_size, None, seal_of(wanted))

    def adopt_tree(self, path: str, target: str, *, instead_of: Seal | None = None) -> Stored:
        """Give a directory of an inbox, that was found right, its name; again if need be.

        Nothing else must have it, or what has the seal `instead_of`.
        """
        found, wanted = self._below(path), self._below(target)
        with self.explained():
            if found.exists():
                make_directory(wanted.parent)
                with closing(self._behind(_FLUSHED_AT_ONCE, 0)) as behind:
                    flush_files(found, behind)
                flush_directories(found, self.progress)
                self._give_name(found, wanted, instead_of)
                flush_directory(found.parent)
        return self.published_tree(target)

    def files(self, path: str) -> set[str]:
        """Paths of what a directory holds, relative to it, directories left out."""
        top = self._below(path)
        with self.explained():
            return {str(found.relative_to(top)) for found in self._passing(top.rglob("*")) if not found.is_dir()}

    def listed(self, directory: str) -> Iterator[Listed]:
        """Files below a directory, those of each directory in it together; none where it is not there."""
        top = self._below(directory)
        with self.explained():
            require_mounted(self.root)
            for file in self._passing(files_below(top)):
                yield Listed(str(file.relative_to(self.root)), file.stat().st_size, seal_of(file))

    def _passing(self, found: Iterable[Path]) -> Iterator[Path]:
        for one in found:
            self.progress()
            yield one

    def seal(self, path: str) -> Seal | None:
        """Seal of what has this name; None where nothing has."""
        found = self._below(path)
        with self.explained():
            return seal_of(found, self.progress) if found.exists() else None

    def seal_anew(self, path: str) -> Seal | None:
        """The same, after it got another seal; whoever knows the one before does not remove it.

        What is another user's, or on a disk that is read-only now, keeps the one that it has. Whose removal ended once
        it had lost its name gets that back, if it can be nothing else.
        """
        found = self._below(path)
        with self.explained():
            give_back(found)
            try:
                later = seal_of(found, self.progress).mtime_ns + _A_SECOND
                os.utime(found, ns=(later, later))
            except FileNotFoundError:
                require_mounted(self.root)
                return None
            except OSError as error:
                if error.errno not in _NOT_TO_BE_CHANGED:
                    raise
            return seal_of(found, self.progress)

    def size(self, path: str) -> int | None:
        """Size of a file in bytes; None where there is none."""
        found = self._below(path)
        with self.explained():
            return found.stat().st_size if found.is_file() else None

    def changed_at(self, path: str) -> datetime:
        """When anything was done to a file last; unlike its modification time, nobody can set this."""
        found = self._below(path)
        with self.explained():
            return datetime.fromtimestamp(max(found.stat().st_ctime, found.lstat().st_ctime), UTC)

    def mode(self, path: str) -> int:
        """Permissions of a file."""
        found = self._below(path)
        with self.explained():
            return S_IMODE(found.stat().st_mode)

    def set_mode(self, path: str, mode: int) -> None:
        """Give a file these permissions."""
        found = self._below(path)
        with self.explained():
            found.chmod(mode)

    def remove(self, path: str, *, sealed: Seal | None = None) -> None:
        """Remove a file or directory; nothing being there is fine. What is half removed has its name no more.

        With `sealed`, only what has this seal: raises FileDiffers where something else has the name by now.
        """
        target = self._below(path)
        with self.explained():
            if not os.path.lexists(target):
                require_mounted(self.root)
            other = remove(target, token=self.token, sealed=sealed, progress=self.progress)
        if other is not None:
            raise FileDiffers(self.name, target, registered=str(sealed), found=str(other))

    def remove_unfinished(self, path: str) -> None:
        """Remove all that anybody's tries to make a file or directory have left, and nothing that has its name.

        Whoever is still at it finds its own gone, and cannot give it the name any more.
        """
        target = self._below(path)
        with self.explained():
            require_mounted(self.root)
            remove_left(target, PARTIAL, self.progress)

    def _below(self, path: str) -> Path:
        if not os.path.isdir(self.root):  # noqa: PTH112 - Path.is_dir() raises where nobody may look at it
            raise LocationMissing(self.name, self.root)
        found = self._own_root / path
        if not Path(os.path.realpath(found)).is_relative_to(os.path.realpath(self.root)):
            raise PathLeavesLocation(self.name, found)
        return found

    @cached_property
    def _own_root(self) -> Path:
        """The root, once it was seen that it is no other location's, and no other disk."""
        if self.mark is not None:
            with self.explained():
                require_own_disk(self.mark, self.root, bore_mark=self.bore_mark)
        return self.root

    def _give_name(self, made: Path, target: Path, instead_of: Seal | None) -> None:
        """Give what was made its name. What had it is gone only once the other has it on the disk.

        A file takes the place of a file at once; anything else is moved aside first, if it is what was seen there.
        """
        aside, is_in_the_way = beside(target, f"{REMOVED}{self.token}"), made.is_dir() or target.is_dir()
        is_known = instead_of is not None and target.exists() and seal_of(target, self.progress) == instead_of
        if is_in_the_way and is_known:
            target.rename(aside)
        made.replace(target)
        flush_directory(target.parent)
        for one in (aside, *self._left_of(target, REMOVED)):
            remove_quietly(one, self.progress)

    def _partial(self, target: Path) -> Path:
        return beside(target, f"{PARTIAL}{self.token}")

    @contextmanager
    def _unfinished(self, path: str, needs: int) -> Iterator[tuple[Path, Path]]:
        """Where to write, and the name that it gets at the end; what is still unfinished then is removed."""
        target = self._below(path)
        unfinished = self._partial(target)
        try:
            with self.explained(needs):  # before anything is removed, which would hide why it failed
                self._require_room(needs)
                make_directory(target.parent)
                self._remove_partials(target)
                yield unfinished, target
        finally:
            remove_quietly(unfinished)

    def _remove_partials(self, target: Path) -> None:
        """Remove what earlier tries left: only who holds the lease gets here."""
        for one in self._left_of(target, PARTIAL):
            remove_quietly(one, self.progress)

    def _left_of(self, target: Path, ending: str) -> list[Path]:
        """What earlier tries left of a file or directory.

        A directory is looked through once for all that this try writes there, which may be the files of a large tree.
        """
        if target.parent not in self._left:
            with os.scandir(target.parent) as entries:
                self._left[target.parent] = [one.name for one in entries if PARTIAL in one.name or REMOVED in one.name]
        return left_of(target, ending, self._left[target.parent])

    def _require_room(self, needs: int) -> None:
        if self.holds_data:
            require_mounted(self.root)
        if shutil.disk_usage(self.root).free < needs + self.reserve_bytes or not has_inodes(self.root):
            raise self._full(needs)
        if self.mark is not None:
            leave_mark(self.root, self.mark)

    @contextmanager
    def _writing(
        self,
        out: FileIO,
        *,
        needs: int,
        checksum: str | None = None,
        mode: int = READ_ONLY,
        on_window: Callable[[int], None],
    ) -> Iterator[Sink]:
        explain = partial(self._explain, needs=needs)
        sink = Sink(out, checksum=checksum, on_window=on_window, progress=self.progress, explain=explain)
        with closing(sink):
            yield sink
        os.fchmod(out.fileno(), mode)

    def _behind(self, at_once: int, needs: int) -> Behind:
        return Behind(at_once, progress=self.progress, explain=partial(self._explain, needs=needs))

    def _reader(self, file: Path, *, start: int = 0) -> Reader:
        opened = open_to_read(file, start=start, from_disk=self.from_disk)
        return Reader(opened, location=self.name, where=file, progress=self.progress, explain=self._explain)

    @contextmanager
    def explained(self, needs: int = 0) -> Iterator[None]:
        """Whatever the system says against what is done inside, as an error of ours; `needs` is what room is for."""
        try:
            yield
        except OSError as error:
            raise self._explain(error, needs) from error

    def _explain(self, error: OSError, needs: int = 0) -> LocationTrouble:
        if error.errno == errno.ENOSPC:
            return self._full(needs)
        if error.errno == errno.EDQUOT:
            return QuotaUsedUp(self.name, self.root, needed=needs)
        return LocationFails(self.name, self.root, error)

    def _full(self, needs: int) -> LocationFull | NoInodes:
        if not has_inodes(self.root):
            return NoInodes(self.name, self.root)
        free = shutil.disk_usage(self.root).free
        return LocationFull(self.name, self.root, needed=needs, free=free, reserve=self.reserve_bytes)
