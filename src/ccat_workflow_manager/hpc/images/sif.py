"""The first bytes of a SIF file: that it is one, and for which processors it was built."""

import platform
from typing import Final

HEADER_BYTES: Final = 48
_MAGIC: Final = slice(32, 41)
_ARCHITECTURE: Final = slice(45, 47)
_ARCHITECTURES: Final = {
    b"01": "i386",
    b"02": "x86_64",
    b"03": "arm",
    b"04": "aarch64",
    b"05": "ppc64",
    b"06": "ppc64le",
    b"07": "mips",
    b"08": "mipsle",
    b"09": "mips64",
    b"10": "mips64le",
    b"11": "s390x",
    b"12": "riscv64",
}
"""Numbers that SIF gives to processors, and what `uname -m` calls them."""


def is_sif(header: bytes) -> bool:
    """Whether a file that begins so is a SIF file."""
    return header[_MAGIC] == b"SIF_MAGIC"


def trouble(header: bytes, *, machine: str | None = None) -> tuple[str, str] | None:
    """What keeps a file that begins so from running on a machine, this one if none is named, and what to do."""
    here = machine or platform.machine()
    if not is_sif(header):
        return "it is no SIF file", "make one with `apptainer build IMAGE.sif DEFINITION`"
    built_for = _ARCHITECTURES.get(header[_ARCHITECTURE])
    if built_for is not None and built_for != here:
        return f"it was built for {built_for}, and this is {here}", f"build it for {here}"
    return None
