from dataclasses import dataclass
from pathlib import Path

from ccat.demo.story import FaultName


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a person may choose."""

    data_dir: Path
    environment: Path
    """Where the reduction software is installed."""
    cache: Path | None = None
    """Where raw scans and the next version are kept from demo to demo; None is within the data directory."""
    fault: FaultName | None = None
    keep: bool = False
    """Whether the stack stays up at the end."""
    seed: int = 1
