"""Products that are brought along a route to a disk of another site, and compared there before they get their names."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ccat_data_transfer.backends.errors import BadFile, FileDiffers, FileMissing
from ccat_data_transfer.backends.movers import MovesFiles, Parcel
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.verbs.products.copying import Item, Outcome, Seen
from ccat_data_transfer.verbs.products.plan import listing_beside
from ccat_data_transfer.verbs.products.trees import confirm, is_directory, is_there


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
        """Bring products; each with what was seen of it, or with what is wrong with it.

        What arrives with other bytes than were registered is sent again; what does so twice was sent so.
        """
        damaged: list[Item] = []
        for item, told in self._bring(items):
            if told is None:
                damaged.append(item)
            else:
                yield item, told
        for item, told in self._bring(damaged):
            yield item, self._sent_so(item) if told is None else told

    def done(self) -> None:
        """Leave nothing in the inbox."""
        self.disk.remove(self.inbox)

    def _bring(self, items: Sequence[Item]) -> Iterator[tuple[Item, Seen | BadFile | None]]:
        """The same, once; None for what arrived damaged."""
        missing = [item for item in items if not is_there(self.disk, self.path_of(item), item)]  # a try got so far
        gone = self._move(missing)
        for item in items:
            problem = gone.get(item.relative_path)
            yield item, problem if problem is not None else self._take_out(item)

    def _sent_so(self, item: Item) -> BadFile:
        where = self.origin.where(item.origin_path or item.relative_path)
        found = "other bytes, also when it is sent again"
        return FileDiffers(self.origin.name, where, registered=item.checksum, found=found)

    def _move(self, items: Sequence[Item]) -> dict[str, BadFile]:
        """Bring what is there; what is wrong with the rest, by path of the product."""
        nowhere = {
            item.relative_path: FileMissing(self.origin.name, item.relative_path)
            for item in items
            if item.origin_path is None
        }
        paths = {item.origin_path: item for item in items if item.origin_path is not None}
        if not paths:
            return dict(nowhere)
        files = [(path, item.size_bytes) for path, item in paths.items()]
        parcel = Parcel(origin=self.origin, host=self.host, files=[*files, *self._listings(paths)], top=self.top)
        needs = self.disk.missing_bytes(self.inbox, [(str(parcel.inside(path)), size) for path, size in files])
        into = self.disk.inbox(self.inbox, needs=needs)
        with self.disk.explained(needs):
            bad = self.move(parcel, into, progress=self.progress)
        return {**nowhere, **{paths[path].relative_path: problem for path, problem in bad.items() if path in paths}}

    def _listings(self, paths: dict[str, Item]) -> list[tuple[str, int]]:
        trees = {path: item for path, item in paths.items() if PurePosixPath(path).suffix == ".zarr"}
        return [(listing_beside(path, item.relative_path), 0) for path, item in trees.items() if self.has_listings]

    def _take_out(self, item: Item) -> Seen | None:
        """Compare what was brought, and give it its name; None where it is damaged."""
        path = self.path_of(item)
        inside = f"{self.inbox}/{PurePosixPath(item.origin_path or path).relative_to(self.top)}"
        try:
            if self.disk.seal(inside) is not None:
                confirm(self.disk, inside, item)
        except BadFile:
            self.disk.remove(inside)
            return None
        is_tree = is_directory(self.disk, inside) or is_directory(self.disk, path)
        stored = (self.disk.adopt_tree if is_tree else self.disk.adopt)(inside, path)
        return Seen(stored.size_bytes, item.checksum, stored.seal.mtime_ns, stored.seal.inode)
