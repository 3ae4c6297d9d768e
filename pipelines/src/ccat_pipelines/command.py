"""From a command line to a step: only the chosen step is imported, so that every step starts quickly."""

import os
import sys
from collections.abc import Mapping
from importlib import import_module

from ccat_pipelines.contract import load
from ccat_pipelines.errors import StepError

# One thread: a cluster gives a step the cores that it asked for, and sums come out the same on any number of cores.
SINGLE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def use_one_thread() -> None:
    """Keep numerical libraries to one thread; only takes effect before they are imported."""
    os.environ.update(SINGLE_THREAD)


def run_step(package: str, step: str, *, environ: Mapping[str, str]) -> int:
    """Run the step `run(execution)` of a package under the container contract and return the exit code."""
    use_one_thread()
    try:
        import_module(f"{package}.{step.replace('-', '_')}").run(load(environ))
    except StepError as error:
        sys.stderr.write(f"{package.rpartition('.')[2]} {step}: {error}\n")
        return error.exit_code
    return 0
