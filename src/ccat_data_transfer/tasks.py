"""The queue tasks of data transfer; they take ids of transfers or copies, and do what the database says."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.archiving import archive
from ccat_data_transfer.verbs.attempts import Worker
from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_data_transfer.verbs.discarding import discard
from ccat_data_transfer.verbs.packing import pack
from ccat_data_transfer.verbs.products.archiving import archive_products
from ccat_data_transfer.verbs.products.moving import move_products
from ccat_data_transfer.verbs.restoring import restore
from ccat_data_transfer.verbs.scrubbing import scrub_what_is_due
from ccat_data_transfer.verbs.staging import stage
from ccat_data_transfer.verbs.transferring import transfer
from ccat_data_transfer.verbs.unpacking import unpack
from ccat_service.tasks import TaskApp, make_celery_task

VERBS: Final[Mapping[Operation, Callable[[Worker, int], None]]] = {
    Operation.PACKING: pack,
    Operation.RESTORING: restore,
    Operation.TRANSFERRING: transfer,
    Operation.UNPACKING: unpack,
    Operation.ARCHIVING: archive,
    Operation.STAGING: stage,
    Operation.ARCHIVING_PRODUCTS: archive_products,
    Operation.TRANSFERRING_PRODUCTS: move_products,
}
DISCARDING: Final = "transfer.discarding"
"""Task that removes what is unfinished; it goes to the queue of deletions."""


def task_name(operation: Operation) -> str:
    """Name of the task that does an operation."""
    return f"transfer.{operation}"


def register_tasks(app: TaskApp, worker: Worker) -> None:
    """Have this process able to do the tasks; whoever only sends them needs no more than their names."""
    for operation, verb in VERBS.items():
        _register(app, task_name(operation), partial(verb, worker))

    @make_celery_task(app, task_name(Operation.DELETION))
    def delete_what_may_go(copy_ids: list[int]) -> None:
        delete_copies(worker, copy_ids)

    @make_celery_task(app, DISCARDING)
    def discard_what_was_given_up(copy_ids: list[int]) -> None:
        discard(worker, copy_ids)

    @make_celery_task(app, task_name(Operation.SCRUBBING))
    def read_again(copy_ids: list[int]) -> None:
        scrub_what_is_due(worker, copy_ids)


def _register(app: TaskApp, name: str, do: Callable[[int], None]) -> None:
    @make_celery_task(app, name)
    def do_each(transfer_ids: list[int]) -> None:
        for transfer_id in transfer_ids:
            do(transfer_id)
