"""Where files lie whose directory was moved."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

_STORE: Final = "s3://"


def relocated(path: str, moves: Mapping[str, str]) -> str:
    """The path below the new place of the innermost directory that holds it and was moved; else the path itself."""
    holding = [old for old in moves if PurePosixPath(path).is_relative_to(old)]
    if not holding:
        return path
    innermost = max(holding, key=lambda old: len(PurePosixPath(old).parts))
    return str(PurePosixPath(moves[innermost]) / PurePosixPath(path).relative_to(innermost))


def relocated_settings(settings: Mapping[str, Any], moves: Mapping[str, str]) -> dict[str, Any]:
    """Settings of a location, in which every path is that of now."""
    return {key: relocated(value, moves) if isinstance(value, str) else value for key, value in settings.items()}


def relocated_keys(bucket: str, prefix: str, moves: Mapping[str, str]) -> tuple[str, str]:
    """Bucket and prefix of a location, where one or both of them are others now; moves are `s3://BUCKET/PREFIX`."""
    place = f"/{bucket}/{prefix}"
    now = relocated(place, {_key(old): _key(new) for old, new in moves.items() if old.startswith(_STORE)})
    if now == place.rstrip("/"):
        return bucket, prefix
    new_bucket, _, new_prefix = now.removeprefix("/").partition("/")
    return new_bucket, new_prefix


def _key(place: str) -> str:
    return "/" + place.removeprefix(_STORE)
