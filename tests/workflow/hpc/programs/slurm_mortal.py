"""Does one thing with a Slurm backend, and dies of it where it is told to.

    python slurm_mortal.py BASE submit|submit_bundle|observe|cancel|conclude_unstarted JOB...

A job is a JSON file; what is observed or cancelled is named by its id, and what is concluded by its name.
"""

import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from pydantic import TypeAdapter
from redis import Redis

from ccat.crashing import arm_from_environment
from ccat_workflow_manager.hpc.base import JobSpec
from ccat_workflow_manager.hpc.cluster.files import ClusterFiles
from ccat_workflow_manager.hpc.slurm.backend import SlurmBackend
from ccat_workflow_manager.hpc.slurm.pacing import Pace

SPEC = TypeAdapter(JobSpec)


def main(base: str, what: str, *jobs: str) -> None:
    arm_from_environment()
    if what == "conclude_unstarted":
        files = ClusterFiles(Path(base), grace=timedelta())
        record = files.record(jobs[0])
        assert record is not None
        files.conclude_unstarted(record, exit_code=78, because="its image is not there")
        return
    redis = os.environ.get("CCAT_TEST_REDIS")
    pace = Pace(Redis.from_url(redis), key="slurm:submissions:1", per_minute=1000) if redis else None
    backend = SlurmBackend(Path(base), grace=timedelta(seconds=0.2), bundle_size=10, pace=pace)
    match what:
        case "submit":
            backend.submit(_spec(jobs[0]))
        case "submit_bundle":
            backend.submit_bundle(Path(jobs[0]).stem + "-bundle", _specs(jobs))
        case "observe":
            backend.observe(jobs)
        case "cancel":
            backend.cancel(jobs)


def _specs(jobs: Sequence[str]) -> list[JobSpec]:
    return [_spec(job) for job in jobs]


def _spec(job: str) -> JobSpec:
    return SPEC.validate_json(Path(job).read_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
