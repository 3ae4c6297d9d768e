"""The reductions of pipelines/ in an image, made from the environment that they are installed in here."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.apptainer import PROGRAMS, build, make_sandbox, put_libraries, put_program
from tests.end_to_end.installation import REPOSITORY

ENVIRONMENT: Final = REPOSITORY / "build" / "pipelines-env"
_OF_PYTHON: Final = (
    *("__pycache__", "site-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3"),
    "config-*",
)
_OF_PACKAGES: Final = ("__pycache__", "pytest*", "_pytest", "pygments*")
_START: Final = '#!/bin/sh\nPYTHONPATH=/opt/chai exec python3 -m ccat_pipelines.chai "$@"\n'


def build_chai_image(directory: Path) -> Path:
    """Make a SIF file in which `chai STEP` runs, of Python and what is installed for the pipelines."""
    sandbox = make_sandbox(directory / "chai", PROGRAMS)
    python = Path(_of_python("import sys; print(sys.executable)")).resolve()
    standard_library = Path(_of_python("import sysconfig; print(sysconfig.get_path('stdlib'))"))
    packages = Path(_of_python("import sysconfig; print(sysconfig.get_path('purelib'))"))
    put_program(sandbox, python, as_name="python3")
    _copy(standard_library, sandbox / "usr/lib" / standard_library.name, without=_OF_PYTHON)
    _copy(packages, sandbox / "opt/chai", without=_OF_PACKAGES)
    for module in (*(standard_library / "lib-dynload").glob("*.so"), *(packages / "numpy/_core").glob("*.so")):
        put_libraries(sandbox, module)
    start = sandbox / "usr/bin/chai"
    start.write_text(_START)
    start.chmod(0o755)
    return build(directory / "chai.sif", sandbox)


def _of_python(code: str) -> str:
    words = [str(ENVIRONMENT / "bin/python"), "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _copy(source: Path, to: Path, *, without: Sequence[str]) -> None:
    shutil.copytree(source, to, symlinks=True, ignore=shutil.ignore_patterns(*without))
