"""Find what a job wrote, make it read-only, and take its checksums while putting it on disk."""

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Final

from ccat_ops_db.errors import CcatError
from ccat_ops_db.plan.names import is_reserved
from ccat_ops_db.plan.trees import TreeFile, tree_checksum
from ccat_workflow_manager.execution.durable import read_only_mode, sync_directory
from ccat_workflow_manager.execution.products import TREE_SUFFIX, Product, product_type

ANNOTATIONS_FILE: Final = "products.json"
"""What the software says about its products; not a product itself."""
_AT_ONCE: Final = 4
"""Files that are read and put on disk side by side."""
_WORTH_THREADS: Final = 8
_AT_LEAST: Final = 2**16
"""Bytes of a file that is read piece by piece."""


class OutputRefused(CcatError):
    """The software wrote something that cannot be kept."""

    code = "output_refused"

    def __init__(self, path: str, *, problem: str, remedy: str) -> None:
        super().__init__(f"the output {path!r} cannot be kept: {problem}; {remedy}")
        self.path = path


def scan(output: Path, *, is_final: bool) -> tuple[Product, ...]:
    """Return all products below a directory, in the order of their paths. Raises OutputRefused."""
    if output.is_symlink():  # what lies there is somebody else's, and would be made read-only
        problem = f"it was replaced by a link to {output.readlink()}"
        raise OutputRefused(".", problem=problem, remedy="write into the directory itself")
    paths = [path for path in _walk(output, PurePosixPath()) if path != PurePosixPath(ANNOTATIONS_FILE)]
    look = partial(_product, output, is_final=is_final)
    if len(paths) < _WORTH_THREADS:
        return tuple(map(look, paths))
    with ThreadPoolExecutor(_AT_ONCE) as threads:  # they wait for the disk, which serves many as soon as one
        return tuple(threads.map(look, paths))


def _walk(root: Path, directory: PurePosixPath, *, tree: PurePosixPath | None = None) -> Iterator[PurePosixPath]:
    """Yield products or, inside of a `tree` that is one product, its files."""
    try:
        with os.scandir(root / directory) as entries:
            found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except PermissionError as error:
        remedy = "let the software leave the permissions of directories alone"
        raise OutputRefused(str(directory), problem="nobody may look into it", remedy=remedy) from error
    for entry in found:
        path = directory / entry.name
        if entry.is_symlink():
            _confirm_link(root, path, tree=tree)
        elif entry.is_dir() and (tree or path.suffix != TREE_SUFFIX):
            yield from _walk(root, path, tree=tree)
        else:
            yield path
    if found:
        sync_directory(root / directory)


def _product(root: Path, path: PurePosixPath, *, is_final: bool) -> Product:
    kind = product_type(path, is_final=is_final)
    if (root / path).is_dir():
        files = list(_tree(root, path))
        checksum = tree_checksum(file for file, _ in files)
        return Product(path=str(path), type=kind, checksum=checksum, size_bytes=sum(size for _, size in files))
    file, size = _seal(root, path)
    return Product(path=str(path), type=kind, checksum=f"sha256:{file.sha256}", size_bytes=size)


def _tree(root: Path, tree: PurePosixPath) -> Iterator[tuple[TreeFile, int]]:
    for path in _walk(root, tree, tree=tree):
        file, size = _seal(root, path)
        yield replace(file, path=str(path.relative_to(tree))), size


def _seal(root: Path, path: PurePosixPath) -> tuple[TreeFile, int]:
    """Make a file read-only, take its digest and size, and sync it: what is registered is what stays."""
    _confirm_name(path)
    place = root / path
    status = place.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise OutputRefused(str(path), problem="it is neither a file nor a directory", remedy="write regular files")
    mode = read_only_mode(status.st_mode)
    place.chmod(mode)
    with place.open("rb", buffering=0) as file:
        digest = _digest(file)
        os.fsync(file.fileno())
        return TreeFile(str(path), mode, digest), file.tell()


def _digest(file: FileIO) -> str:
    """SHA-256 of what is left of a file, as hexadecimal digits."""
    start = file.read(_AT_LEAST)
    if len(start) < _AT_LEAST:  # a small one, whose buffer would cost more than its bytes
        return hashlib.sha256(start + (file.read() or b"")).hexdigest()
    digest = hashlib.sha256(start)
    return hashlib.file_digest(file, lambda: digest).hexdigest()


def _confirm_name(path: PurePosixPath) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise OutputRefused(str(path), problem="its name is not UTF-8", remedy="give it another name") from error
    if is_reserved(str(path)):
        problem = "what is called so is removed as the rest of an unfinished file"
        raise OutputRefused(str(path), problem=problem, remedy="give it another name")


def _confirm_link(root: Path, path: PurePosixPath, *, tree: PurePosixPath | None) -> None:
    """Let a link pass that still leads to the same product when the directory has got another name."""
    target = (root / path).readlink()
    outside = f"it links to {target}, which is outside of the output directory"
    if tree:
        problem = f"it is a link inside of {tree}, which is one product"
    elif not _stays_inside(path, target):
        problem = outside
    elif not (root / path).exists():
        problem = f"it links to {target}, which does not exist"
    elif not (root / path).resolve().is_relative_to(root.resolve()):
        problem = outside
    else:
        return
    raise OutputRefused(str(path), problem=problem, remedy="write a copy instead")


def _stays_inside(link: PurePosixPath, target: Path) -> bool:
    depth = len(link.parent.parts)
    for part in target.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return False
    return not target.is_absolute()
