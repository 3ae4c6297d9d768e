"""Where a container image lies, and what its digest is the digest of."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_PINNED: Final = re.compile(r"(?P<name>[^@]+)@(?P<digest>sha256:[0-9a-f]{64})")
_TAG: Final = re.compile(r":[A-Za-z0-9_][A-Za-z0-9._-]*$")


class ImageSource(StrEnum):
    """What brings an image here: the scheme of its reference, and none for a file."""

    FILE = "file"
    DOCKER = "docker"
    """A registry of OCI images; the digest is that of the image's manifest there."""
    ORAS = "oras"
    """A registry that keeps SIF files; the digest is that of the file, as for all that follow."""
    LIBRARY = "library"
    HTTPS = "https"
    HTTP = "http"


@dataclass(frozen=True)
class ImageReference:
    """An image as a definition names it: `/images/chai.sif`, `docker://registry/chai:1.2`, `oras://…`."""

    source: ImageSource
    rest: str

    @classmethod
    def parse(cls, text: str) -> "ImageReference":
        """Read a reference; raises ValueError with a sentence for its author."""
        matched = _SCHEME.fullmatch(text)
        if matched is None:
            return cls(ImageSource.FILE, text)
        scheme, rest = matched[1].lower(), matched[2]
        known = [str(one) for one in ImageSource if one is not ImageSource.FILE]
        if scheme not in known:
            listed = ", ".join(f"{one}://" for one in known)
            raise ValueError(f"`{scheme}:` brings no image: it is the path of a SIF file, or begins with {listed}")
        name = rest.removeprefix("//")
        if not rest.startswith("//") or not re.fullmatch(r"[^/\s]\S*", name):
            raise ValueError(f"`{text}` names no image: write {scheme}://PLACE/NAME")
        if scheme == ImageSource.DOCKER and "@" in name and not _PINNED.fullmatch(name):
            raise ValueError(f"`{text}` names no digest behind its `@`: write sha256: and 64 digits")
        return cls(ImageSource(scheme), name)

    def confirm(self, digest: str) -> None:
        """Raise ValueError where the reference names another digest than this."""
        pinned = _PINNED.fullmatch(self.rest)
        if self.source is ImageSource.DOCKER and pinned and pinned["digest"] != digest:
            raise ValueError(f"the image is pinned to {pinned['digest']}, and `image_digest` says {digest}")

    def exactly(self, digest: str) -> str:
        """What Apptainer is asked for: of a registry of OCI images never what a tag means by now."""
        if self.source is ImageSource.FILE:
            return self.rest
        if self.source is not ImageSource.DOCKER:
            return f"{self.source}://{self.rest}"
        pinned = _PINNED.fullmatch(self.rest)
        name = pinned["name"] if pinned else self.rest
        return f"docker://{_TAG.sub('', name)}@{digest}"
