"""What is executed for a step, and what it finds in its environment: the container contract as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from ccat_workflow_manager.execution.container import (
    INNER_PREFIX,
    SYSTEM_PATH,
    Container,
    container_command,
    container_environment,
)
from ccat_workflow_manager.execution.layout import INSIDE, AttemptLayout
from ccat_workflow_manager.hpc.base import JobSpec

_THREAD_LIMITS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One attempt of a run, as far as its command and environment go.

    `command`, `environment_prefix` and what `container` it runs in are the software version's; `variables` are the
    config's own.
    """

    layout: AttemptLayout
    pipeline_id: int
    run_id: int
    attempt: int
    step_key: str
    step_name: str
    sub_group_key: str
    is_final: bool
    command: tuple[str, ...]
    environment_prefix: Path | None = None
    container: Container | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    cpu: int = 1

    @property
    def output(self) -> Path:
        """Where the products appear that the software writes."""
        return self.layout.products(self.step_key, is_final=self.is_final)

    @property
    def seen(self) -> AttemptLayout:
        """The directories of the attempt as the software sees them."""
        return INSIDE if self.container else self.layout

    @property
    def seen_output(self) -> Path:
        """Where the software writes its products, as it sees it."""
        return self.seen.products(self.step_key, is_final=self.is_final)


def software_environment(execution: Execution) -> dict[str, str]:
    """Return what the software finds in its environment, and nothing else but, in an image, the image's own.

    A config may change what the system sets, such as a thread limit, but nothing of the contract, nor the home of
    software in an image.
    """
    return {**_surroundings(execution), **execution.variables, **_contract(execution)}


def job(execution: Execution, *, name: str, memory_gb: float, time_limit: timedelta, priority: int = 0) -> JobSpec:
    """Return the job that runs the software, in its image where it has one."""
    layout, container = execution.layout, execution.container
    command, environment, inner_prefix = execution.command, software_environment(execution), ""
    if container:
        command = container_command(container, layout, command, is_final=execution.is_final)
        environment, inner_prefix = container_environment(layout, environment), INNER_PREFIX
    return JobSpec(
        name=name,
        command=command,
        environment=environment,
        inner_prefix=inner_prefix,
        directory=layout.directory,
        working_directory=layout.workspace,
        stdout=layout.stdout,
        stderr=layout.stderr,
        cpu=execution.cpu,
        memory_gb=memory_gb,
        time_limit=time_limit,
        priority=priority,
    )


def _surroundings(execution: Execution) -> dict[str, str]:
    return {
        **_of_this_system(execution),
        "TMPDIR": str(execution.seen.temporary),
        "LANG": "C.UTF-8",
        **dict.fromkeys(_THREAD_LIMITS, str(execution.cpu)),
    }


def _of_this_system(execution: Execution) -> dict[str, str]:
    """What an image brings for itself."""
    if execution.container:
        return {}
    prefix = execution.environment_prefix
    path = f"{prefix / 'bin'}:{SYSTEM_PATH}" if prefix else SYSTEM_PATH
    return {"PATH": path, "HOME": str(execution.layout.home)}


def _contract(execution: Execution) -> dict[str, str]:
    seen = execution.seen
    return {
        "WORKFLOW_INPUT_DIR": str(seen.input),
        "WORKFLOW_WORKSPACE_DIR": str(seen.workspace),
        "WORKFLOW_OUTPUT_DIR": str(execution.seen_output),
        "WORKFLOW_CONFIG_DIR": str(seen.config),
        "WORKFLOW_LOG_DIR": str(seen.logs),
        "WORKFLOW_MANIFEST": str(seen.manifest),
        "WORKFLOW_PIPELINE_ID": str(execution.pipeline_id),
        "WORKFLOW_RUN_ID": str(execution.run_id),
        "WORKFLOW_ATTEMPT": str(execution.attempt),
        "WORKFLOW_STEP_NAME": execution.step_name,
        "WORKFLOW_SUB_GROUP_KEY": execution.sub_group_key,
    }
