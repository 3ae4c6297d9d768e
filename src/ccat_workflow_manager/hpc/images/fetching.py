"""One image is brought here: copied where it is a file, else pulled by Apptainer; then looked at."""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeAlias

from ccat_ops_db.definitions.images import ImageReference, ImageSource
from ccat_ops_db.errors import CcatError
from ccat_workflow_manager.hpc.images import sif
from ccat_workflow_manager.hpc.images.errors import ImageNotFetched, ImageUnusable

_NEVER: Final = re.compile(
    r"manifest unknown|name unknown|not found|does not exist|unauthorized|denied|forbidden|invalid reference"
    r"|no image found|does not match|unsupported|status code: 40[134]|40[134] (?:unauthorized|forbidden|not found)",
    re.IGNORECASE,
)
"""What a registry says of an image that it will never give, as things stand."""
_PASSES: Final = re.compile(r"too ?many requests|rate limit|\b429\b|no such host|timeout|no space left", re.IGNORECASE)
"""What it says of itself, or what the network or the disk does; the number alone, as digests and ports may hold it."""
_NOISE: Final = re.compile(r"\x1b\[[0-9;]*m|^(?:FATAL|ERROR):\s*", re.MULTILINE)
_LONGEST: Final = 300
LONGEST_PULL: Final = timedelta(hours=2)
"""After this a pull is ended: a registry that says nothing any more is asked again."""

_SCRATCH: Final = "ccat-pull-"
_SCRATCH_VARIABLE: Final = "APPTAINER_TMPDIR"
"""Where Apptainer unpacks layers: of a pull that is ended, it would be left behind."""

Signature: TypeAlias = tuple[int, int, int] | None


@dataclass(frozen=True)
class Image:
    """A container image, and the digest by which it is known."""

    reference: str
    digest: str


def signature(image: Image) -> Signature:
    """What the file of an image looks like now; None where it is not there, or is no file."""
    reference = ImageReference.parse(image.reference)
    if reference.source is not ImageSource.FILE:
        return None
    try:
        status = Path(reference.rest).stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def fetch(image: Image, to: Path, *, held: Sequence[int] = (), longest: timedelta = LONGEST_PULL) -> None:
    """Make `to` the SIF file of an image, on disk; what is `held` stays open as long as anything works at that.

    Raises ImageUnusable or ImageNotFetched.
    """
    reference = ImageReference.parse(image.reference)
    if reference.source is ImageSource.FILE:
        _copy(image, Path(reference.rest), to)
    else:
        _pull(image, reference.exactly(image.digest), to, held=held, longest=longest)
    with to.open("rb") as file:
        os.fsync(file.fileno())


def confirm(image: Image, path: Path) -> None:
    """Raise ImageUnusable unless a file is the image that it should be, and runs here."""
    with path.open("rb") as file:
        wrong = sif.trouble(file.read(sif.HEADER_BYTES))
        if wrong is not None:
            problem, remedy = wrong
            raise ImageUnusable(image.reference, problem=problem, remedy=remedy)
        if ImageReference.parse(image.reference).source is ImageSource.DOCKER:
            return  # made here from what has the digest, which who pulled it has seen to
        file.seek(0)
        found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    if found != image.digest:
        problem = f"its digest is {found}, and {image.digest} was released"
        raise ImageUnusable(image.reference, problem=problem, remedy="put back what was, or release a new version")


def _copy(image: Image, source: Path, to: Path) -> None:
    try:
        with source.open("rb") as file:
            wrong = sif.trouble(file.read(sif.HEADER_BYTES))
        if wrong is None:
            shutil.copyfile(source, to)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        if not to.parent.is_dir():
            raise ImageNotFetched(image.reference, f"{to.parent} is away") from error
        problem, remedy = f"{error.strerror} ({source})", "name a SIF file that the workers can read"
        raise ImageUnusable(image.reference, problem=problem, remedy=remedy) from error
    if wrong is not None:
        problem, remedy = wrong
        raise ImageUnusable(image.reference, problem=problem, remedy=remedy)


def _pull(image: Image, reference: str, to: Path, *, held: Sequence[int], longest: timedelta) -> None:
    # Its own cache would be a second one, without bounds.
    command = ["apptainer", "--nocolor", "pull", "--disable-cache", str(to), reference]
    try:
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=os.environ.get(_SCRATCH_VARIABLE)) as scratch:
            said, code = _run(command, held=held, longest=longest, scratch=scratch)
    except (FileNotFoundError, PermissionError) as error:
        problem = f"`apptainer` cannot be run on {socket.gethostname()}, where the worker is: {error.strerror}"
        raise ImageUnusable(image.reference, problem=problem, remedy="install it there") from error
    except subprocess.TimeoutExpired:
        raise ImageNotFetched(image.reference, f"it did not come within {longest}") from None
    if code != 0:
        raise trouble_of_pull(image, said, code=code, here=to.parent)


def _run(command: Sequence[str], *, held: Sequence[int], longest: timedelta, scratch: str) -> tuple[str, int]:
    """What a command says, and how it ends; what it has begun is ended with it when it takes too long."""
    with subprocess.Popen(
        command,
        env={**os.environ, _SCRATCH_VARIABLE: scratch},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=held,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=longest.total_seconds())
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return said, process.returncode


def trouble_of_pull(image: Image, said: str, *, code: int, here: Path) -> CcatError:
    """Return the error that the last words of a pull stand for, which puts the image into a directory."""
    lines = [line.strip() for line in _NOISE.sub("", said).splitlines() if line.strip()]
    last = (lines[-1] if lines else f"`apptainer pull` ended with exit code {code}")[-_LONGEST:]
    is_ours = _PASSES.search(last) or str(here) in last or "build-temp" in last
    if _NEVER.search(last) and not is_ours:
        return ImageUnusable(
            image.reference, problem=last, remedy="mend `image` or `image_digest`, or the rights there"
        )
    return ImageNotFetched(image.reference, last)
