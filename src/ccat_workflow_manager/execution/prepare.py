"""Make an attempt's directory what the software expects. May be repeated after a crash at any point."""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ccat_ops_db.errors import CcatError
from ccat_service.spaces import require_mounted
from ccat_service.trees import last_change
from ccat_workflow_manager.execution.command import Execution
from ccat_workflow_manager.execution.durable import write_read_only
from ccat_workflow_manager.execution.manifest import Manifest, render
from ccat_workflow_manager.execution.products import TYPE_BY_DIRECTORY
from ccat_workflow_manager.hpc.base import START_MARK


class InputChanged(CcatError):
    """An input is not, or no longer, what was recorded of it: trouble that is mended by staging or making it anew."""

    code = "input_changed"
    transient = True

    def __init__(self, label: str, path: Path, *, difference: str) -> None:
        super().__init__(f"{label} at {path} has changed: {difference}; it has to be brought there anew")
        self.label = label
        self.path = path


class InputsCollide(CcatError):
    """Two inputs would hide one another."""

    code = "inputs_collide"

    def __init__(self, place: PurePosixPath) -> None:
        super().__init__(f"several inputs would lie at input/{place}: give each a place of its own")
        self.place = place


class AttemptHasStarted(CcatError):
    """The job of this attempt may be running on what is there."""

    code = "attempt_has_started"

    def __init__(self, directory: Path) -> None:
        super().__init__(f"the job in {directory} has started: adopt it, or make a new attempt")
        self.directory = directory


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What is known of a file or directory at `path` below an input; None is not looked at, "" is the input itself.

    Of a directory it is the size of all its files, and the newest modification time of anything in it.
    """

    path: str
    size_bytes: int | None = None
    mtime_ns: int | None = None
    inode: int | None = None


@dataclass(frozen=True, kw_only=True)
class Input:
    """An input: where it lies, where the software finds it below `input/`, and what it must look like.

    `label` names it for people: `package 17`; `root` is the directory of its location.
    """

    label: str
    root: Path
    target: Path
    place: PurePosixPath
    recorded: Sequence[Recorded] = ()


def prepare(execution: Execution, *, inputs: Sequence[Input], manifest: Manifest) -> None:
    """Look at every input, then make directories, links and manifest.

    Raises InputChanged, InputsCollide or AttemptHasStarted.
    """
    if (execution.layout.directory / START_MARK).exists():
        raise AttemptHasStarted(execution.layout.directory)
    _refuse_collisions(inputs)
    for item in inputs:
        confirm(item)
    execution.layout.directory.mkdir(parents=True, exist_ok=True)
    for directory in _directories(execution):
        directory.mkdir(exist_ok=True)
    _link_all(execution.layout.input, inputs)
    for name, content in render(manifest).items():
        write_read_only(execution.layout.config / name, content)


def confirm(item: Input) -> None:
    """Compare an input with what is recorded of it: a look at size, mtime and inode, no reading.

    Raises OSError where its whole location is away, which says nothing about the input.
    """
    for recorded in (Recorded(path=""), *item.recorded):
        path = item.target / recorded.path
        if not _difference(recorded, path):
            continue
        require_mounted(item.root)
        if difference := _difference(recorded, path):  # looked at once more: the disk may have come back just now
            raise InputChanged(item.label, path, difference=difference)


def _difference(recorded: Recorded, path: Path) -> str | None:
    try:
        status = path.stat()
        size = _size_of_tree(path) if path.is_dir() and recorded.size_bytes is not None else status.st_size
        changed = None if recorded.mtime_ns is None else last_change(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"it cannot be found ({error.strerror})"
    looks = {
        "bytes": (recorded.size_bytes, size),
        "modification time": (recorded.mtime_ns, changed),
        "inode": (recorded.inode, status.st_ino),
    }
    return next(
        (
            f"{what}: {wanted} recorded, {found} found"
            for what, (wanted, found) in looks.items()
            if wanted not in {None, found}
        ),
        None,
    )


def _size_of_tree(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _refuse_collisions(inputs: Sequence[Input]) -> None:
    places = Counter(item.place for item in inputs)
    for place in places:
        if places[place] > 1 or any(parent in places for parent in place.parents):
            raise InputsCollide(place)


def _directories(execution: Execution) -> list[Path]:
    layout = execution.layout
    named = [layout.input, layout.workspace, layout.config, layout.logs, layout.home, layout.temporary]
    sorted_into = TYPE_BY_DIRECTORY if execution.is_final else ()
    return [*named, execution.output, *(execution.output / name for name in sorted_into)]


def _link_all(below: Path, inputs: Sequence[Input]) -> None:
    for directory in {item.place.parent for item in inputs}:
        (below / directory).mkdir(parents=True, exist_ok=True)
    for item in inputs:
        _link(below / item.place, item.target)


def _link(place: Path, target: Path) -> None:
    try:
        place.symlink_to(target)
    except FileExistsError:
        if not place.is_symlink() or place.readlink() != target:
            draft = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
            draft.symlink_to(target)
            draft.replace(place)
