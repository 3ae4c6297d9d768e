"""An object being read."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ccat_data_transfer.backends.base import Seal
from ccat_data_transfer.backends.s3.address import Address
from ccat_data_transfer.backends.s3.errors import BROKEN, StoreFails, broken, explained

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_PARTIAL: Final = 206
_TRIES: Final = 5
"""Connections in a row that break without a byte, until reading fails."""


class ObjectStream:
    """The bytes of an object; where a connection breaks in the middle, the next one goes on from there.

    Raises FileMissing. It is one object for as long as it is read: where it is replaced meanwhile, reading fails, as it
    does where the store does not go on from there.
    """

    def __init__(self, s3: "S3Client", address: Address, path: str, *, progress: Callable[[], None]) -> None:
        self._s3, self._address, self._path, self._progress = s3, address, path, progress
        self._at = self._broken = 0
        with explained(address, path):
            answer = s3.get_object(Bucket=address.bucket, Key=address.key(path))
        self._body = answer["Body"]
        self._etag = answer["ETag"]
        self.size_bytes = answer["ContentLength"]
        self.metadata: Mapping[str, str] = answer["Metadata"]
        self.seal = seal_of(answer)

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        while self._at < self.size_bytes:
            try:
                data = self._body.read(None if size < 0 else size)
            except BROKEN as error:
                self._go_on_after(error)
            else:
                self._at += len(data)
                self._broken = 0
                return data
        return b""

    def _go_on_after(self, error: Exception) -> None:
        self._broken += 1
        if self._broken == _TRIES:
            raise broken(self._address, error) from error
        self.close()
        self._progress()
        key, rest = self._address.key(self._path), f"bytes={self._at}-"
        with explained(self._address, self._path):
            answer = self._s3.get_object(Bucket=self._address.bucket, Key=key, Range=rest, IfMatch=self._etag)
        self._body = answer["Body"]
        self._require_rest(answer)

    def _require_rest(self, answer: Mapping[str, Any]) -> None:
        """Stores and proxies that ignore what was asked for send the whole object, or another one, from its begin."""
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        found = answer.get("ContentRange", "")
        wanted = f"bytes {self._at}-{self.size_bytes - 1}/{self.size_bytes}"
        if (status, found, answer["ETag"]) == (_PARTIAL, wanted, self._etag):
            return
        self.close()
        said = f"asked for {self._path} from byte {self._at} on, it answers HTTP {status} with {found or 'all of it'}"
        raise StoreFails(self._address, said)

    def close(self) -> None:
        """Let the connection go."""
        self._body.close()


def seal_of(answer: Mapping[str, Any]) -> Seal:
    """Seal of an object that the store told about."""
    return Seal(mtime_ns=int(answer["LastModified"].timestamp()) * 10**9, inode=None)
