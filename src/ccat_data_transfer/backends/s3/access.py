"""Clients of object stores: with credentials from the environment only, and with bounded patience."""

import os
from functools import cache
from typing import TYPE_CHECKING, Final

from boto3.session import Session
from botocore.config import Config

from ccat_data_transfer.backends.s3.address import Address
from ccat_data_transfer.backends.s3.errors import CredentialsMissing

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_PATIENCE: Final = Config(
    connect_timeout=5,
    read_timeout=15,
    retries={"mode": "standard", "total_max_attempts": 2},
    request_checksum_calculation="when_required",  # we send MD5, which every store knows
    response_checksum_validation="when_required",
)
"""A request that fails has failed well within a lease: what uses it is tried again later, and told why."""
_BY_PATH: Final = Config(s3={"addressing_style": "path"})
"""Stores of one's own rarely have a name for each bucket."""
_ANY_REGION: Final = "us-east-1"
"""What stores without regions expect to be called."""


def client_of(address: Address) -> "S3Client":
    """Client for a location; raises CredentialsMissing where half of its own credentials are set."""
    found = {name: os.environ.get(name) for name in address.variables}
    missing = [name for name, value in found.items() if not value]
    if len(missing) == 1:
        raise CredentialsMissing(address, missing[0])
    key, secret = found.values()
    return _client(address.endpoint_url, address.region, key=key, secret=secret, process=os.getpid())


@cache
def _client(
    endpoint_url: str | None, region: str | None, *, key: str | None, secret: str | None, process: int
) -> "S3Client":
    """One for each process: connections cannot be shared with one that was forked."""
    del process
    session = Session(aws_access_key_id=key or None, aws_secret_access_key=secret or None)
    if endpoint_url is None:
        return session.client("s3", region_name=region, config=_PATIENCE)
    config = _PATIENCE.merge(_BY_PATH)
    return session.client("s3", endpoint_url=endpoint_url, region_name=region or _ANY_REGION, config=config)
