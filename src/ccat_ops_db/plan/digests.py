import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ccat_ops_db.states import DataProductType, InputRole

NOT_INPUTS = frozenset({DataProductType.LOG, DataProductType.PLOT, DataProductType.STATISTICS})
"""Product types that are no inputs, but of steps that list them."""


def content_digest(content: Any) -> str:
    """`sha256:…` of JSON content; the order of keys does not matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@dataclass(frozen=True)
class Definition:
    """What of a step's definition changes results; resources, labels, retention and archiving are not in it."""

    group_by: Sequence[str]
    upstream: Sequence[str]
    takes_raw: bool
    auxiliary: Sequence[Mapping[str, Any]] = ()
    """What of its rules for auxiliary inputs says which are taken, as `auxiliary_rule` puts it."""
    listed: Sequence[DataProductType] = ()
    """Types of NOT_INPUTS that it takes from upstream all the same."""


def auxiliary_rule(name: str, place: str, *, same: Iterable[str], max_age: timedelta) -> Mapping[str, Any]:
    """A rule for auxiliary inputs as part of a definition; `place` is the step that gives, as `pipeline/step`."""
    return {"name": name, "from": place, "same": sorted(same), "max_age": max_age.total_seconds()}


@dataclass(frozen=True)
class Recipe:
    """What a run is made with: `digest` pins the version, `series_digest` only its compatibility series."""

    digest: str
    series_digest: str


def recipe(
    software: str, *, version_digest: str, series: str, config_digest: str | None, definition: Definition
) -> Recipe:
    """Digests of software version, config content and definition."""
    common: Mapping[str, Any] = {
        "software": software,
        "config": config_digest,
        "group_by": list(definition.group_by),
        "upstream": sorted(definition.upstream),
        "takes_raw": definition.takes_raw,
        **({"auxiliary": list(definition.auxiliary)} if definition.auxiliary else {}),
        **({"listed": sorted(definition.listed)} if definition.listed else {}),
    }
    return Recipe(content_digest({**common, "version": version_digest}), content_digest({**common, "series": series}))


@dataclass(frozen=True, order=True)
class Input:
    """What the input digest says of one input; raw packages have neither step nor sub-group."""

    role: InputRole
    step_key: str
    sub_group_key: str
    relative_path: str
    checksum: str
    excluded_pixels: tuple[str, ...] = ()
    """Pixels of a raw package that are left out."""

    @property
    def facts(self) -> list[Any]:
        """What it is, as JSON."""
        said = [self.role, self.step_key, self.sub_group_key, self.relative_path, self.checksum]
        return [*said, list(self.excluded_pixels)] if self.excluded_pixels else said


def made_digest(step_id: int, sub_group_key: str, products: Iterable[tuple[str, str]]) -> str | None:
    """Digest of what a run made for others, as (path, checksum); None where that is nothing.

    A run that is repeated and makes the same bytes has the same digest.
    """
    made = sorted(products)
    return content_digest([step_id, sub_group_key, made]) if made else None


def input_digest(inputs: Iterable[Input]) -> str:
    """Digest of a set of inputs: the same bytes from the same places give the same digest, in any order."""
    return content_digest([one.facts for one in sorted(inputs)])
