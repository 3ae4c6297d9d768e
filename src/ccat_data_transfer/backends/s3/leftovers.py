"""Uploads that earlier tries did not finish: one of them may be gone on with, and nothing of the others stays."""

from ccat_data_transfer.backends.s3.errors import explained
from ccat_data_transfer.backends.s3.uploads import StoredPart, Target, Unfinished, abort


def clear(target: Target, *, keep_newest: bool) -> Unfinished | None:
    """Abort the unfinished uploads of an object, and return the newest one where that is kept, with its parts.

    Only who holds the lease gets here: nobody else is at it.
    """
    ids = _unfinished(target)
    kept = ids.pop() if ids and keep_newest else None
    for upload_id in ids:
        abort(target, upload_id)
    return Unfinished(kept, _parts(target, kept)) if kept else None


def _unfinished(target: Target) -> list[str]:
    """Ids of the unfinished uploads of an object, the newest last."""
    with explained(target.address):
        pages = target.s3.get_paginator("list_multipart_uploads").paginate(Bucket=target.bucket, Prefix=target.key)
        found = [one for page in pages for one in page.get("Uploads", ()) if one["Key"] == target.key]
    return [one["UploadId"] for one in sorted(found, key=lambda one: one["Initiated"])]


def _parts(target: Target, upload_id: str) -> dict[int, StoredPart]:
    with explained(target.address):
        pages = target.s3.get_paginator("list_parts").paginate(Bucket=target.bucket, Key=target.key, UploadId=upload_id)
        parts = [part for page in pages for part in page.get("Parts", ())]
    return {part["PartNumber"]: StoredPart(part["ETag"], part["Size"]) for part in parts}
