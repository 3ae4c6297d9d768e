"""Processes that are forked from the supervisor: as separate from it as programs that are started."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ccat.stack.processes import Child, start
from ccat.stack.services import ServiceSpec
from tests.stack.support import eventually


def service(call: Callable[[], object], **keys: object) -> ServiceSpec:
    return ServiceSpec(name="patient-worker", call=call, **keys)  # type: ignore[arg-type]  # its other fields


def wait_for_a_signal() -> None:
    print("ready", flush=True)  # noqa: T201 - so that a test can see it in the log
    signal.pause()


def leave(code: object) -> None:
    sys.exit(code)  # type: ignore[arg-type]  # any object is said


def stumble() -> None:
    raise KeyError("x")


def ended(call: Callable[[], object], log: Path) -> int:
    return start(service(call), log).wait(10)


@pytest.mark.parametrize(("code", "seen"), [(None, 0), (3, 3), ("a reason", 1)])
def test_its_exit_code_is_what_the_code_leaves_with(tmp_path: Path, code: object, seen: int) -> None:
    assert ended(lambda: leave(code), tmp_path / "log") == seen
    assert (tmp_path / "log").read_text() == (f"{code}\n" if isinstance(code, str) else "")


def test_what_it_raises_is_in_its_log(tmp_path: Path) -> None:
    assert ended(stumble, tmp_path / "log") == 1
    assert (tmp_path / "log").read_text().endswith("KeyError: 'x'\n")


def test_it_has_the_environment_and_the_directory_that_it_is_given_and_only_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCAT_OPS_DB_URL", "of somebody else")

    def tell() -> None:
        files = sorted(int(one.name) for one in Path("/proc/self/fd").iterdir() if one.exists())
        own_session = os.getsid(0) == os.getpid()
        told = (os.environ.get("CCAT_OPS_DB_URL"), os.environ["OURS"], Path.cwd(), files, own_session)
        print(*told)  # noqa: T201 - into its log

    spec = service(tell, environment={"OURS": "1"}, forgets=("CCAT_OPS_DB_",), directory=tmp_path)
    with (tmp_path / "of the supervisor").open("w"):
        assert start(spec, tmp_path / "log").wait(10) == 0
    assert (tmp_path / "log").read_text() == f"None 1 {tmp_path} [0, 1, 2] True\n"


@pytest.fixture
def patient(tmp_path: Path) -> Child:
    child = start(service(wait_for_a_signal), tmp_path / "log")
    eventually(lambda: "ready" in (tmp_path / "log").read_text())
    return child


def test_it_goes_by_its_own_name_and_ends_by_a_signal(patient: Child) -> None:
    assert psutil.Process(patient.pid).cmdline()[0].strip() == "ccat patient-worker"
    assert patient.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        patient.wait(0.05)
    patient.send_signal(signal.SIGTERM)
    assert patient.wait(10) == -signal.SIGTERM
    patient.kill()
    assert patient.returncode == -signal.SIGTERM


def test_it_dies_with_whoever_started_it(tmp_path: Path) -> None:
    parent = os.fork()
    if parent == 0:
        child = start(service(wait_for_a_signal), tmp_path / "log")
        (tmp_path / "draft").write_text(str(child.pid))
        (tmp_path / "draft").rename(tmp_path / "pid")
        signal.pause()
    eventually(lambda: (tmp_path / "pid").exists() and "ready" in (tmp_path / "log").read_text())
    orphan = psutil.Process(int((tmp_path / "pid").read_text()))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    eventually(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)
