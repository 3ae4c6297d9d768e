"""Tells an image from a command, and brings it here."""

import hashlib
import re
from pathlib import Path
from typing import Final

from ccat_ops_db.definitions.images import ImageReference, ImageSource
from ccat_ops_db.errors import CcatError
from ccat_workflow_manager.contract.values import Image
from ccat_workflow_manager.hpc.images import fetching, sif

_SIF: Final = ".sif"
_REFERENCE: Final = re.compile(r"[a-z][a-z0-9+.-]*://")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class ImageNotNamed(CcatError):
    """What is to be an image names none that could be released."""

    code = "image_not_named"


def is_image(word: str) -> bool:
    """Whether a word names an image rather than a program."""
    return word.endswith(_SIF) or bool(_REFERENCE.match(word)) or _begins_as_sif(Path(word))


def confirm_named(reference: str) -> ImageReference:
    """Return what a reference says. Raises ImageNotNamed where that is nothing that could be released."""
    try:
        found = ImageReference.parse(reference)
    except ValueError as error:
        raise ImageNotNamed(str(error)) from error
    if found.source is ImageSource.DOCKER and not _DIGEST.search(reference):
        raise ImageNotNamed(f"{reference} may be another image tomorrow: name it as {reference}@sha256:…, its manifest")
    if found.source is ImageSource.FILE and not Path(reference).is_file():
        raise ImageNotNamed(f"there is no file {reference}: make one with `apptainer build IMAGE.sif DEFINITION`")
    return found


def bring(reference: str, base: Path) -> Image:
    """Return an image with the digest by which a definition names it; one from elsewhere is pulled below `base`.

    Raises ImageNotNamed, ImageUnusable or ImageNotFetched.
    """
    source = confirm_named(reference).source
    path = Path(reference).absolute() if source is ImageSource.FILE else base / f"image{_SIF}"
    pinned = _DIGEST.search(reference)
    if source is not ImageSource.FILE:
        fetching.fetch(fetching.Image(reference, pinned[0] if pinned else ""), path)
    digest = pinned[0] if pinned and source is ImageSource.DOCKER else _digest_of(path)
    name = str(path) if source is ImageSource.FILE else reference
    fetching.confirm(fetching.Image(name, digest), path)
    return Image(name, digest, path)


def _begins_as_sif(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return sif.is_sif(file.read(sif.HEADER_BYTES))
    except OSError:
        return False


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
