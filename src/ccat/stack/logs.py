"""Logs of bounded size."""

import os
import shutil
from pathlib import Path

LARGEST_LOG = 10_000_000
"""Bytes; one older log of about this size is kept beside the current one."""


def rotate(log: Path, largest: int = LARGEST_LOG) -> None:
    """Move what is in a log that has grown too large to `<name>.log.1`.

    Copies and truncates, because the process that writes keeps the file open (appending, so it goes on at the start).
    """
    if log.exists() and log.stat().st_size > largest:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
