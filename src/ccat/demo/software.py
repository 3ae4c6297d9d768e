"""The reduction software of the demo: installed once as it is, and once as a later release."""

import fcntl
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ccat.demo.commands import CommandFailed, run
from ccat.demo.instruments import INSTRUMENTS
from ccat.demo.story import FIRST_VERSION
from ccat_ops_db.distributions import code_digest, installed_distribution
from ccat_ops_db.errors import CcatError

DISTRIBUTION: Final = "ccat-pipelines"
_CHECKOUT: Final = Path(__file__).resolve().parents[3]
SOURCE: Final = _CHECKOUT / "pipelines"
EXAMPLES: Final = {one.name: SOURCE / "examples" / one.example for one in INSTRUMENTS}
"""Definitions, by instrument."""
_REQUIREMENTS: Final = _CHECKOUT / "requirements" / "pipelines.txt"
_READY: Final = ".ready"


class PipelinesMissing(CcatError):
    """The reduction software is not there, or not its source."""

    code = "demo.pipelines_missing"

    def __init__(self, missing: Path) -> None:
        super().__init__(
            f"{missing} is missing. The demo needs a checkout of the project and the reduction software installed: "
            "`make demo` sees to it; `make set-up` only installs."
        )


def installed_digest(environment: Path) -> str:
    """Short digest of the code of the installed reductions; raises PipelinesMissing."""
    programs = [environment / "bin" / one.program for one in INSTRUMENTS]
    for needed in (*programs, *EXAMPLES.values(), _REQUIREMENTS):
        if not needed.exists():
            raise PipelinesMissing(needed)
    return code_digest(installed_distribution(environment, DISTRIBUTION)).removeprefix("sha256:")[:12]


def release(version: str, environment: Path) -> Path:
    """The environment with this version of the reductions: installed from their source unless it is there already."""
    with made_once(environment) as is_there:
        if not is_there:
            _install(version, environment)
    return environment


@contextmanager
def made_once(directory: Path) -> Iterator[bool]:
    """Whether a directory is complete; if not, it is empty, and the block fills it. Others wait meanwhile."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = directory / _READY
        if not ready.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            yield False
            ready.touch()
        else:
            yield True


def _install(version: str, environment: Path) -> None:
    source, wheels = environment / "source", environment / "wheels"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("tests", "__pycache__", ".*"))
    project = source / "pyproject.toml"
    project.write_text(project.read_text().replace(f'version = "{FIRST_VERSION}"', f'version = "{version}"', 1))
    ours, theirs = ("--python", sys.executable), ("--python", str(environment))
    pinned = ("--require-hashes", "--only-binary", ":all:")
    _uv("venv", "--no-project", "--allow-existing", *ours, str(environment))
    _uv("pip", "sync", *theirs, *pinned, str(_REQUIREMENTS))
    _uv("build", "--wheel", "--no-build-isolation", *ours, "--out-dir", str(wheels), str(source))
    # Past the cache, which would hand out an older build of the same version.
    _uv("pip", "install", "--no-cache", *theirs, "--no-deps", "--no-index", "--find-links", str(wheels), DISTRIBUTION)


def _uv(*arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("uv")), *arguments[:1], "--quiet", *arguments[1:]]
    exit_code, _, news = run(command)
    if exit_code:
        raise CommandFailed(command, exit_code=exit_code, reason=" ".join(news))
