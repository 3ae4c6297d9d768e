import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

SLUG_LENGTH: Final = 60
ALL: Final = "all"


@dataclass(frozen=True)
class DimensionValue:
    """What one dimension says of a package: the identity that makes the key, and a label for people."""

    value: str | None
    label: str | None


@dataclass(frozen=True)
class SubGroupName:
    """How a sub-group is called: `key` is its identity, `path` a directory name, `labels` are for people."""

    key: str
    path: str
    labels: Mapping[str, str | None]


def name_sub_group(values: Sequence[tuple[str, DimensionValue]]) -> SubGroupName:
    """Name of the sub-group of these (dimension, value) pairs, in the order of `group_by`; none make `all`.

    The key is `dim=value,…`, percent-encoded, NULL written as `~`. The path is a slug of the labels and the first 8
    hexadecimal digits of the key's SHA-256.
    """
    key = ",".join(f"{dimension}={_encode(one.value)}" for dimension, one in values) or ALL
    slug = "_".join(_slug(one.label) for _, one in values)[:SLUG_LENGTH] or ALL
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return SubGroupName(key, f"{slug}-{digest}", {dimension: one.label for dimension, one in values})


def _encode(value: str | None) -> str:
    return "~" if value is None else quote(value, safe="").replace("~", "%7E")


def _slug(label: str | None) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", label or "none").strip("-.") or "x"
