"""The mark of a location in a bucket."""

from contextlib import suppress
from typing import TYPE_CHECKING

from ccat_data_transfer.backends.errors import FileMissing, LocationTrouble
from ccat_data_transfer.backends.s3.address import Address
from ccat_data_transfer.backends.s3.errors import explained
from ccat_ops_db.plan.marks import MARK, Mark, read, written

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


def mark_in(s3: "S3Client", address: Address) -> Mark | None:
    """Which location a bucket, or what has a prefix in it, says that it is; None where it does not say."""
    try:
        with explained(address, MARK):
            return read(s3.get_object(Bucket=address.bucket, Key=address.key(MARK))["Body"].read())
    except FileMissing:
        return None


def leave_mark_in(s3: "S3Client", address: Address, mark: Mark) -> None:
    """Have it bear a mark, where it bears none; one that takes no such object goes without."""
    with suppress(LocationTrouble), explained(address):
        s3.put_object(Bucket=address.bucket, Key=address.key(MARK), Body=written(mark))
