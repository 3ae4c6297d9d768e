"""What goes wrong with an object store, in the terms of every location."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from urllib3.exceptions import HTTPError

from ccat_data_transfer.backends.errors import FileMissing, LocationTrouble
from ccat_data_transfer.backends.s3.address import Address
from ccat_ops_db.errors import CcatError
from ccat_service.retries import first_line

BROKEN: Final = (BotoCoreError, HTTPError, OSError)
"""What the client raises where no answer came, or only a part of one."""
_NO_BUCKET: Final = "NoSuchBucket"
_NO_OBJECT: Final = "NoSuchKey"
_NOTHING: Final = "404"
"""Said of either where the answer has no text."""
_FORBIDDEN: Final = (401, 403)


class CredentialsMissing(LocationTrouble):
    """A worker has no access key for a bucket, or half of one."""

    code = "credentials_missing"
    needs_a_person = True

    def __init__(self, address: Address, missing: str | None = None) -> None:
        key, secret = address.variables
        lacks = f"{missing} is not set" if missing else f"neither {key} and {secret} nor those of AWS are set"
        remedy = "set them in the environment of the transfer-worker that serves it, and start that again"
        super().__init__(address.location, str(address), problem=f"has no credentials here: {lacks}", remedy=remedy)


class AccessRefused(LocationTrouble):
    """A store does not let us do something."""

    code = "access_refused"
    needs_a_person = True

    def __init__(self, address: Address, said: str) -> None:
        key, secret = address.variables
        remedy = f"check {key} and {secret} (or those of AWS) of its transfer-worker, and what this key may do there"
        super().__init__(address.location, str(address), problem=f"refuses access ({said})", remedy=remedy)


class BucketMissing(LocationTrouble):
    """There is no such bucket."""

    code = "bucket_missing"
    needs_a_person = True

    def __init__(self, address: Address) -> None:
        store = address.endpoint_url or "AWS"
        super().__init__(
            address.location, str(address), problem=f"is missing: {store} has no such bucket", remedy="make it"
        )


class NothingStored(LocationTrouble):
    """A bucket is empty, or what has the prefix of its location, where something was to be read."""

    code = "nothing_stored"
    needs_a_person = True

    def __init__(self, address: Address) -> None:
        remedy = "check its bucket and prefix (`ccat locations`), and whether the store was made anew"
        super().__init__(address.location, str(address), problem="has nothing at all", remedy=remedy)


class StoreFails(LocationTrouble):
    """An object store does not answer, or not as it should."""

    code = "store_fails"

    def __init__(self, address: Address, said: str) -> None:
        remedy = "check the store and the way to it"
        super().__init__(address.location, str(address), problem=f"fails: {said}", remedy=remedy)


@contextmanager
def explained(address: Address, path: str | None = None) -> Iterator[None]:
    """Make what the client raises in the block an error that names the location; `path` is what is asked for."""
    try:
        yield
    except ClientError as error:
        raise _refused(address, error, path) from error
    except BROKEN as error:
        raise broken(address, error) from error


def broken(address: Address, error: Exception) -> LocationTrouble:
    """What is said where no whole answer came."""
    is_unknown = isinstance(error, NoCredentialsError)
    return CredentialsMissing(address) if is_unknown else StoreFails(address, first_line(error))


def is_missing(error: ClientError) -> bool:
    """Whether a store says, in an answer without text, that something is not there: an object, or the bucket."""
    return error.response["Error"].get("Code") == _NOTHING


def _refused(address: Address, error: ClientError, path: str | None) -> CcatError:
    code, text = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    if code == _NO_BUCKET or (code == _NOTHING and path is None):
        return BucketMissing(address)
    if path is not None and code in {_NO_OBJECT, _NOTHING}:
        return FileMissing(address.location, address.url(path))
    said = f"{code}: {text}" if text else code
    return AccessRefused(address, said) if _status(error) in _FORBIDDEN else StoreFails(address, said)


def _status(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]
