import re
from typing import Final

from ccat_ops_db.errors import CcatError

FAMILIES: Final = ("workflow", "transfer")
"""First word of every queue and task name; a worker serves one family only."""

_PART = re.compile(r"[A-Za-z0-9_-]+")
_SITE = re.compile(r"[A-Za-z0-9-]+")


class QueueNameError(CcatError):
    """A part of a queue's name would make it ambiguous."""

    code = "queue_name"

    def __init__(self, what: str, value: str) -> None:
        super().__init__(
            f"{what} {value!r} cannot be part of a queue's name: use letters, digits and hyphens"
            + (" (no underscore, which separates a site from its location)" if what == "site" else " and underscores")
        )


class RoutingError(CcatError):
    """A task was to go where its workers do not listen."""

    code = "routing"

    def __init__(self, task: str, queue: str) -> None:
        super().__init__(
            f"task {task!r} must not be sent to queue {queue!r}: both names must begin with the same one of "
            f"{', '.join(f'{family}.' for family in FAMILIES)}"
        )


def workflow_queue(location: str, operation: str) -> str:
    """Queue of the workers that do `operation` (staging, submission, results, observation) at a processing location."""
    return f"workflow.{_checked('location', location)}.{_checked('operation', operation)}"


def transfer_queue(site: str, location: str, operation: str) -> str:
    """Queue of the workers that do `operation` at a location of a site, given by its short name."""
    if not _SITE.fullmatch(site):
        raise QueueNameError("site", site)
    return f"transfer.{site}_{_checked('location', location)}_{_checked('operation', operation)}"


def require_same_family(task: str, queue: str) -> None:
    """Raise RoutingError unless task and queue both belong to one family."""
    family = task.partition(".")[0]
    if family not in FAMILIES or not queue.startswith(f"{family}."):
        raise RoutingError(task, queue)


def _checked(what: str, value: str) -> str:
    if not _PART.fullmatch(value):
        raise QueueNameError(what, value)
    return value
