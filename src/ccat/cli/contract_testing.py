"""Tests a reduction in a directory of its own, which is removed unless somebody wants to look at it."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

from ccat.cli.contract_options import Inputs, Limits, Software, Step, refuse_unless, subject_of
from ccat.cli.contract_report import print_for_programs, print_report, telling_progress
from ccat.cli.errors import reported
from ccat_ops_db.errors import CcatError
from ccat_workflow_manager.contract.examining import Tell, examine
from ccat_workflow_manager.contract.images import bring
from ccat_workflow_manager.contract.tracing import traced
from ccat_workflow_manager.contract.values import Report, Subject
from ccat_workflow_manager.hpc.local.killing import kill_jobs

_INTERRUPTED: Final = 130
_PROBE_S: Final = 10


class ApptainerMissing(CcatError):
    """An image is to be tested where none can be run."""

    code = "apptainer_missing"

    def __init__(self) -> None:
        super().__init__("`apptainer` is not installed here: install it, or test the command without its image")


def test_and_tell(
    software: Software, inputs: Inputs, step: Step, *, limits: Limits, keep: Path | None, as_json: bool
) -> NoReturn:
    """Test a reduction, print what was found, and end with 1 where something is broken."""
    with reported(as_json=as_json):
        subject = subject_of(software, inputs, step, limits=limits)
        with _directory(keep) as base, _telling_nobody() if as_json else telling_progress() as tell:
            report = _tested(subject, software.image, base, tell=tell)
        (print_for_programs if as_json else print_report)(report, keep)
    raise SystemExit(bool(report.broken))


def _tested(subject: Subject, image: str | None, base: Path, *, tell: Tell) -> Report:
    """Test it in its image, where it has one; nothing of it runs on return, whatever happens."""
    if image and shutil.which("apptainer") is None:
        raise ApptainerMissing
    try:
        with _interrupted(signal.SIGTERM), _interrupted(signal.SIGHUP):
            whole = replace(subject, image=bring(image, base)) if image else subject
            return examine(whole, base, tell=tell, strace=find_strace())
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    finally:
        kill_jobs(base)


@contextlib.contextmanager
def _telling_nobody() -> Iterator[Tell]:
    yield lambda _trial, _seen: None


def find_strace() -> str | None:
    """The program that shows what files are opened, where it may."""
    found = shutil.which("strace")
    if found is None:
        return None
    probe = traced(found, ["true"], into=Path("/dev/null"))
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        if subprocess.run(probe, capture_output=True, check=False, timeout=_PROBE_S).returncode == 0:
            return found
    return None


@contextlib.contextmanager
def _interrupted(by: signal.Signals) -> Iterator[None]:
    """Jobs outlive whoever starts them, so that nobody may end without ending them; whom `nohup` starts goes on."""
    before = signal.getsignal(by)
    if before is signal.SIG_IGN:
        yield
        return
    signal.signal(by, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(by, before)


@contextlib.contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="ccat-contract-", ignore_cleanup_errors=True) as made:
            yield Path(made).resolve()
        return
    refuse_unless(not keep.exists() or keep.is_dir(), "it is no directory", "--keep")
    refuse_unless(not keep.exists() or not any(keep.iterdir()), "it is not empty", "--keep")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep.resolve()
