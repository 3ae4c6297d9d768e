"""Products that are brought along a route to a disk of another site, and compared there before they get their names."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from ccat_data_transfer.backends.errors import ArrivesDamaged, BadFile, FileMissing, FileUnreadable, NotKept
from ccat_data_transfer.backends.movers import MovesFiles, NotBrought, Parcel
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.verbs.products.copying import Item, Outcome, Seen
from ccat_data_transfer.verbs.products.plan import listing_beside
from ccat_data_transfer.verbs.products.trees import Before, confirm, is_directory, look_before


@dataclass(frozen=True, kw_only=True)
class Puller:
    """Brings products from a location of another site."""

    origin: Disk
    host: str | None
    """Host that the origin is reached at; None where it is seen from here."""
    move: MovesFiles
    disk: Disk
    inbox: str
    """Directory that they arrive in, the same for each try: what was brought is not brought again."""
    top: str
    """Directory of the origin that all of them lie in."""
    progress: Callable[[], None]
    path_of: Callable[[Item], str]
    """Where a product gets to."""
    has_listings: bool = False
    """Whether listings lie beside directories at the origin, as in archives."""

    def bring(self, items: Sequence[Item]) -> Iterator[Outcome]:
        """Bring products; each with what was seen of it, or with why it alone was brought in vain, or cannot be read.

        What arrives with other bytes than were registered is sent again, once. Raises NotKept where what was brought
        does not stay as it was.
        """
        damaged: list[Item] = []
        for item, told in self._bring(items):
            if told is None:
                damaged.append(item)
            else:
                yield item, told
        for item, told in self._bring(damaged):
            yield item, self._damaged(item) if told is None else told

    def done(self) -> None:
        """Leave nothing in the inbox."""
        self.disk.remove(self.inbox)

    def _bring(self, items: Sequence[Item]) -> Iterator[tuple[Item, Seen | BadFile | FileUnreadable | None]]:
        """The same, once; None for what arrived damaged."""
        before = {item.copy_id: look_before(self.disk, self.path_of(item), item) for item in items}
        gone = self._move([item for item in items if not before[item.copy_id].is_whole])  # else a try got so far
        for item in items:
            is_nowhere = item.origin_path is None and not before[item.copy_id].is_whole
            told = FileMissing(self.origin.name, item.relative_path) if is_nowhere else None
            yield item, told or self._seen(item, before[item.copy_id], gone)

    def _seen(self, item: Item, before: Before, gone: NotBrought) -> Seen | BadFile | FileUnreadable | None:
        """What is seen of what was brought; without its listing a directory may be right all the same."""
        if (problem := gone.get(item.origin_path or "")) is not None:
            return problem
        with self._kept():
            seen = self._take_out(item, before)
        return gone.get(self._listing(item) or "") if seen is None else seen

    def _damaged(self, item: Item) -> BadFile:
        where = self.origin.where(item.origin_path or item.relative_path)
        return ArrivesDamaged(self.origin.name, where, at=self.disk.name)

    def _move(self, items: Sequence[Item]) -> NotBrought:
        """Bring what is there, with listings beside it; what is wrong with the rest, by path at the origin."""
        files = [(item.origin_path, item.size_bytes) for item in items if item.origin_path is not None]
        if not files:
            return {}
        listings = [(listing, None) for item in items if (listing := self._listing(item)) is not None]
        parcel = Parcel(origin=self.origin, host=self.host, files=[*files, *listings], top=self.top)
        needs = self.disk.missing_bytes(self.inbox, [(str(parcel.inside(path)), size) for path, size in files])
        into = self.disk.inbox(self.inbox, needs=needs)
        with self.disk.explained(needs):
            return self.move(parcel, into, progress=self.progress)

    def _listing(self, item: Item) -> str | None:
        """The listing beside a product at the origin, where one is to be: a file may be called like a directory."""
        path = item.origin_path
        is_listed = self.has_listings and path is not None and PurePosixPath(path).suffix == ".zarr"
        return listing_beside(path, item.relative_path) if is_listed and path is not None else None

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """What is found bad here was not sent so."""
        try:
            yield
        except BadFile as problem:
            raise NotKept(self.disk.name, self.disk.root, problem) from problem

    def _inside(self, path: str) -> str:
        return f"{self.inbox}/{PurePosixPath(path).relative_to(self.top)}"

    def _take_out(self, item: Item, before: Before) -> Seen | None:
        """Compare what was brought, and give it its name; None where it is damaged."""
        path = self.path_of(item)
        inside = self._inside(item.origin_path or path)
        has_come = self.disk.seal(inside) is not None
        if not has_come and not before.is_whole:
            raise FileMissing(self.disk.name, self.disk.where(inside))
        try:
            if has_come:
                confirm(self.disk, inside, item)
        except BadFile:
            self.disk.remove(inside)
            if (listing := self._listing(item)) is not None:
                self.disk.remove(self._inside(listing))
            return None
        is_tree = is_directory(self.disk, inside if has_come else path)
        stored = (self.disk.adopt_tree if is_tree else self.disk.adopt)(inside, path, instead_of=before.seal)
        return Seen(stored.size_bytes, item.checksum, stored.seal.mtime_ns, stored.seal.inode)
