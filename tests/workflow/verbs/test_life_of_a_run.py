"""From archived packages to products and their lineage; all that is asked of one story."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ccat_ops_db import models
from ccat_ops_db.plan.lineage import Lineage
from ccat_ops_db.queries.lineage import UnknownProduct, lineage
from ccat_ops_db.states import (
    DataProductType,
    InputRole,
    PhysicalCopyStatus,
    ProductState,
    RunReason,
    RunStatus,
    Verdict,
)
from tests.workflow.verbs.conftest import OpenWorks
from tests.workflow.verbs.works import Works

STEPS = (
    {"key": "calibrate", "group_by": ["executed_obs_unit"]},
    {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"], "products": "final", "config": "deep"},
    {"key": "check", "group_by": [], "depends_on": ["grid"], "inputs": ["raw", "upstream"]},
)
SCRIPTS = {
    "grid": """
        cd "$WORKFLOW_OUTPUT_DIR"
        cat $(find -L "$WORKFLOW_INPUT_DIR" -type f | sort) >science/map.txt
        echo seen >logs/log.txt
        echo "{\\"rms_mk\\": $RMS}" >qa/metrics.json
        echo '{"science/map.txt": {"media_type": "text/plain", "description": "a map"}}' >products.json
    """,
    "check": 'cp "$WORKFLOW_MANIFEST" "$WORKFLOW_OUTPUT_DIR/science/"; ls -R "$WORKFLOW_INPUT_DIR"',
}


@dataclass(frozen=True)
class Story:
    works: Works
    calibrate: list[models.ExecutedReductionStep]
    grid: models.ExecutedReductionStep
    check: models.ExecutedReductionStep
    packages: list[int]

    def lineage(self, run: models.ExecutedReductionStep) -> Lineage:
        return self.works.session(lambda session: lineage(session, run.products[0].id))


@pytest.fixture(scope="module")
def story(open_works: OpenWorks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with open_works(tmp_path_factory.mktemp("life")) as works:
        works.apply({"configs": [{"name": "deep", "parameters": {"order": 3}, "environment": {"RMS": "1.5"}}]})
        packages = [works.observe("one "), works.observe("two ")]
        works.define(*STEPS, scripts=SCRIPTS)  # last: the first map waits for all that was there by then
        works.settle()
        *calibrate, grid, check = works.runs()
        yield Story(works, calibrate, grid, check, packages)


def test_every_step_runs_once_for_each_sub_group_in_order(story: Story) -> None:
    assert [run.reduction_step.key for run in story.works.runs()] == ["calibrate", "calibrate", "grid", "check"]
    assert {run.status for run in story.works.runs()} == {RunStatus.COMPLETED}
    assert {run.reason for run in story.works.runs()} == {RunReason.MISSING}
    assert {found.verdict for found in story.works.gap().values()} == {Verdict.UP_TO_DATE}


def test_every_move_is_in_the_history(story: Story) -> None:
    moves = [move for move in story.works.moves(story.grid) if move != "running"]
    assert moves == ["staging_data", "submitted", "collecting_results", "completed"]


def test_products_are_typed_by_directory_and_described_by_the_software(story: Story) -> None:
    products = {one.relative_path: one for one in story.grid.products}
    assert {path: one.type for path, one in products.items()} == {
        "science/map.txt": DataProductType.SCIENCE,
        "logs/log.txt": DataProductType.LOG,
        "qa/metrics.json": DataProductType.QA_METRIC,
    }
    found = products["science/map.txt"]
    assert (found.media_type, found.description, found.state) == ("text/plain", "a map", ProductState.CURRENT)
    assert story.works.text(found) in {"one two ", "two one "}
    assert story.grid.metrics == {"rms_mk": 1.5}


def test_each_product_has_a_copy_where_it_was_made(story: Story) -> None:
    for product in story.grid.products:
        [copy] = story.works.all(models.PhysicalCopy, data_product_id=product.id)
        assert (copy.status, copy.checksum, copy.size_bytes) == (
            PhysicalCopyStatus.PRESENT,
            product.checksum,
            product.size_bytes,
        )


def test_the_software_is_told_what_it_reads(story: Story) -> None:
    [product] = story.check.products
    told = json.loads(story.works.text(product))
    assert told["run"] == {"id": story.check.id, "attempt": 1}
    assert [one["package_id"] for one in told["inputs"]["raw"]] == story.packages
    assert {one["source"] for one in told["inputs"]["raw"]} == {"M17"}
    upstream = [(one["step"], one["path"].rpartition("/")[2]) for one in told["inputs"]["upstream"]]
    assert sorted(upstream) == [("grid", "map.txt"), ("grid", "metrics.json")]  # a log is no input
    listed = story.check.attempts[0].log_tail or ""
    assert "map.txt" in listed
    assert "log.txt" not in listed


def test_inputs_are_recorded_with_their_role(story: Story) -> None:
    taken = [story.works.all(models.RunInput, run_id=run.id) for run in story.calibrate]
    assert [[one.role for one in inputs] for inputs in taken] == [[InputRole.RAW], [InputRole.RAW]]
    assert sorted(one.raw_data_package_id or 0 for inputs in taken for one in inputs) == story.packages
    made = {product.id for run in story.calibrate for product in run.products}
    taken_by_grid = story.works.all(models.RunInput, run_id=story.grid.id)
    assert {(one.role, one.data_product_id) for one in taken_by_grid} == {(InputRole.UPSTREAM, one) for one in made}


def test_data_are_staged_once_for_all_steps_that_need_them(story: Story) -> None:
    assert sorted(job.raw_data_package_id or 0 for job in story.works.all(models.StagingJob)) == story.packages


class TestLineage:
    def test_it_ends_at_every_raw_file_with_its_checksum(self, story: Story) -> None:
        found = story.lineage(story.grid)
        files = [file for package in found.packages.values() for file in package.files]
        registered = {str(one.id): one.checksum for one in story.works.all(models.RawDataFile)}
        assert {file.id: file.checksum for file in files} == registered
        assert sorted(found.packages) == story.packages
        assert {package.source for package in found.packages.values()} == {"M17"}

    def test_every_run_on_the_way_is_there_with_what_it_executed_and_took(self, story: Story) -> None:
        found = story.lineage(story.check)
        assert found.runs.keys() == {run.id for run in story.works.runs()}
        grid = found.runs[story.grid.id]
        assert (grid.pipeline, grid.step, grid.software, grid.version) == ("toy", "grid", "toy-grid", "1.0")
        assert (grid.config, grid.reason) == ("deep", "missing")
        assert grid.config_digest
        assert grid.package_ids == ()
        assert set(grid.product_ids) == {product.id for run in story.calibrate for product in run.products}
        assert set(found.runs[story.check.id].package_ids) == set(story.packages)

    def test_every_reference_leads_to_a_node_and_every_node_is_referred_to(self, story: Story) -> None:
        found = story.lineage(story.check)
        products = {number for run in found.runs.values() for number in run.product_ids}
        packages = {number for run in found.runs.values() for number in run.package_ids}
        assert (products, packages) == (set(found.products), set(found.packages))
        makers = {one.run_id for one in found.products.values()} | {found.product.run_id}
        assert makers == set(found.runs)

    def test_a_product_that_needs_little_has_a_short_lineage(self, story: Story) -> None:
        found = story.lineage(story.calibrate[0])
        assert list(found.runs) == [story.calibrate[0].id]
        [taken] = story.works.all(models.RunInput, run_id=story.calibrate[0].id)
        assert list(found.packages) == [taken.raw_data_package_id]
        assert found.products == {}

    def test_an_unknown_product_is_refused(self, story: Story) -> None:
        with pytest.raises(UnknownProduct, match="There is no data product 0"):
            story.works.session(lambda session: lineage(session, 0))
