"""An object on its way into a bucket: whole under its key or not there, and what was sent once is not sent again.

The store keeps the parts of an unfinished upload, so that a try after a crash finds them: it reads the source again,
and sends only parts that the store does not have with the same size and MD5.
"""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Final

from botocore.exceptions import HTTPClientError

from ccat_data_transfer.backends.errors import FileDiffers
from ccat_data_transfer.backends.s3.address import Address
from ccat_data_transfer.backends.s3.errors import explained
from ccat_data_transfer.backends.streams import checksum_of

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef

DIGEST: Final = "sha256"
"""Key of the metadata of an object that has its digest, in hexadecimal digits."""


class DoesNotFit(Exception):
    """An unfinished upload has other parts than are to be sent."""


@dataclass(frozen=True)
class StoredPart:
    """A part that a store has."""

    etag: str
    size_bytes: int

    def is_like(self, md5: bytes, size_bytes: int) -> bool:
        """Whether it has this digest and size, as far as the store tells: some do not say the MD5."""
        return (self.etag.strip('"'), self.size_bytes) == (md5.hex(), size_bytes)


@dataclass(frozen=True)
class Unfinished:
    """An upload that an earlier try began."""

    id: str
    parts: Mapping[int, StoredPart] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """The object that is written."""

    s3: "S3Client"
    address: Address
    path: str
    checksum: str

    @property
    def bucket(self) -> str:
        """Name of its bucket."""
        return self.address.bucket

    @property
    def key(self) -> str:
        """Its key in the bucket."""
        return self.address.key(self.path)

    @property
    def metadata(self) -> dict[str, str]:
        """What is told the store about it."""
        return {DIGEST: digest_of(self.checksum)}


def abort(target: Target, upload_id: str) -> None:
    """Have the store forget an unfinished upload and its parts."""
    with explained(target.address):
        target.s3.abort_multipart_upload(Bucket=target.bucket, Key=target.key, UploadId=upload_id)


class Upload:
    """Takes the bytes of an object, and sends a part whenever one is full."""

    def __init__(
        self, target: Target, before: Unfinished | None, *, part_bytes: int, progress: Callable[[], None]
    ) -> None:
        self._target = target
        self._before = before or Unfinished("")
        self._id = self._before.id
        self._part_bytes = part_bytes
        self._progress = progress
        self._part = _Part(progress)
        self._sent: list[CompletedPartTypeDef] = []
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes, /) -> int:
        """Take all of the data; raises DoesNotFit."""
        left = memoryview(data)
        while left:
            if self._part.tell() == self._part_bytes:
                self._send()
            left = left[self._part.write(left[: self._part_bytes - self._part.tell()]) :]
        self._digest.update(data)
        self._size += len(data)
        self._progress()
        return len(data)

    def tell(self) -> int:
        """Return how many bytes were taken."""
        return self._size

    def finish(self) -> None:
        """Have the object appear under its key; raises FileDiffers where it is not what was announced."""
        target, found = self._target, checksum_of(self._digest)
        if found != target.checksum:
            where = target.address.url(target.path)
            raise FileDiffers(target.address.location, where, registered=target.checksum, found=found)
        if self._id:
            self._send()
            self._complete()
        else:
            self._put()

    def _put(self) -> None:
        target, part = self._target, self._part
        with explained(target.address), part.going_out() as md5:
            target.s3.put_object(
                Bucket=target.bucket, Key=target.key, Body=part, ContentMD5=_in_base64(md5), Metadata=target.metadata
            )

    def _send(self) -> None:
        """Send the part that is full, unless the store has it, and begin the next one."""
        number, size = len(self._sent) + 1, self._part.tell()
        self._id = self._id or self._begin()
        with explained(self._target.address), self._part.going_out() as md5:
            there = self._before.parts.get(number)
            if there is not None and not there.is_like(md5, size):
                raise DoesNotFit
            etag = there.etag if there else self._send_part(number, md5)
        self._sent.append({"ETag": etag, "PartNumber": number})
        self._part.truncate(0)

    def _begin(self) -> str:
        """Id of a new upload; whoever was overtaken meanwhile leaves none behind that nobody would find."""
        target = self._target
        with explained(target.address):
            answer = target.s3.create_multipart_upload(Bucket=target.bucket, Key=target.key, Metadata=target.metadata)
        try:
            self._progress()
        except Exception:
            abort(target, answer["UploadId"])
            raise
        return answer["UploadId"]

    def _send_part(self, number: int, md5: bytes) -> str:
        target = self._target
        answer = target.s3.upload_part(
            Bucket=target.bucket,
            Key=target.key,
            UploadId=self._id,
            PartNumber=number,
            Body=self._part,
            ContentMD5=_in_base64(md5),
        )
        return answer["ETag"]

    def _complete(self) -> None:
        target, parts = self._target, self._sent
        with explained(target.address):
            target.s3.complete_multipart_upload(
                Bucket=target.bucket, Key=target.key, UploadId=self._id, MultipartUpload={"Parts": parts}
            )


class _Part(BytesIO):
    """Bytes of a part: reading them, to send them, is progress, and what that raises ends the sending."""

    def __init__(self, progress: Callable[[], None]) -> None:
        super().__init__()
        self._progress = progress
        self._stopped: Exception | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        if self._stopped is not None:
            raise self._stopped  # the client tries again by itself
        try:
            self._progress()
        except Exception as error:
            self._stopped = error
            raise
        return super().read(size)

    @contextmanager
    def going_out(self) -> Iterator[bytes]:
        """Have it read from its begin; its MD5. What stopped it is raised as it was, whatever the client made of it."""
        with self.getbuffer() as content:
            md5 = hashlib.md5(content, usedforsecurity=False).digest()
        self.seek(0)
        try:
            yield md5
        except HTTPClientError:
            if self._stopped is not None:
                raise self._stopped from None
            raise
        self.seek(0)


def digest_of(checksum: str) -> str:
    """A digest as it stands in the metadata."""
    return checksum.removeprefix("sha256:")


def _in_base64(md5: bytes) -> str:
    return b64encode(md5).decode()
