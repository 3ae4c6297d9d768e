"""Inputs of a trial: copies, so that nothing that is tested ever reaches what it was given."""

import hashlib
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from ccat_ops_db.errors import CcatError
from ccat_workflow_manager.contract.saying import printable
from ccat_workflow_manager.contract.values import Given
from ccat_workflow_manager.execution.durable import READ_ONLY
from ccat_workflow_manager.execution.manifest import AuxiliaryInput, InputFile, Inputs, RawInput, UpstreamInput
from ccat_workflow_manager.execution.prepare import Input
from ccat_workflow_manager.execution.products import TREE_SUFFIX, Product
from ccat_workflow_manager.execution.scan import scan

_MADE: Final = {"scan.txt": b"0 1.5\n1 2.5\n2 2.0\n", "scan.bin": bytes(range(256)) * 16}
_GIVE_FILES: Final = "give directories and files that can be read, and no links that lead nowhere"
_RAW: Final = "raw"
_SPOILT: Final = 16
"""Bytes that are turned over in the middle of a file."""

Looks = Mapping[Path, tuple[object, ...]]
"""What files and directories look like: their kind and mode, and of files also time and content."""


class InputNotCopied(CcatError):
    """An input of the team is nothing that a reduction could be given."""

    code = "input_not_copied"

    def __init__(self, path: Path | str, *, problem: str, remedy: str) -> None:
        super().__init__(f"the input {printable(str(path))} cannot be copied: {problem}; {remedy}")


@dataclass(frozen=True)
class Staged:
    """Inputs where the software finds them through the links of its attempt, and as the manifest tells of them."""

    root: Path
    links: Sequence[Input]
    told: Inputs

    def largest(self, read: Collection[str] | None) -> Path | None:
        """The file of which the most would be lost, of those `read` if that is known: a raw one if there is one."""
        files = [path for link in self.links for path in sorted(_files(link.target))]
        known = [path for path in files if read is None or str(path) in read]
        raw = [path for path in known if path.is_relative_to(self.root / _RAW)]
        return max(raw or known, key=lambda path: path.stat().st_size, default=None)


def stage(given: Given, root: Path) -> Staged:
    """Copy inputs below a directory, what lay there before removed; make some where none are given.

    Raises InputNotCopied, or OutputRefused for what can be no product.
    """
    _remove(root)
    raw = [_package(number, path, root) for number, path in enumerate(given.raw, start=1)] or (
        [] if given else [_made(root)]
    )
    numbers = count(1)
    upstream = [_products(root, ("upstream", step), path, numbers=numbers) for step, path in given.upstream]
    auxiliary = [_products(root, ("auxiliary", name), path, numbers=numbers) for name, path in given.auxiliary]
    of_steps = zip(given.upstream, upstream, strict=True)
    of_rules = zip(given.auxiliary, auxiliary, strict=True)
    return Staged(
        root,
        links=[link for link, _ in raw] + [link for products in (*upstream, *auxiliary) for link, _ in products],
        told=Inputs(
            raw=tuple(entry for _, entry in raw),
            upstream=tuple(UpstreamInput(**one, step=step) for (step, _), products in of_steps for _, one in products),
            auxiliary=tuple(AuxiliaryInput(**one, name=name) for (name, _), found in of_rules for _, one in found),
        ),
    )


def spoil(path: Path) -> None:
    """Turn bytes over in the middle of a file, which keeps its size; an empty one gets some."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(max(0, path.stat().st_size - _SPOILT) // 2)
        found = file.read(_SPOILT) or b"\0"
        file.seek(-len(found) if file.tell() else 0, os.SEEK_CUR)
        file.write(bytes(byte ^ 0xFF for byte in found))
    path.chmod(READ_ONLY)


def looks(*directories: Path) -> Looks:
    """Look at all that lies below directories."""
    return {path: _look(path) for directory in directories for path in (directory, *_below(directory))}


def changes(before: Looks, after: Looks) -> Sequence[str]:
    """Tell what differs, by the name of the file."""
    gone = [f"{path.name} is gone" for path in before if path not in after]
    new = [f"{path.name} is new" for path in after if path not in before]
    changed = [f"{path.name} has changed" for path in before if path in after and before[path] != after[path]]
    return [*gone, *changed, *new]


def _look(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return ("link", path.readlink())
    if not stat.S_ISREG(status.st_mode):
        return (status.st_mode,)
    try:
        return (status.st_mode, status.st_mtime_ns, _checksum(path))
    except PermissionError:  # which the software took away, as the mode says
        return (status.st_mode, status.st_mtime_ns)


def _below(directory: Path) -> Iterator[Path]:
    for place, directories, files in os.walk(directory):
        yield from (Path(place) / name for name in (*directories, *files))


def _files(path: Path) -> Iterator[Path]:
    yield from [path] if path.is_file() else (one for one in _below(path) if one.is_file())


def _made(root: Path) -> tuple[Input, RawInput]:
    package = root / _RAW / "package-1"
    package.mkdir(parents=True)
    for name, content in _MADE.items():
        (package / name).write_bytes(content)
    return _as_package(1, package, root)


def _package(number: int, path: Path, root: Path) -> tuple[Input, RawInput]:
    package = root / _RAW / f"package-{number}"
    _copy(path, package if path.is_dir() else package / path.name)
    return _as_package(number, package, root)


def _as_package(number: int, package: Path, root: Path) -> tuple[Input, RawInput]:
    place = PurePosixPath(_RAW, package.name)
    files = sorted(_files(package))
    for file in files:
        _confirm_name(file.relative_to(package))
        file.chmod(READ_ONLY)
    entry = RawInput(
        package_id=number,
        path=str(place),
        executed_obs_unit=uuid5(NAMESPACE_URL, package.name),
        obs_unit=None,
        source=None,
        instrument_module="module",
        files=tuple(
            InputFile(path=str(file.relative_to(package)), size_bytes=file.stat().st_size, checksum=_checksum(file))
            for file in files
        ),
    )
    return Input(label=f"package {number}", root=root, target=package, place=place), entry


def _products(
    root: Path, role: tuple[str, str], path: Path, *, numbers: Iterator[int]
) -> list[tuple[Input, dict[str, Any]]]:
    """Products of one run: those of a directory, or a single one. Raises OutputRefused for what can be none."""
    run = next(numbers)
    below = root.joinpath(*role, f"group-{run}")
    _copy(path, below if _is_several(path) else below / path.name)
    found = scan(below, is_final=True)
    return [_as_product(one, below, root, ids={"run_id": run, "product_id": next(numbers)}) for one in found]


def _as_product(one: Product, below: Path, root: Path, *, ids: dict[str, int]) -> tuple[Input, dict[str, Any]]:
    target = below / one.path
    place = PurePosixPath(target.relative_to(root))
    entry = {**ids, "path": str(place), "type": one.type, "checksum": one.checksum}
    return Input(label=one.path, root=root, target=target, place=place), entry


def _is_several(path: Path) -> bool:
    return path.is_dir() and path.suffix != TREE_SUFFIX


def _copy(source: Path, to: Path) -> None:
    """Copy a file or a directory. Raises InputNotCopied."""
    if to.resolve().is_relative_to(source.resolve()):
        raise InputNotCopied(source, problem="the copies would lie inside", remedy="choose --keep or TMPDIR elsewhere")
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        if source.is_dir():
            shutil.copytree(source, to, dirs_exist_ok=True)
        else:
            shutil.copy2(source, to)
    except shutil.SpecialFileError as error:
        raise InputNotCopied(source, problem="it is no regular file", remedy=_GIVE_FILES) from error
    except RecursionError as error:
        raise InputNotCopied(source, problem="links in it lead to the copies", remedy=_GIVE_FILES) from error
    except shutil.Error as error:
        place, _, problem = error.args[0][0]
        raise InputNotCopied(place, problem=problem, remedy=_GIVE_FILES) from error


def _remove(root: Path) -> None:
    """Remove what lies below a directory, also where software has forbidden that."""
    if root.is_dir():
        root.chmod(stat.S_IRWXU)
    for place, directories, _ in os.walk(root):  # a directory is looked into after its turn here
        for path in (Path(place, name) for name in directories):
            if not path.is_symlink():
                path.chmod(stat.S_IRWXU)
    shutil.rmtree(root, ignore_errors=True)


def _confirm_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputNotCopied(path, problem="its name is not UTF-8", remedy="give it another name") from error


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
