from dataclasses import replace
from datetime import timedelta

from ccat_workflow_manager.execution.command import Execution, job, software_environment


def test_the_environment_is_the_contract_with_real_paths(execution: Execution) -> None:
    attempt = execution.layout.directory
    assert software_environment(execution) == {
        "PATH": "/opt/chai/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": f"{attempt}/workspace/.home",
        "TMPDIR": f"{attempt}/workspace/.tmp",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "NUMEXPR_NUM_THREADS": "2",
        "MODE": "hot cold",
        "WORKFLOW_INPUT_DIR": f"{attempt}/input",
        "WORKFLOW_WORKSPACE_DIR": f"{attempt}/workspace",
        "WORKFLOW_OUTPUT_DIR": f"{attempt}/output",
        "WORKFLOW_CONFIG_DIR": f"{attempt}/config",
        "WORKFLOW_LOG_DIR": f"{attempt}/logs",
        "WORKFLOW_MANIFEST": f"{attempt}/config/manifest.json",
        "WORKFLOW_PIPELINE_ID": "3",
        "WORKFLOW_RUN_ID": "42",
        "WORKFLOW_ATTEMPT": "1",
        "WORKFLOW_STEP_NAME": "Grid",
        "WORKFLOW_SUB_GROUP_KEY": "source=7",
    }


def test_an_intermediate_step_writes_to_its_workspace(execution: Execution) -> None:
    environment = software_environment(replace(execution, is_final=False, environment_prefix=None))
    assert environment["WORKFLOW_OUTPUT_DIR"] == f"{execution.layout.workspace}/grid"
    assert environment["PATH"] == "/usr/local/bin:/usr/bin:/bin"


def test_a_job_runs_the_software_as_it_is_in_its_workspace(execution: Execution) -> None:
    made = job(execution, name="ccat-0badcafe-42-1", memory_gb=4, time_limit=timedelta(hours=1), priority=7)
    assert made.command == ("chai-grid", "--quick")
    assert (made.directory, made.working_directory) == (execution.layout.directory, execution.layout.workspace)
    assert (made.stdout, made.stderr) == (execution.layout.stdout, execution.layout.stderr)
    assert (made.cpu, made.memory_gb, made.time_limit, made.priority) == (2, 4, timedelta(hours=1), 7)
