"""What is executed for a step, and what it finds in its environment: the container contract as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from ccat_workflow_manager.execution.layout import AttemptLayout
from ccat_workflow_manager.hpc.base import JobSpec

_SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_THREAD_LIMITS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One attempt of a run, as far as its command and environment go.

    `command` and `environment_prefix` are the software version's; `variables` are the config's own.
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
    variables: Mapping[str, str] = field(default_factory=dict)
    cpu: int = 1

    @property
    def output(self) -> Path:
        """Where the software writes its products."""
        return self.layout.products(self.step_key, is_final=self.is_final)


def process_environment(execution: Execution) -> dict[str, str]:
    """Return the whole environment of software without an image: the contract's variables hold real paths.

    A config may change what the system sets, such as a thread limit, but nothing of the contract.
    """
    return {**_surroundings(execution), **execution.variables, **_contract(execution)}


def process_job(
    execution: Execution, *, name: str, memory_gb: float, time_limit: timedelta, priority: int = 0
) -> JobSpec:
    """Return the job that runs software without an image."""
    layout = execution.layout
    return JobSpec(
        name=name,
        command=execution.command,
        environment=process_environment(execution),
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
    prefix = execution.environment_prefix
    return {
        "PATH": f"{prefix / 'bin'}:{_SYSTEM_PATH}" if prefix else _SYSTEM_PATH,
        "HOME": str(execution.layout.home),
        "TMPDIR": str(execution.layout.temporary),
        "LANG": "C.UTF-8",
        **dict.fromkeys(_THREAD_LIMITS, str(execution.cpu)),
    }


def _contract(execution: Execution) -> dict[str, str]:
    layout = execution.layout
    return {
        "WORKFLOW_INPUT_DIR": str(layout.input),
        "WORKFLOW_WORKSPACE_DIR": str(layout.workspace),
        "WORKFLOW_OUTPUT_DIR": str(execution.output),
        "WORKFLOW_CONFIG_DIR": str(layout.config),
        "WORKFLOW_LOG_DIR": str(layout.logs),
        "WORKFLOW_MANIFEST": str(layout.manifest),
        "WORKFLOW_PIPELINE_ID": str(execution.pipeline_id),
        "WORKFLOW_RUN_ID": str(execution.run_id),
        "WORKFLOW_ATTEMPT": str(execution.attempt),
        "WORKFLOW_STEP_NAME": execution.step_name,
        "WORKFLOW_SUB_GROUP_KEY": execution.sub_group_key,
    }
