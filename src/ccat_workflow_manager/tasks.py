"""Queue tasks of the celery-worker: each takes ids and calls one verb."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from ccat_service.queues import workflow_queue
from ccat_service.tasks import CeleryTask, TaskApp, make_celery_task
from ccat_workflow_manager.verbs.collecting import collect_runs
from ccat_workflow_manager.verbs.executing import hand_in_attempts
from ccat_workflow_manager.verbs.observing import observe_locations
from ccat_workflow_manager.verbs.workplace import Workplace

STAGING: Final = "staging"
SUBMISSION: Final = "submission"
RESULTS: Final = "results"
OBSERVATION: Final = "observation"

_VERBS: Final = {
    "hand_in": hand_in_attempts,
    "observe": observe_locations,
    "collect": collect_runs,
}


@dataclass(frozen=True)
class Tasks:
    """The tasks as their senders see them."""

    hand_in: CeleryTask[int]
    """Runs whose data are staged: make the directories of their attempts, and give their jobs to the backend. Queue
    `staging`, or `submission` for those whose job may exist, so that it is found whatever else there is to do."""
    observe: CeleryTask[int]
    """Locations: ask the backend about all jobs there. Queue `observation`, which waits for no other."""
    collect: CeleryTask[int]
    """Runs whose jobs ended well: register what they made. Queue `results`."""


_BATCH: Final = 50
_SPREAD: Final = 4


def senders(app: TaskApp) -> Tasks:
    """Tasks for a process that only sends them: a few runs go one by one, many together."""
    return Tasks(**{name: CeleryTask(app, f"workflow.{name}", batch=_BATCH, spread=_SPREAD) for name in _VERBS})


def register(app: TaskApp, workplace: Workplace) -> None:
    """Let the app's worker carry the tasks out."""
    for name, verb in _VERBS.items():
        make_celery_task(app, f"workflow.{name}")(partial(verb, workplace))


def queues(locations: Iterable[str]) -> list[str]:
    """Queues of the workers that serve these locations, each named `{site}_{location}`."""
    return [workflow_queue(location, work) for location in locations for work in (STAGING, SUBMISSION, RESULTS)]


def prompt_queues(locations: Iterable[str]) -> list[str]:
    """Queues of the same workers whose tasks wait for none of theirs: a large output keeps no job from being ended."""
    return [workflow_queue(location, OBSERVATION) for location in locations]
