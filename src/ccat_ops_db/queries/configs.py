"""With which parameters and variables a run was, or is, executed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ccat_ops_db import models
from ccat_ops_db.plan.digests import content_digest


@dataclass(frozen=True)
class UsedConfig:
    """The config of a run, with what a trial set in it."""

    name: str | None
    """None where the step has none, and a trial set parameters all the same."""
    revision: int | None
    parameters: Mapping[str, Any]
    environment: Mapping[str, str]
    digest: str
    is_changed: bool

    @property
    def label(self) -> str:
        """Its name for people."""
        if self.name is None:
            return "parameters of a trial"
        return f"{self.name}, changed for a trial" if self.is_changed else self.name


def config_digest(parameters: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Digest of the content of a config."""
    return content_digest({"parameters": dict(parameters), "environment": dict(environment)})


@dataclass(frozen=True)
class PinnedConfig:
    """The revision of a config that a step pins."""

    name: str
    revision: int
    parameters: Mapping[str, Any]
    environment: Mapping[str, str]
    digest: str


def config_of(run: models.ExecutedReductionStep) -> UsedConfig | None:
    """The config that a run is executed with; None where it has neither one nor parameters of its own."""
    revision = run.config_revision
    return used_config(_pinned(revision) if revision else None, run.trial_parameters)


def _pinned(revision: models.ReductionStepConfigRevision) -> PinnedConfig:
    return PinnedConfig(
        revision.reduction_step_config.name,
        revision.number,
        parameters=revision.parameters,
        environment=revision.environment,
        digest=revision.digest,
    )


def used_config(pinned: PinnedConfig | None, changed: Mapping[str, Any] | None) -> UsedConfig | None:
    """The same, given what the step pins and all parameters of a trial that changed some."""
    name, number, environment = (pinned.name, pinned.revision, pinned.environment) if pinned else (None, None, {})
    if changed is not None:
        digest = config_digest(changed, environment)
        return UsedConfig(name, number, changed, environment, digest, is_changed=True)
    if pinned is not None:
        return UsedConfig(name, number, pinned.parameters, environment, pinned.digest, is_changed=False)
    return None
