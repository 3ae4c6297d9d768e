"""Files and directories that nobody else may read."""

import os
from pathlib import Path

PRIVATE = 0o700
"""The mode of a directory that only its owner may enter."""


def write_private(path: Path, text: str) -> None:
    """Replace `path` in one step by a file with mode 0600: a reader sees the old or the new text, never a part."""
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    draft.replace(path)
