from pathlib import Path

from ccat_ops_db import models
from ccat_ops_db.distributions import code_digest, installed_distribution
from ccat_ops_db.errors import CcatError


class SoftwareChanged(CcatError):
    """The environment of a released version no longer holds what was released."""

    code = "software_changed"
    transient = True

    def __init__(self, software: str, environment: str) -> None:
        super().__init__(
            f"{environment} no longer holds {software} as it was released: its files differ. "
            "Restore the environment, or release what it holds as a new version."
        )


class ReleasedCode:
    """Looks at environments of software versions, at each once: for a batch of runs, and no longer."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], str] = {}

    def require(self, version: models.ReductionSoftwareVersion) -> None:
        """Raise SoftwareChanged, or DistributionMissing, unless what was released is there."""
        if version.environment_prefix is None or version.distribution is None:
            return
        place = (version.environment_prefix, version.distribution)
        if place not in self._found:
            self._found[place] = code_digest(installed_distribution(Path(place[0]), place[1]))
        if self._found[place] != version.content_digest:
            raise SoftwareChanged(f"{version.reduction_software.name} {version.version}", version.environment_prefix)
