"""Where the files of a run lie. Nothing is shared between attempts, so a retry never meets an older one's files."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from ccat_ops_db.errors import CcatError

_SAFE_PART: Final = re.compile(r"[A-Za-z0-9._=,%~+-]+")


class UnsafePathPart(CcatError):
    """A name that would not be one directory below another."""

    code = "unsafe_path_part"

    def __init__(self, part: str) -> None:
        super().__init__(f"{part!r} cannot be a directory name: use letters, digits and ._=,%~+- only")
        self.part = part


@dataclass(frozen=True)
class AttemptLayout:
    """Directories and files of one attempt; jobs write nowhere else."""

    directory: Path

    @cached_property
    def input(self) -> Path:
        """Links to what the software reads."""
        return self.directory / "input"

    @cached_property
    def workspace(self) -> Path:
        """Scratch, and the software's working directory."""
        return self.directory / "workspace"

    @cached_property
    def output(self) -> Path:
        """Products of a final step."""
        return self.directory / "output"

    @cached_property
    def config(self) -> Path:
        """The manifest, and what it refers to."""
        return self.directory / "config"

    @cached_property
    def logs(self) -> Path:
        """What the software wrote while it ran."""
        return self.directory / "logs"

    @cached_property
    def home(self) -> Path:
        """Home directory of the software: hidden, so that no step is called so."""
        return self.workspace / ".home"

    @cached_property
    def temporary(self) -> Path:
        """Temporary files of the software."""
        return self.workspace / ".tmp"

    @cached_property
    def manifest(self) -> Path:
        """Everything about the execution, for the software."""
        return self.config / "manifest.json"

    @cached_property
    def stdout(self) -> Path:
        """Captured standard output."""
        return self.logs / "stdout.log"

    @cached_property
    def stderr(self) -> Path:
        """Captured standard error."""
        return self.logs / "stderr.log"

    @cached_property
    def collected(self) -> Path:
        """What was found when the job had ended well; written before the products are published."""
        return self.directory / "collected.json"

    def products(self, step_key: str, *, is_final: bool) -> Path:
        """Return where the software writes its products, before they are published."""
        return self.output if is_final else self.workspace / _checked(step_key)


INSIDE: Final = AttemptLayout(Path("/workflow"))
"""An attempt as software in an image sees it, wherever it lies."""


@dataclass(frozen=True)
class RunLayout:
    """Directories of one run."""

    directory: Path

    @cached_property
    def products(self) -> Path:
        """The published products of the run."""
        return self.directory / "products"

    def set_aside(self, *, before: int) -> Path:
        """Where products are put that were published before this attempt, and never registered."""
        return self.directory / f"unregistered-before-attempt-{before}"

    @cached_property
    def lock(self) -> Path:
        """Held by the worker that is at it."""
        return self.directory / "worker.lock"

    def attempt(self, number: int) -> AttemptLayout:
        """Return the layout of the attempt with this number."""
        return AttemptLayout(self.directory / f"attempt-{number}")


def run_layout(base: Path, *, pipeline_id: int, sub_group: str, step_key: str, run_id: int) -> RunLayout:
    """Return where a run lies below the pipeline base directory; `sub_group` is the path form of its key."""
    return RunLayout(base / str(pipeline_id) / _checked(sub_group) / _checked(step_key) / str(run_id))


def _checked(part: str) -> str:
    if not _SAFE_PART.fullmatch(part) or part.startswith("."):
        raise UnsafePathPart(part)
    return part
