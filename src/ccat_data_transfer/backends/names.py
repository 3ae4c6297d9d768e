"""Names of what a file or directory is made of, or has become, beside its own."""

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

from ccat_ops_db.plan.names import TOKEN

_LONGEST: Final = 255 - 64
"""Bytes of a name that has room for an ending."""


def beside(target: Path, ending: str) -> Path:
    """Name beside that of a file or directory: its own and an ending, as far as there is room."""
    name = os.fsencode(target.name)
    stem = target.name if len(name) <= _LONGEST else sha256(name).hexdigest()
    return target.with_name(f"{stem}{ending}")


def left_of(target: Path, ending: str, names: Iterable[str]) -> list[Path]:
    """What tries have left of a file or directory, of these names beside it: its own, the ending and a token."""
    start = beside(target, ending).name
    return [
        target.with_name(name) for name in names if name.startswith(start) and TOKEN.fullmatch(name, pos=len(start))
    ]
