"""Small files in which processes that may die at any moment tell each other about jobs."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

D = TypeVar("D", bound="Document")


class Document(BaseModel):
    """The content of a file."""

    model_config = ConfigDict(frozen=True)


def document(text: str | None, kind: type[D]) -> D | None:
    """Return what a file says; None if it is not there or not whole, as a power failure may leave it."""
    try:
        return None if text is None else kind.model_validate_json(text)
    except ValidationError:
        return None


def read(path: Path) -> str | None:
    """Return what stands in a file; None if it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def modified_at(path: Path) -> float | None:
    """Return when a file was written last, in seconds since 1970; None if it is not there."""
    try:
        return path.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None


def create_once(path: Path, text: str) -> bool:
    """Make a file whole or not at all; False if it is there already."""
    with draft(path, text) as one:
        try:
            path.hardlink_to(one)
        except FileExistsError:
            return False
    return True


def put(path: Path, text: str) -> None:
    """Make or replace a file in one step; on return it is on disk, under its name."""
    with draft(path, text, is_kept=True) as one:
        one.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def draft(path: Path, text: str, *, is_kept: bool = False) -> Iterator[Path]:
    """A file beside another, to be given the name of that one; where it was not, it is removed."""
    one = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(one, "x", encoding="utf-8", opener=_private) as file:
            file.write(text)
            if is_kept:
                file.flush()
                os.fsync(file.fileno())
        yield one
    finally:
        one.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)  # a record holds the job's environment
