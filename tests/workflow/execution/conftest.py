from pathlib import Path

import pytest

from ccat_workflow_manager.execution import manifest as told
from ccat_workflow_manager.execution.command import Execution
from ccat_workflow_manager.execution.layout import RunLayout, run_layout


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    return run_layout(tmp_path / "pipelines", pipeline_id=3, sub_group="all-0badcafe", step_key="grid", run_id=42)


@pytest.fixture
def execution(run: RunLayout) -> Execution:
    return Execution(
        layout=run.attempt(1),
        pipeline_id=3,
        run_id=42,
        attempt=1,
        step_key="grid",
        step_name="Grid",
        sub_group_key="source=7",
        is_final=True,
        command=("chai-grid", "--quick"),
        environment_prefix=Path("/opt/chai"),
        variables={"MODE": "hot cold", "OMP_NUM_THREADS": "1", "WORKFLOW_RUN_ID": "forged"},
        cpu=2,
    )


@pytest.fixture
def manifest(execution: Execution) -> told.Manifest:
    return told.Manifest(
        run=told.ManifestRun(id=42, attempt=1),
        pipeline=told.ManifestPipeline(id=3, name="chai", revision=1),
        step=told.ManifestStep(name="Grid", is_final=True),
        sub_group=told.ManifestSubGroup(key="source=7", dimensions={"source": "Orion KL"}),
        software=told.ManifestSoftware(name="chai-grid", version="1.2.0"),
        config=told.ManifestConfig(name="grid", digest="sha256:" + "0" * 64, parameters={"beam_arcsec": 13.5}),
        inputs=told.Inputs(),
        output=told.Output(dir=str(execution.output)),
    )
