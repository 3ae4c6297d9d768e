"""Files of a location in a bucket: whole or not there, and read back before anybody hears of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from ccat_data_transfer.backends.base import Listed, Seal, Stored
from ccat_data_transfer.backends.errors import FileDiffers, FileMissing, ReadBackDiffers
from ccat_data_transfer.backends.marks import require_own
from ccat_data_transfer.backends.s3.access import client_of
from ccat_data_transfer.backends.s3.address import Address
from ccat_data_transfer.backends.s3.errors import NothingStored, StoreFails, explained, is_missing
from ccat_data_transfer.backends.s3.leftovers import clear
from ccat_data_transfer.backends.s3.marks import leave_mark_in, mark_in
from ccat_data_transfer.backends.s3.parts import PART_BYTES, part_size
from ccat_data_transfer.backends.s3.reading import ObjectStream, seal_of
from ccat_data_transfer.backends.s3.uploads import (
    DIGEST,
    DoesNotFit,
    Target,
    Unfinished,
    Upload,
    digest_of,
)
from ccat_data_transfer.backends.streams import Reader
from ccat_data_transfer.tar import Writable
from ccat_ops_db.plan.marks import MARK, Mark

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import HeadObjectOutputTypeDef

Write = Callable[[Writable], object]


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A location in an object store, as one try of one transfer uses it."""

    address: Address
    progress: Callable[[], None]
    """Called after every chunk that is read, written or sent; what it raises ends the work."""
    mark: Mark | None = None
    """What it bears, from the first object on that is put there; None for one that goes without."""
    part_bytes: int = PART_BYTES
    """Size of the parts of large objects, at least; what is no larger is sent at once."""

    @property
    def name(self) -> str:
        """`site/location`."""
        return self.address.location

    def where(self, path: str) -> str:
        """A file as people would look for it."""
        return self.address.url(path)

    def open(self, path: str, *, size_bytes: int | None = None) -> Reader:
        """Reader of an object, for a `with`; raises FileMissing, or FileDiffers where its size is not `size_bytes`.

        Where the location has no object at all nothing is called missing: NothingStored is raised.
        """
        try:
            stream = self._stream(path)
        except FileMissing:
            self._require_anything()
            raise
        if size_bytes not in {None, stream.size_bytes}:
            stream.close()
            registered, found = f"{size_bytes} bytes", f"{stream.size_bytes} bytes"
            raise FileDiffers(self.name, self.where(path), registered=registered, found=found)
        return self._reader(stream, path)

    def checksum(self, path: str) -> str:
        """Digest of an object; raises FileMissing."""
        with self.open(path) as reader:
            reader.drain()
            return reader.checksum

    def publish(self, path: str, write: Write, *, needs: int, checksum: str) -> Stored:
        """Make an object of what `write` gives, in place of any that is there; raises FileDiffers for another digest.

        It appears under its key whole, and counts once it was read back and found right. What an earlier try sent is
        not sent again. `needs` is its size at most.
        """
        self._leave_mark()
        target, part_bytes = Target(self._s3, self.address, path, checksum), part_size(needs, least=self.part_bytes)
        before = clear(target, keep_newest=needs > part_bytes)
        if kept := self._kept(path, checksum):
            clear(target, keep_newest=False)
            return kept
        self._upload(target, write, before=before, part_bytes=part_bytes)
        return self._read_back(path, checksum)

    def size(self, path: str) -> int | None:
        """Size of an object in bytes; None where there is none."""
        head = self._head(path)
        return head["ContentLength"] if head else None

    def listed(self, directory: str) -> Iterator[Listed]:
        """Objects below a directory, those of each directory in it together; raises NothingStored where none is."""
        top, pages = self.address.key(""), self._s3.get_paginator("list_objects_v2")
        with explained(self.address):
            for page in pages.paginate(Bucket=self.address.bucket, Prefix=self.address.key(f"{directory}/")):
                self.progress()
                for one in page.get("Contents", ()):
                    yield Listed(one["Key"].removeprefix(top), one["Size"], seal_of(one))
        self._require_anything()

    def was_put_as(self, path: str, checksum: str) -> bool:
        """Whether an object says that it has this digest, whatever became of it since."""
        head = self._head(path)
        return head is not None and head["Metadata"].get(DIGEST) == digest_of(checksum)

    def seal(self, path: str) -> Seal | None:
        """Seal of the object of this name; None where there is none."""
        head = self._head(path)
        return seal_of(head) if head else None

    def seal_anew(self, path: str) -> Seal | None:
        """The same: an object keeps its seal."""
        return self.seal(path)

    def remove_unfinished(self, path: str) -> None:
        """Remove uploads of an object that nobody finished."""
        clear(Target(self._s3, self.address, path, checksum=""), keep_newest=False)

    def remove(self, path: str, *, sealed: Seal | None = None) -> None:
        """Remove an object, all that has it as its directory, and uploads of it; nothing being there is fine.

        With `sealed`, only what has this seal: raises FileDiffers where something else has the name by now.
        """
        found = self.seal(path)
        if sealed is not None and found not in {None, sealed}:
            raise FileDiffers(self.name, self.where(path), registered=str(sealed), found=str(found))
        self.remove_unfinished(path)
        for key in self._keys(path):
            self.progress()
            with explained(self.address):
                self._s3.delete_object(Bucket=self.address.bucket, Key=key)

    def _upload(self, target: Target, write: Write, *, before: Unfinished | None, part_bytes: int) -> None:
        upload = Upload(target, before, part_bytes=part_bytes, progress=self.progress)
        try:
            write(upload)
            upload.finish()
        except DoesNotFit:
            clear(target, keep_newest=False)
            self._upload(target, write, before=None, part_bytes=part_bytes)

    def _kept(self, path: str, checksum: str) -> Stored | None:
        """The object that an earlier try made and did not record; None where it is not there, or another one is."""
        try:
            return self._read_back(path, checksum)
        except (FileMissing, ReadBackDiffers):
            return None

    def _read_back(self, path: str, checksum: str) -> Stored:
        """The object as it is read from the store; one that was announced as something else is not even read."""
        stream = self._stream(path)
        with self._reader(stream, path) as reader:
            read = stream.metadata.get(DIGEST, "nothing that is ours")
            if read == digest_of(checksum):
                reader.drain()
                read = digest_of(reader.checksum)
            if read != digest_of(checksum):
                raise ReadBackDiffers(self.name, self.where(path), written=checksum, read=read)
            return Stored(stream.size_bytes, checksum, stream.seal)

    def _stream(self, path: str) -> ObjectStream:
        return ObjectStream(self._s3, self.address, path, progress=self.progress)

    def _reader(self, stream: ObjectStream, path: str) -> Reader:
        return Reader(
            stream,
            location=self.name,
            where=self.where(path),
            progress=self.progress,
            explain=lambda error: StoreFails(self.address, str(error)),
        )

    def _require_anything(self) -> None:
        prefix = self.address.key("")
        with explained(self.address):
            found = self._s3.list_objects_v2(Bucket=self.address.bucket, Prefix=prefix, MaxKeys=2)
        if all(one["Key"] == self.address.key(MARK) for one in found.get("Contents", ())):
            raise NothingStored(self.address)

    def _head(self, path: str) -> "HeadObjectOutputTypeDef | None":
        key = self.address.key(path)
        with explained(self.address):
            try:
                return self._s3.head_object(Bucket=self.address.bucket, Key=key)
            except ClientError as error:
                if not is_missing(error):
                    raise
                self._s3.head_bucket(Bucket=self.address.bucket)  # or the bucket is what is missing
                return None

    def _keys(self, path: str) -> list[str]:
        """Keys of an object, which need not be there, and of all that has it as its directory, those before it."""
        key = self.address.key(path)
        with explained(self.address):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.address.bucket, Prefix=f"{key}/")
            return [*(one["Key"] for page in pages for one in page.get("Contents", ())), key]

    @cached_property
    def _s3(self) -> "S3Client":
        """Client, once it was seen that what it reaches is no other location's."""
        if self.mark is not None:
            require_own(self.mark, self._found_mark, place=str(self.address))
        return client_of(self.address)

    @cached_property
    def _found_mark(self) -> Mark | None:
        return mark_in(client_of(self.address), self.address)

    def _leave_mark(self) -> None:
        if self.mark is not None and self._found_mark is None:
            leave_mark_in(self._s3, self.address, self.mark)
