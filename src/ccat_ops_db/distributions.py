import hashlib
from importlib.metadata import Distribution, PackagePath, distributions
from pathlib import Path

from ccat_ops_db.errors import CcatError


class DistributionMissing(CcatError):
    """An environment does not have the distribution that a software version names."""

    code = "distribution_missing"
    transient = True

    def __init__(self, distribution: str, environment: Path) -> None:
        found = "has no installed Python distribution" if environment.is_dir() else "does not exist, and so has no"
        super().__init__(
            f"{environment} {found} `{distribution}`; "
            f"install it there, for instance with `{environment}/bin/python -m pip install …`."
        )


def installed_distribution(environment: Path, distribution: str) -> Distribution:
    """The distribution as installed in an environment; raises DistributionMissing."""
    paths = [str(path) for path in sorted(environment.glob("lib/python3*/site-packages"))]
    found = next(iter(distributions(name=distribution, path=paths)), None)
    if found is None or not found.files:
        raise DistributionMissing(distribution, environment)
    return found


def code_digest(distribution: Distribution) -> str:
    """Digest that identifies the installed code: its RECORD without what differs from installation to installation.

    Left out are compiled files, start scripts (they hold the path of their interpreter) and the installer's own notes;
    the distribution's METADATA, and so its version and requirements, is in.
    """
    lines = sorted(f"{path},{path.hash.value}" for path in distribution.files or () if path.hash and _is_code(path))
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def _is_code(path: PackagePath) -> bool:
    if path.parts[0] == ".." or path.suffix == ".pyc":
        return False
    return not path.parts[0].endswith(".dist-info") or path.name == "METADATA"
