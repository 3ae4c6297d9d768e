"""The one directory under which the demo keeps everything, and what it may remove there."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ccat.stack.directory import StackDirectory
from ccat_ops_db.errors import CcatError

_MARK: Final = "made-by-ccat-demo"


class NotADemosDirectory(CcatError):
    """The demo was told to use a directory that holds something else."""

    code = "demo.not_a_demos_directory"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} holds something that no demo made, and the demo empties its directory. "
            "Choose another --data-dir; one that does not exist is made."
        )


class DemoRunning(CcatError):
    """Another demo uses the directory right now."""

    code = "demo.running"

    def __init__(self, path: Path) -> None:
        super().__init__(f"A demo is running in {path}. Wait for its end, or choose another --data-dir.")


@dataclass(frozen=True)
class DemoDirectory:
    """What lies where."""

    root: Path

    @property
    def stack(self) -> StackDirectory:
        """Of the embedded stack; new with every demo."""
        return StackDirectory(self.root / "stack")

    @property
    def definitions(self) -> Path:
        """The file that is applied."""
        return self.root / "pipelines.yaml"

    @property
    def cache(self) -> Path:
        """Raw files and the released environment: made once for every state of the reduction software."""
        return self.root / "cache"

    @property
    def report(self) -> Path:
        """Everything that the demo found, for programs."""
        return self.root / "report.json"

    def disk_of(self, location: str) -> Path:
        """Root of a seeded location, `site/name`."""
        return self.stack.storage / location


@contextmanager
def demo_directory(path: Path) -> Iterator[DemoDirectory]:
    """Make or take over a directory for one demo; raises NotADemosDirectory and DemoRunning."""
    root = path.resolve()
    mark = root / _MARK
    if root.exists() and not mark.exists() and (not root.is_dir() or any(root.iterdir())):
        raise NotADemosDirectory(root)
    root.mkdir(parents=True, exist_ok=True)
    with mark.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoRunning(root) from None
        yield DemoDirectory(root)


def clear(directory: DemoDirectory) -> None:
    """Remove what the last demo left, except for the cache."""
    if directory.stack.root.exists():
        shutil.rmtree(directory.stack.root)
    directory.report.unlink(missing_ok=True)
