import signal
from pathlib import Path

from ccat_ops_db.states import FailureClass
from ccat_workflow_manager.hpc.base import JobState
from ccat_workflow_manager.hpc.failures import failure_class
from ccat_workflow_manager.hpc.fake.backend import FakeBackend
from ccat_workflow_manager.hpc.fake.software import Scripted
from tests.workflow.hpc.bench import ENVIRONMENT, Bench


def test_without_software_a_job_writes_one_file_and_ends_at_once(tmp_path: Path) -> None:
    bench = Bench(FakeBackend(), tmp_path)
    (tmp_path / "output").mkdir()
    job = bench.spec("no matter what", environment={**ENVIRONMENT, "WORKFLOW_OUTPUT_DIR": str(tmp_path / "output")})
    seen = bench.look(bench.backend.submit(job))
    assert (seen.state, seen.exit_code) == (JobState.FINISHED, 0)
    assert [path.read_text() for path in (tmp_path / "output").iterdir()] == ["x\n"]


def test_a_scripted_job_ends_when_and_how_it_is_told(tmp_path: Path) -> None:
    software = Scripted(used=10**8)
    bench = Bench(FakeBackend(lambda _: software), tmp_path)
    job = bench.submit("no matter what")
    assert bench.look(job).state is JobState.RUNNING
    software.code = 65
    seen = bench.look(job)
    assert (failure_class(seen), seen.peak_memory_bytes) == (FailureClass.DATA, 10**8)


def test_a_scripted_job_that_uses_too_much_is_killed(tmp_path: Path) -> None:
    software = Scripted(used=2 * 10**9, is_deaf=True)
    bench = Bench(FakeBackend(lambda _: software), tmp_path)
    seen = bench.look(bench.submit("no matter what", memory_gb=1))
    assert (seen.exit_code, seen.out_of_memory) == (128 + signal.SIGKILL, True)


def test_what_runs_when_the_backend_is_closed_is_lost(tmp_path: Path) -> None:
    backend = FakeBackend(lambda _: Scripted())
    bench = Bench(backend, tmp_path)
    job = bench.submit("no matter what")
    backend.close()
    assert bench.look(job).state is JobState.LOST
