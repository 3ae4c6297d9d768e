"""Real Apptainer, and images that tests make of programs of this machine."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tests.needs import give_up

OPTIONS: Final = ("--userns",) if os.geteuid() == 0 else ()
"""As root with few capabilities, as in a container, Apptainer needs a user namespace as anybody else."""
PROGRAMS: Final = (
    *("sh", "cat", "ls", "env", "id", "sleep", "mkdir", "rm", "touch", "find", "sort", "head", "dd", "chmod", "flock"),
    *("readlink", "uname"),
)
_ADVICE: Final = "apt-get install apptainer (Debian 12 has none of its own: see https://apptainer.org/docs/admin)"
_DIRECTORIES: Final = ("usr/bin", "proc", "sys", "dev", "tmp", "var/tmp", "etc", "home", "root")


def require_apptainer() -> None:
    """End the test where there is no Apptainer."""
    if shutil.which("apptainer") is None:
        give_up(f"no Apptainer here: {_ADVICE}")


def require_containers(image: Path) -> Path:
    """The image, if it can be run here; else the test ends."""
    words = ["apptainer", "--quiet", "exec", *OPTIONS, "--containall", str(image), "sh", "-c", "true"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        give_up(f"Apptainer cannot run containers here: {done.stderr.strip()}")
    return image


def make_sandbox(directory: Path, programs: Iterable[str] = PROGRAMS) -> Path:
    """A root file system with a few programs of this machine and the libraries that they need."""
    for name in _DIRECTORIES:
        (directory / name).mkdir(parents=True)
    (directory / "bin").symlink_to("usr/bin")
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\n")
    for name in ("hosts", "resolv.conf", "localtime"):
        (directory / "etc" / name).touch()
    for name in programs:
        found = shutil.which(name)
        assert found is not None, name
        put_program(directory, Path(found), as_name=name)
    return directory


def put_program(sandbox: Path, program: Path, *, as_name: str) -> None:
    """Copy a program, and every library that it is linked with, to where it is looked for."""
    shutil.copy(program.resolve(), sandbox / "usr/bin" / as_name)
    put_libraries(sandbox, program)


def put_libraries(sandbox: Path, file: Path) -> None:
    """Copy what a program or a module is linked with: to its place, or to one that every loader looks into."""
    for library in libraries(file):
        if library.is_relative_to(sandbox):
            continue
        is_usual = library.parts[1] in {"lib", "lib64", "usr"}
        target = sandbox / (library.relative_to("/") if is_usual else Path("usr/lib") / library.name)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library.resolve(), target)


def libraries(file: Path) -> Iterator[Path]:
    """Paths of the libraries that the loader would take for a program or a module."""
    told = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout
    for word in told.split():
        if word.startswith("/"):
            yield Path(word.rstrip(":"))


def build(image: Path, sandbox: Path) -> Path:
    """Make a SIF file of a sandbox, uncompressed, as that is quicker."""
    command = ["apptainer", "build", "--force", "--mksquashfs-args", "-noD -noI -noF -noX", str(image), str(sandbox)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return image
