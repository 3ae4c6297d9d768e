"""Names of what a file or directory is made of, or has become, beside its own."""

import os
from hashlib import sha256
from pathlib import Path
from typing import Final

PARTIAL: Final = ".partial-"
REMOVED: Final = ".removed-"
_LONGEST: Final = 255 - 64
"""Bytes of a name that has room for an ending."""


def beside(target: Path, ending: str) -> Path:
    """Name beside that of a file or directory: its own and an ending, as far as there is room."""
    name = os.fsencode(target.name)
    stem = target.name if len(name) <= _LONGEST else sha256(name).hexdigest()
    return target.with_name(f"{stem}{ending}")
