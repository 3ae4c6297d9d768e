"""`python -m bench.null_worker celery-worker`: the worker of a system whose jobs are over as soon as they are begun."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ccat import processes
from ccat_workflow_manager.hpc.base import JobObservation, JobSpec, JobState


class NullBackend:
    def __init__(self) -> None:
        self.names: dict[str, datetime] = {}

    def submit(self, spec: JobSpec) -> str:
        if spec.name not in self.names:
            (Path(spec.environment["WORKFLOW_OUTPUT_DIR"]) / "file").write_text("x")
            self.names[spec.name] = datetime.now(UTC)
        return spec.name

    def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
        return {
            name: JobObservation(
                state=JobState.FINISHED if name in self.names else JobState.UNKNOWN,
                exit_code=0,
                started_at=self.names.get(name),
                ended_at=self.names.get(name),
                wall_time=timedelta(),
            )
            for name in job_ids
        }

    def find(self, names: Collection[str]) -> Mapping[str, str]:
        return {name: name for name in names if name in self.names}

    def cancel(self, job_ids: Collection[str]) -> None:
        pass

    def logs(self, job_id: str, *, lines: int = 50) -> str:
        return ""


if __name__ == "__main__":
    processes._backend = lambda *_: NullBackend()
    processes.celery_worker(concurrency=4)
