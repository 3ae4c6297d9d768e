"""The queue tasks of data transfer; they take ids of transfers, and do what the database says is to be done."""

from typing import Final

from ccat_data_transfer.verbs.archiving import archive
from ccat_data_transfer.verbs.attempts import Worker
from ccat_data_transfer.verbs.packing import pack
from ccat_data_transfer.verbs.staging import stage
from ccat_service.tasks import TaskApp, make_celery_task

PACK: Final = "transfer.pack"
ARCHIVE: Final = "transfer.archive"
STAGE: Final = "transfer.stage"


def register_tasks(app: TaskApp, worker: Worker) -> None:
    """Have this process able to do the tasks; whoever only sends them needs no more than their names."""

    @make_celery_task(app, PACK)
    def pack_packages(transfer_ids: list[int]) -> None:
        for transfer_id in transfer_ids:
            pack(worker, transfer_id)

    @make_celery_task(app, ARCHIVE)
    def archive_packages(transfer_ids: list[int]) -> None:
        for transfer_id in transfer_ids:
            archive(worker, transfer_id)

    @make_celery_task(app, STAGE)
    def stage_packages(job_ids: list[int]) -> None:
        for job_id in job_ids:
            stage(worker, job_id)
