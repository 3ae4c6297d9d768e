from pathlib import Path

import pytest

from ccat_workflow_manager.execution.layout import UnsafePathPart, run_layout

RUN = run_layout(Path("/data/pipelines"), pipeline_id=3, sub_group="night-7-0badcafe", step_key="grid", run_id=42)


def test_a_run_and_its_attempts_lie_where_the_published_layout_says() -> None:
    attempt = RUN.attempt(2)
    assert RUN.products == Path("/data/pipelines/3/night-7-0badcafe/grid/42/products")
    assert attempt.directory == Path("/data/pipelines/3/night-7-0badcafe/grid/42/attempt-2")
    parts = [attempt.input, attempt.workspace, attempt.output, attempt.config, attempt.logs]
    assert [part.relative_to(attempt.directory).name for part in parts] == [
        "input",
        "workspace",
        "output",
        "config",
        "logs",
    ]


def test_only_a_final_step_writes_to_output() -> None:
    assert RUN.attempt(1).products("grid", is_final=True) == RUN.attempt(1).output
    assert RUN.attempt(1).products("grid", is_final=False) == RUN.attempt(1).workspace / "grid"


@pytest.mark.parametrize("part", ["", ".", "..", "a/b", ".hidden", "a\nb"])
def test_a_name_that_is_no_plain_directory_name_is_refused(part: str) -> None:
    with pytest.raises(UnsafePathPart, match="cannot be a directory name"):
        run_layout(Path("/data"), pipeline_id=1, sub_group=part, step_key="grid", run_id=1)
