"""From the words of `ccat location add` to the place that they mean."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import typer

from ccat_data_transfer.backends.s3.address import Address
from ccat_ops_db.states import BackendName, LocationType, StorageType
from ccat_ops_db.verbs.locating import InBucket, OnDisk, OnTape, Place

Given = TypeVar("Given")


def split(name: str) -> tuple[str, str]:
    """Site and location of a name."""
    site, _, short = name.partition("/")
    if not short:
        raise typer.BadParameter(f"{name!r} names a site and no location; say {site}/NAME", param_hint="SITE/NAME")
    return site, short


def place_of(
    storage: StorageType,
    *,
    path: Path | None,
    host: str | None,
    bucket: str | None,
    prefix: str | None,
    endpoint_url: str | None,
    region: str | None,
) -> Place:
    """The place that the options name; those of another storage are refused."""
    of_bucket = {"--bucket": bucket, "--prefix": prefix, "--endpoint-url": endpoint_url, "--region": region}
    match storage:
        case StorageType.TAPE:
            return OnTape()
        case StorageType.DISK:
            _refuse(of_bucket, storage)
            return OnDisk(str(_required("--path", path, storage)), host=host)
        case StorageType.S3:
            _refuse({"--path": path, "--host": host}, storage)
            named = _required("--bucket", bucket, storage)
            return InBucket(bucket=named, prefix=prefix or "", endpoint_url=endpoint_url, region=region)


def absent_here(path: Path | None, host: str | None) -> str:
    """What is to be said of a directory that this host does not have, unless it is said to be another's."""
    if path is None or host or path.is_dir():
        return ""
    return f". There is no directory {path} on this host: see that it is there where its workers run"


def _required(option: str, value: Given | None, storage: StorageType) -> Given:
    if value is None:
        raise typer.BadParameter(f"a location on {storage} needs it", param_hint=option)
    return value


def _refuse(options: Mapping[str, object], storage: StorageType) -> None:
    for option, value in options.items():
        if value is not None:
            raise typer.BadParameter(f"a location on {storage} has none", param_hint=option)


def backend_at(location_type: LocationType, backend: BackendName | None) -> BackendName | None:
    """Where the jobs of a location run; nothing runs where data are only kept."""
    if location_type is LocationType.PROCESSING:
        return backend or BackendName.LOCAL
    if backend is not None:
        raise typer.BadParameter(f"no jobs run at a {location_type} location", param_hint="--backend")
    return None


def told(name: str, number: int, *, location_type: LocationType, place: Place) -> str:
    """What is said of a location that was added: what it needs to be served."""
    start = f"{name} is location {number}; "
    if location_type is LocationType.PROCESSING:
        return f"{start}name it in CCAT_WORKFLOW_MANAGER_PROCESSING_LOCATION_ID of those that serve it"
    served = (
        f"{start}a transfer-worker that serves it takes it up when it starts (`ccat transfer-worker --location {name}`)"
    )
    if isinstance(place, OnDisk):
        return f"{served}{absent_here(Path(place.path), place.host)}"
    if not isinstance(place, InBucket):
        return served
    key, secret = Address(location=name, bucket=place.bucket).variables
    return f"{served}, with its credentials in {key} and {secret}, or those of AWS"
