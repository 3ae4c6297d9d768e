"""Why a map is not that of last week: `ccat diff` on runs that really ran."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from ccat.cli import app
from ccat_ops_db import models
from ccat_ops_db.queries.snapshots import snapshot
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import DataProductType, InputRole, RunStatus
from tests.workflow.verbs.conftest import OpenWorks
from tests.workflow.verbs.works import MERGE, Works

STEPS = (
    {"key": "calibrate", "group_by": ["executed_obs_unit"]},
    {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"], "products": "final", "config": "deep"},
)
GRID = """
    cd "$WORKFLOW_OUTPUT_DIR"
    cat $(find -L "$WORKFLOW_INPUT_DIR" -type f | sort) >science/map.txt
    echo same >science/same.txt
    date +%N >logs/log.txt
    echo "{\\"rms_mk\\": $RMS}" >qa/metrics.json
"""
BETTER = (f'{MERGE}; echo better >>"$WORKFLOW_OUTPUT_DIR/out.txt"', "2.0", "2")
SECRET = "hush-hush"


@dataclass(frozen=True)
class Desk:
    """A terminal, and the runs of the story below."""

    works: Works
    first: int
    other_config: int
    config_as_before: int
    one_scan_more: int
    new_calibration: int
    pending: int

    def diff(self, *words: object) -> Result:
        environment = {"CCAT_OPS_DB_URL": self.works.engine.url.render_as_string(hide_password=False)}
        return CliRunner().invoke(app, ["diff", *map(str, words)], env=environment)

    def told(self, *words: object) -> str:
        answer = self.diff(*words)
        assert answer.exit_code == 0, answer.output
        assert SECRET not in answer.stdout
        return answer.stdout

    def json(self, *words: object) -> Any:
        return json.loads(self.told(*words, "--json"))

    def statements(self, run_id: int) -> int:
        """How many a snapshot takes."""
        seen: list[object] = []

        def note(*what: object) -> None:
            seen.append(what)

        sa.event.listen(self.works.engine, "before_cursor_execute", note)
        self.works.session(lambda session: snapshot(session, run_id))
        sa.event.remove(self.works.engine, "before_cursor_execute", note)
        return len(seen)


@pytest.fixture(scope="module")
def desk(open_works: OpenWorks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Maps of two scans with a config, another one, the first again; with a third scan; with a better calibration."""
    with open_works(tmp_path_factory.mktemp("diff")) as works:

        def grid(order: int, *, rms: str, token: str) -> int:
            parameters = {"baseline": {"order": order, "windows": [[0, 5], [9, 12]]}, "beam": 1.5}
            environment = {"RMS": rms, "ARCHIVE_TOKEN": f"{SECRET}-{token}"}
            works.apply({"configs": [{"name": "deep", "parameters": parameters, "environment": environment}]})
            works.define(*STEPS, scripts={"grid": GRID})
            works.settle()
            return works.runs()[-1].id

        for text in ("one ", "two "):
            works.observe(text)
        first, other = grid(3, rms="1.5", token="1"), grid(5, rms="1.2", token="2")
        as_before = grid(3, rms="1.5", token="1")
        works.observe("three ")
        more = grid(3, rms="1.5", token="1")
        works.apply({"software": [{"name": "toy-calibrate", "versions": [works.version(), works.version(*BETTER)]}]})
        works.settle()
        better = works.runs()[-1].id
        works.observe("four ")
        works.create()
        yield Desk(works, first, other, as_before, more, better, works.runs()[-1].id)


def lines(text: str) -> list[str]:
    """Without what only lines columns up."""
    return [re.sub(r"  +", "  ", line).strip() for line in text.splitlines()]


def test_runs_that_are_alike_are_said_to_be_so_in_a_sentence(desk: Desk) -> None:
    told = lines(desk.told(desk.first, desk.config_as_before))
    assert "the same recipe and inputs; products are byte-identical" in told
    assert [line for line in told if line.startswith(("~", "+", "-"))] == [
        next(line for line in told if line.startswith("~ logs/log.txt"))  # it holds the time
    ]
    assert told[-1] == (
        "the same: place, software, parameters (6), environment variables (2), definition, inputs (2), execution, "
        "products (3), metrics (1)"
    )


def test_another_config_is_told_with_old_and_new_values_and_what_became_of_the_metrics(desk: Desk) -> None:
    told = lines(desk.told(desk.first, desk.other_config))
    assert {
        "another recipe (parameters, environment variables), the same inputs; 1 of 3 products differs",
        "parameters: 1 changed, 5 the same",
        "~ baseline.order  3 → 5",
        "~ ARCHIVE_TOKEN  (secret) → (secret)",
        "~ RMS  1.5 → 1.2",
        "~ rms_mk  1.5 → 1.2 (-20.00%)",
    } <= set(told)


def test_an_input_more_is_named(desk: Desk) -> None:
    told = lines(desk.told(desk.config_as_before, desk.one_scan_more))
    assert "the same recipe, other inputs; 1 of 3 products differs" in told
    assert f"inputs: 1 only in run {desk.one_scan_more}, 2 the same" in told
    [added] = [line for line in told if line.startswith("+")]
    assert re.fullmatch(r"\+ upstream calibrate/2026-04-05-01-03-00.*/out\.txt  sha256:[0-9a-f]{12}", added)


def test_programs_get_paths_and_whole_values(desk: Desk) -> None:
    parts = desk.json(desk.first, desk.other_config)["parts"]
    [change] = parts["parameters"]["changes"]
    assert change == {"kind": "changed", "path": ["baseline", "order"], "old": 3, "new": 5}
    assert [one["old"] for one in parts["environment_variables"]["changes"]] == ["(secret)", "1.5"]
    maps = {one["path"][0]: one for one in parts["products"]["changes"]}
    made = {one.relative_path: one.checksum for one in desk.works.run(id=desk.first).products}
    assert maps["qa/metrics.json"]["old"] == made["qa/metrics.json"]


def test_steps_that_differ_in_what_they_do_are_told_apart(desk: Desk) -> None:
    [calibrate, *_] = desk.works.runs(status=RunStatus.COMPLETED)
    told = lines(desk.told(calibrate.id, desk.first))
    assert {
        "~ step  calibrate → grid",
        "~ group_by  executed_obs_unit → source",
        "~ upstream  none → calibrate",
        "~ takes_raw  true → false",
        "~ environment WORKFLOW_STEP_NAME  calibrate → grid",
    } <= set(told)


def test_a_run_that_has_not_started_is_compared_as_far_as_it_is_known(desk: Desk) -> None:
    told = lines(desk.told(desk.first, desk.pending))
    assert any(line.endswith(f"products are not compared: run {desk.pending} has none (pending)") for line in told)
    assert told[-1] == "not compared: inputs, execution, products, logs plots and statistics, metrics"


def test_a_run_that_does_not_exist_is_told_with_what_to_do(desk: Desk) -> None:
    answer = desk.diff(desk.first, 4711)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr == "error: There is no run 4711; `ccat runs` lists them.\n"


def test_why_inputs_changed_is_a_question_about_the_runs_that_made_them(desk: Desk) -> None:
    told = desk.told(desk.one_scan_more, desk.new_calibration)
    assert "inputs: 3 changed" in told
    asked = re.search("`ccat diff ([0-9]+) ([0-9]+)` compares two runs that made one of them", told)
    assert asked
    assert "~ version  1.0 → 2.0" in lines(desk.told(*asked.groups()))


@pytest.fixture
def with_many_inputs(desk: Desk) -> Iterator[int]:
    """A run with 10,000 inputs more than it had."""
    [calibrate, *_] = desk.works.runs(status=RunStatus.COMPLETED)
    [product] = calibrate.products
    made = {
        "run_id": calibrate.id,
        "run_attempt_id": product.run_attempt_id,
        "type": DataProductType.INTERMEDIATE,
        "size_bytes": 1,
        "checksum": product.checksum,
    }
    taken = {"run_id": desk.one_scan_more, "role": InputRole.UPSTREAM}

    def take(session: Session) -> list[int]:
        rows = [{**made, "relative_path": f"many/{number:05}.txt"} for number in range(10_000)]
        ids = session.scalars(sa.insert(models.DataProduct).returning(models.DataProduct.id), rows).all()
        session.execute(sa.insert(models.RunInput), [{**taken, "data_product_id": one} for one in ids])
        return list(ids)

    ids = desk.works.session(take)
    yield desk.one_scan_more
    desk.works.execute(sa.delete(models.RunInput).where(is_among(models.RunInput.data_product_id, ids)))
    desk.works.execute(sa.delete(models.DataProduct).where(is_among(models.DataProduct.id, ids)))


def test_thousands_of_inputs_take_no_more_statements_and_fill_no_screen(desk: Desk, with_many_inputs: int) -> None:
    assert desk.statements(with_many_inputs) == desk.statements(desk.new_calibration)
    told = lines(desk.told(desk.first, with_many_inputs))
    assert f"inputs: 10001 only in run {with_many_inputs}, 2 the same" in told
    assert f"and 9981 more only in run {with_many_inputs}" in told
    assert len(told) < 50
    assert len(desk.json(desk.first, with_many_inputs)["parts"]["inputs"]["changes"]) == 10_001
