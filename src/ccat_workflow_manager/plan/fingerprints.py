"""What failures have in common: the class and the cause, without what differs from run to run."""

import re
from hashlib import sha256
from typing import Final

from ccat_ops_db.states import FailureClass

_LENGTH: Final = 12
_VARYING: Final = (
    (re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"), "<time>"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`"), "<name>"),
    (re.compile(r"(?:[\w.~+=,%-]*/)+[\w.~+=,%-]*"), "<path>"),
    (
        re.compile(r"\b[\w-]+(?:\.[\w-]+)*\.(?:fits|hdf5|h5|nc|zarr|json|txt|tar|log|py|yaml)\b", re.IGNORECASE),
        "<path>",
    ),
    (re.compile(r"\b0x[0-9a-f]+\b|\b(?=[0-9a-f]*\d)[0-9a-f]{7,}\b", re.IGNORECASE), "<number>"),
    (re.compile(r"[+-]?\d+(?:[.,:]\d+)*(?:e[+-]?\d+)?", re.IGNORECASE), "<number>"),
)
"""Patterns, in the order in which they are replaced: what contains others comes before them."""
_SPACE: Final = re.compile(r"\s+")


def normalised(cause: str) -> str:
    """A cause without the numbers, names, paths and moments that differ between failures of one kind."""
    for pattern, word in _VARYING:
        cause = pattern.sub(word, cause)
    return _SPACE.sub(" ", cause).strip().lower()


def fingerprint(kind: FailureClass, cause: str) -> str:
    """Twelve hexadecimal digits that failures of one kind share, and others do not."""
    return sha256(f"{kind}\n{normalised(cause)}".encode()).hexdigest()[:_LENGTH]
