"""`python -m bench.null_worker`: a worker whose jobs are over as soon as they begin, with one small file."""

from ccat.processes import celery_worker
from ccat_workflow_manager.hpc.fake.backend import FakeBackend

if __name__ == "__main__":
    celery_worker(concurrency=4, backend=lambda *_: FakeBackend())
