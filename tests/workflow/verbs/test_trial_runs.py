"""A trial the whole way: from the command to products that lie apart."""

import json
from pathlib import Path
from typing import Any

import pytest

from ccat_ops_db import models
from ccat_ops_db.states import ProductState, RunStatus
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import LOCATION_NAME, Works

GRID = {"key": "grid", "group_by": ["source"], "config": "deep"}
SHOW = 'grep -A4 \'"parameters"\' "$WORKFLOW_MANIFEST" >"$WORKFLOW_OUTPUT_DIR/out.txt"'


@pytest.fixture
def mapped(works: Works) -> Works:
    """A map that is up to date, of a step that writes down its parameters."""
    works.apply({"configs": [{"name": "deep", "parameters": {"baseline": {"order": 3}, "beam": 1.5}}]})
    works.define(GRID, scripts={"grid": SHOW})
    works.observe("one ")
    works.settle()
    return works


def trial(works: Works) -> models.ExecutedReductionStep:
    return works.run(is_trial=True)


def test_from_the_command_to_products_that_nothing_is_made_from(mapped: Works, say: Say) -> None:
    [path] = [one.path for one in mapped.gap().values()]
    said = say(
        "trigger", "toy", "--trial", "--sub-group", path, "--set", "baseline.order=5", "--because", "it is noisy"
    )
    run = trial(mapped)
    assert said.exit_code == 0, said.output
    kept = f"products are kept until {run.expires_at:%F %H:%M} UTC"
    assert said.stdout == f"Trial of grid 1.0: run {run.id} of {path}; {kept}. `ccat run why` says how far one is.\n"
    mapped.settle()
    run = trial(mapped)
    assert run.status is RunStatus.COMPLETED
    [product] = run.products
    assert product.state is ProductState.TRIAL
    assert '"order": 5' in mapped.text(product)
    assert [one.state for one in mapped.runs(is_trial=False)[0].products] == [ProductState.CURRENT]
    [copy] = mapped.all(models.PhysicalCopy, data_product_id=product.id)
    assert Path(copy.path).relative_to("pipelines").parts[0] == "trials"
    assert (mapped.root / LOCATION_NAME / copy.path).exists()
    assert mapped.create() == 0
    assert [one.verdict for one in mapped.gap().values()] == ["up_to_date"]


def test_what_it_was_made_with_is_told_everywhere(mapped: Works, say: Say) -> None:
    [path] = [one.path for one in mapped.gap().values()]
    [ordinary] = mapped.runs()
    say("trigger", "toy", "--step", "grid", "--trial", "--sub-group", path, "--set", "baseline.order=5", "--keep", "2w")
    mapped.settle()
    run = trial(mapped)

    def told(*words: object) -> Any:
        return json.loads(say(*words, "--json").stdout)

    differs = told("diff", ordinary.id, run.id)
    assert differs["summary"].startswith("another recipe (parameters), the same inputs; ")
    [change] = differs["parts"]["parameters"]["changes"]
    assert (change["path"], change["old"], change["new"]) == (["baseline", "order"], 3, 5)
    assert "deep, changed for a trial, revision 1" in say("diff", ordinary.id, run.id).stdout
    [product] = told("products", "--state", "trial")
    assert product["run"] == run.id
    node = told("lineage", product["id"])["runs"][str(run.id)]
    before = told("lineage", ordinary.products[0].id)["runs"][str(ordinary.id)]
    assert (node["config"], before["config"]) == ("deep, changed for a trial", "deep")
    assert node["config_digest"] != before["config_digest"]
    assert node["package_ids"] == before["package_ids"]
    shown = told("run", "show", run.id)
    assert (shown["is_trial"], shown["expires_at"]) == (True, run.expires_at.isoformat() if run.expires_at else None)
    why = say("run", "why", run.id).stdout
    assert f"what it is: a trial: nothing is made from its products, kept until {run.expires_at:%F %H:%M} UTC" in why


def test_a_trial_that_fails_is_tried_again_with_the_same_inputs(mapped: Works, say: Say) -> None:
    [path] = [one.path for one in mapped.gap().values()]
    say("trigger", "toy", "--trial", "--sub-group", path)
    mapped.advance()
    run = trial(mapped)
    assert run.status is RunStatus.STAGING_DATA
    mapped.fail(run.id)
    assert mapped.retry_now() == [run.id]
    mapped.settle()
    run = trial(mapped)
    assert (run.status, len(run.attempts)) == (RunStatus.COMPLETED, 2)
    assert len(mapped.all(models.RunInput, run_id=run.id)) == 1


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--trial", "--force"], "--force and --plan do not go with --trial"),
        (["--version", "1.0"], "--version, --set and --keep go with --trial only"),
        (["--set", "a=1"], "--version, --set and --keep go with --trial only"),
        (["--keep", "1d"], "--version, --set and --keep go with --trial only"),
    ],
)
def test_words_that_contradict_each_other_are_refused(say: Say, words: list[str], problem: str) -> None:
    ended = say("trigger", "toy", *words)
    assert ended.exit_code == 2
    assert problem in " ".join(ended.output.replace("│", "").split())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--trial"], "A trial is of chosen sub-groups: name each with --sub-group. No run was created."),
        (
            ["--trial", "--sub-group", "x", "--keep", "soon"],
            (
                "--keep soon: hours, days or weeks are written `36h`, `14d` or `2w`, from one hour to 366 days. "
                "No run was created."
            ),
        ),
    ],
)
def test_what_is_not_said_is_asked_for(say: Say, words: list[str], problem: str) -> None:
    ended = say("trigger", "toy", *words)
    assert (ended.exit_code, ended.stderr) == (1, f"error: {problem}\n")
