"""Names that nobody's files may have: those of what is unfinished, or half removed, beside a file or directory."""

import re
from pathlib import PurePosixPath
from typing import Final

PARTIAL: Final = ".partial-"
REMOVED: Final = ".removed-"
TOKEN: Final = re.compile(r"[0-9]+-[0-9a-f]+")
"""What follows: the number of what is done, and hexadecimal digits that are new for each try."""
_RESERVED: Final = re.compile(f".*({re.escape(PARTIAL)}|{re.escape(REMOVED)}){TOKEN.pattern}", re.DOTALL)


def is_reserved(path: str) -> bool:
    """Whether a path, or a directory on it, is called like what is removed with the file beside it."""
    return any(_RESERVED.fullmatch(part) is not None for part in PurePosixPath(path).parts)
