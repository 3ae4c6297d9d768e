"""How many runs applying definitions would cause: told before, asked about where they are many, and then so."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from ccat.cli import app
from ccat_ops_db import models
from ccat_ops_db.grouping.dimensions import is_finer
from ccat_ops_db.models import Base
from ccat_ops_db.queries.roots import Kind
from tests.engine.history import History

CALIBRATE: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
GRID: dict[str, Any] = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}
ALL: dict[str, Any] = {"key": "all", "group_by": [], "depends_on": ["grid"]}
CALIBRATED_ANEW = ["it/calibrate: 3 runs: recipe_changed"]
WHAT_FOLLOWS = ["it/grid: 2 runs: may follow from these", "it/all: 1 run: may follow from these"]
WHAT_FOLLOWS_ONE = ["it/grid: 1 run: may follow from these", "it/all: 1 run: may follow from these"]
EVERYTHING = ["it/calibrate: 3 runs: missing", *WHAT_FOLLOWS]


@dataclass
class Desk:
    """Where somebody edits a file of definitions and applies it."""

    history: History
    file: Path

    def edit(self, **document: Any) -> None:
        """Write the definitions of the history into the file, with other values for some keys."""
        self.file.write_text(yaml.safe_dump({**self.history.document(), **document}))

    def apply(self, *options: str, code: int = 0) -> Any:
        url = self.history.engine.url.render_as_string(hide_password=False)
        words = ["apply", "-f", str(self.file), *options]
        result = CliRunner().invoke(app, words, env={"CCAT_OPS_DB_URL": url})
        assert result.exit_code == code, result.output
        return result

    def answer(self, text: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Apply at a terminal where somebody answers."""
        person, terminal = pty.openpty()
        os.write(person, f"{text}\n".encode())
        command = [sys.executable, "-m", "ccat", "apply", "-f", str(self.file), *options]
        environment = {**os.environ, "CCAT_OPS_DB_URL": self.history.engine.url.render_as_string(hide_password=False)}
        try:
            return subprocess.run(
                command, env=environment, stdin=terminal, capture_output=True, text=True, check=False, timeout=60
            )
        finally:
            os.close(person)
            os.close(terminal)

    def rows(self) -> list[Any]:
        """How many rows every table has, and what wrote them last."""
        written: Any = sa.func.max(sa.literal_column("xmin::text::bigint"))
        counts: list[Any] = [
            sa.select(sa.literal(table.name), sa.func.count(), written).select_from(table)
            for table in Base.metadata.sorted_tables
        ]
        with self.history.engine.connect() as connection:
            return sorted(map(tuple, connection.execute(sa.union_all(*counts))))


@pytest.fixture
def desk(ops_db: sa.Engine, tmp_path: Path) -> Desk:
    """A desk beside an installation in which nothing has happened."""
    return Desk(History(ops_db), tmp_path / "pipelines.yaml")


@pytest.fixture
def settled(desk: Desk) -> Desk:
    """The same after three scans, two of them of M17, were calibrated and gridded."""
    desk.history.define(CALIBRATE, GRID, ALL)
    for source in ("M17", "M17", "Orion A"):
        desk.history.archive(source=source)
    desk.history.settle()
    return desk


def causes(told: str) -> list[str]:
    """The lines that say which runs there would be."""
    return [line for line in told.splitlines() if re.match(r"\w+/\w+: ", line)]


def of_pipeline(desk: Desk, **keys: Any) -> dict[str, Any]:
    [pipeline] = desk.history.document()["pipelines"]
    return {"pipelines": [{**pipeline, **keys}]}


def new_version(desk: Desk, series: str) -> dict[str, Any]:
    version = desk.history._version("1.1", series)
    return {"software": [{"name": "calibrate", "versions": [*desk.history.versions["calibrate"], version]}]}


EDITS: dict[str, tuple[Callable[[Desk], dict[str, Any]], list[str]]] = {
    "nothing": (lambda _: {}, []),
    "a config": (
        lambda _: {"configs": [{"name": "calibrate", "parameters": {"value": 9}}]},
        [*CALIBRATED_ANEW, *WHAT_FOLLOWS],
    ),
    "the config of the last step": (
        lambda _: {"configs": [{"name": "all", "parameters": {"value": 9}}]},
        ["it/all: 1 run: recipe_changed"],
    ),
    "a version of the same series": (lambda desk: new_version(desk, "1"), []),
    "a version of another series": (lambda desk: new_version(desk, "2"), [*CALIBRATED_ANEW, *WHAT_FOLLOWS]),
    "a priority": (lambda desk: of_pipeline(desk, priority=9), []),
    "a second pipeline": (
        lambda desk: of_pipeline(desk, name="other"),
        [line.replace("it/", "other/") for line in EVERYTHING],
    ),
    "a second pipeline that rests": (
        lambda desk: of_pipeline(
            desk, name="other", steps=[{**CALIBRATE, "software": "calibrate", "cooldown_seconds": 3600}]
        ),
        ["other/calibrate: 3 runs: missing"],
    ),
    "a second pipeline that is disabled": (lambda desk: of_pipeline(desk, name="other", enabled=False), []),
    "a second pipeline that runs by hand": (lambda desk: of_pipeline(desk, name="other", trigger="manual"), []),
    "rules that select less": (
        lambda _: {
            "groupings": [
                {"name": "some", "rules": [{"table": "Source", "column": "name", "operator": "eq", "value": "M17"}]}
            ]
        },
        ["it/all: 1 run: inputs_changed"],
    ),
}


@pytest.mark.parametrize("what", EDITS)
def test_a_dry_run_says_which_runs_there_would_be_and_then_there_are(settled: Desk, what: str) -> None:
    edit, expected = EDITS[what]
    settled.edit(**edit(settled))
    before = settled.rows()
    assert causes(settled.apply("--dry-run").stdout) == expected
    assert settled.rows() == before
    assert causes(settled.apply().stdout) == expected
    known = {run.id for run in settled.history.runs()}
    settled.history.settle()
    if "second" not in what:
        steps = [settled.history.step_of(run) for run in settled.history.runs() if run.id not in known]
        assert {step: steps.count(step) for step in steps} == numbers(expected)


def numbers(lines: list[str]) -> dict[str, int]:
    """Step → runs."""
    found = (re.match(r"\w+/(\w+): (\d+)", line) for line in lines)
    return {one[1]: int(one[2]) for one in found if one}


def test_programs_read_the_numbers(settled: Desk) -> None:
    settled.edit(configs=[{"name": "all", "parameters": {"value": 9}}])
    told = json.loads(settled.apply("--dry-run", "--json").stdout)
    assert told["runs"] == [{"pipeline": "it", "step": "all", "reason": "recipe_changed", "runs": 1}]
    assert (told["dry_run"], told["warnings"]) == (True, [])


def test_what_was_wanted_already_is_not_caused(desk: Desk) -> None:
    desk.history.define(CALIBRATE, GRID, ALL)
    desk.history.archive()
    desk.edit(configs=[{"name": "calibrate", "parameters": {"value": 9}}])
    assert causes(desk.apply("--dry-run").stdout) == []


def test_a_started_run_is_made_again_and_one_that_has_not_started_is_not(settled: Desk) -> None:
    for source in ("M17", "Orion A"):
        settled.history.archive(source=source)
    settled.history.create()
    started, _ = settled.history.runs()[-2:]
    settled.history.start(started.id)
    settled.edit(configs=[{"name": "calibrate", "parameters": {"value": 9}}])
    assert set(causes(settled.apply("--dry-run").stdout)) == {
        *CALIBRATED_ANEW,
        "it/calibrate: 1 run: missing",
        *WHAT_FOLLOWS,
    }


def test_enabling_a_pipeline_causes_what_is_missing(desk: Desk) -> None:
    desk.history.define(CALIBRATE, GRID, ALL, enabled=False)
    for source in ("M17", "M17", "Orion A"):
        desk.history.archive(source=source)
    desk.edit(**of_pipeline(desk, enabled=True))
    assert causes(desk.apply("--dry-run").stdout) == EVERYTHING


def test_a_pipeline_that_cannot_be_evaluated_is_mended_by_applying(settled: Desk) -> None:
    rule = {"table": "Gone", "column": "x", "operator": "eq", "value": 1}
    settled.history.execute(sa.update(models.DataGroupingRevision).values(filter_rules=[rule]))
    every = {"table": "Source", "column": "name", "operator": "is_null", "value": False}
    settled.edit(groupings=[{"name": "some", "rules": [every]}])
    assert causes(settled.apply().stdout) == []
    assert settled.history.create() == 0


def broken(desk: Desk, pipeline: str) -> None:
    """Have a pipeline divide by what there is no more."""
    step = models.ReductionStepRevision
    of_pipeline = (
        sa.select(models.ReductionStep.id).join(models.ReductionStep.pipeline).where(models.Pipeline.name == pipeline)
    )
    which = step.reduction_step_id.in_(of_pipeline.scalar_subquery())
    desk.history.execute(sa.update(step).where(which).values(group_by=["Gone.name"]))


NOT_KNOWN = (
    "warning: pipeline {} cannot be evaluated, so it runs nothing until its definition is mended, and which runs it "
    "would have is not known: KeyError: 'Gone.name'\n"
)


def test_a_pipeline_that_cannot_be_evaluated_is_told_and_stands_in_nobodys_way(desk: Desk) -> None:
    desk.history.define(CALIBRATE, {"key": "other", "group_by": [], "pipeline": "other"})
    desk.history.archive()
    desk.history.settle()
    broken(desk, "other")
    desk.history.archive()
    desk.edit(
        configs=[{"name": "calibrate", "parameters": {"value": 9}}], pipelines=desk.history.document()["pipelines"][:1]
    )
    before, expected = desk.rows(), ["it/calibrate: 1 run: recipe_changed"]
    told = desk.apply("--dry-run")
    assert (causes(told.stdout), told.stderr, desk.rows()) == (expected, NOT_KNOWN.format("other"), before)
    applied = desk.apply()
    assert (causes(applied.stdout), applied.stderr) == (expected, NOT_KNOWN.format("other"))


def test_whatever_a_pipeline_cannot_be_evaluated_for_it_is_mended_by_applying(settled: Desk) -> None:
    broken(settled, "it")
    settled.history.archive()
    settled.history.steps[-1]["on_failed_input"] = "omit"
    settled.edit()
    told, expected = settled.apply("--dry-run"), ["it/calibrate: 1 run: missing", *WHAT_FOLLOWS_ONE]
    assert (causes(told.stdout), told.stderr) == (expected, "")
    assert causes(settled.apply().stdout) == expected
    assert settled.history.create() == 1


# More than somebody may have thought of


@pytest.fixture
def edited(settled: Desk) -> Desk:
    """A desk with an edit that causes six runs."""
    settled.edit(configs=[{"name": "calibrate", "parameters": {"value": 9}}])
    return settled


def test_where_nobody_can_be_asked_many_runs_are_refused(edited: Desk) -> None:
    before = edited.rows()
    assert edited.apply("--ask-above", "5", code=1).stderr == (
        f"error: Applying {edited.file} would cause 6 runs, more than 5: 3 of it/calibrate, 2 of it/grid, 1 of it/all. "
        "`--dry-run` shows why; `--yes` applies it all the same, `--ask-above 6` unless there are still more. "
        "Nothing was applied.\n"
    )
    assert json.loads(edited.apply("--ask-above", "5", "--json", code=1).stderr)["code"] == "too_many_runs"
    assert edited.rows() == before


@pytest.mark.parametrize("options", [("--yes", "--ask-above", "5"), ("--ask-above", "6"), ()])
def test_few_runs_or_a_yes_are_not_asked_about(edited: Desk, options: tuple[str, ...]) -> None:
    edited.apply(*options)
    assert edited.history.create() == 3


def test_at_a_terminal_somebody_decides(edited: Desk) -> None:
    before = edited.rows()
    declined = edited.answer("n", "--ask-above", "5")
    assert (declined.returncode, edited.rows()) == (1, before)
    assert f"Apply {edited.file}, and cause 6 runs? [y/N]" in declined.stdout
    assert causes(declined.stdout) == [*CALIBRATED_ANEW, *WHAT_FOLLOWS]
    agreed = edited.answer("y", "--ask-above", "5")
    assert agreed.returncode == 0, agreed.stderr
    assert edited.history.create() == 3


def test_a_dry_run_asks_nothing(edited: Desk) -> None:
    edited.apply("--dry-run", "--ask-above", "0")


# What is allowed and probably not meant


def test_a_grouping_that_selects_nothing_is_told(settled: Desk) -> None:
    rules = [{"table": "Source", "column": "name", "operator": "eq", "value": "Saturn"}]
    settled.edit(groupings=[{"name": "some", "rules": rules}])
    expected = (
        "warning: grouping some selects no raw package now, so nothing runs until one comes; "
        "`ccat grouping explain some` says what it selects\n"
    )
    assert settled.apply("--dry-run").stderr == settled.apply().stderr == expected
    assert settled.apply().stderr == ""


def test_a_config_that_is_withdrawn_is_told_though_the_file_changes_nothing(settled: Desk) -> None:
    settled.history.declare_invalid(Kind.CONFIG, "grid", because="wrong beam")
    settled.edit()
    assert settled.apply("--dry-run").stderr == (
        "warning: config grid/1, which is the newest, was withdrawn: wrong beam (a person). What needs it starts "
        "nothing until the config is changed, or until `ccat reinstate config grid/1` if it was right\n"
    )


def test_an_image_that_is_not_here_is_told_of_the_version_that_names_it(settled: Desk, tmp_path: Path) -> None:
    version = {"version": "9.0", "series": "9", "runtime": "apptainer", "command": ["chai"], "image": "chai.sif"}
    settled.edit(software=[{"name": "chai", "versions": [{**version, "image_digest": f"sha256:{'0' * 64}"}]}])
    away = f"warning: chai 9.0: there is no file {tmp_path / 'chai.sif'} here; where the workers do not see it either"
    assert settled.apply("--dry-run").stderr == f"{away}, its runs fail\n"
    (tmp_path / "chai.sif").touch()
    assert settled.apply().stderr == ""


def test_an_upstream_that_is_not_finer_is_told(settled: Desk) -> None:
    nightly = {"key": "grid", "group_by": ["observing_night"], "depends_on": ["calibrate"]}
    by_source = {"key": "all", "group_by": ["source"], "depends_on": ["grid"]}
    settled.history.steps = [CALIBRATE, nightly, by_source]
    settled.edit()
    assert settled.apply("--yes").stderr == (
        "warning: pipeline it, step all: its upstream grid (by observing_night) is not finer than itself (by source), "
        "so it takes products that were made from other packages too; the lineage of its products shows them\n"
    )


@pytest.mark.parametrize(
    ("finer", "coarser"),
    [
        (["source"], []),
        ([], []),
        (["source"], ["source"]),
        (["Source.id"], ["source"]),
        (["executed_obs_unit"], ["source", "observing_night", "observing_program"]),
        (["RawDataPackage.id"], ["executed_obs_unit", "instrument"]),
        (["instrument_module"], ["instrument"]),
        (["executed_obs_unit", "instrument_module"], ["obs_unit", "instrument"]),
    ],
)
def test_dimensions_that_divide_more_finely(finer: list[str], coarser: list[str]) -> None:
    assert is_finer(finer, than=coarser)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([], ["source"]),
        (["instrument"], ["instrument_module"]),
        (["executed_obs_unit"], ["instrument_module"]),
        (["observing_night"], ["executed_obs_unit"]),
        (["Source.name"], ["source"]),
        (["source"], ["source", "observing_night"]),
    ],
)
def test_dimensions_that_do_not(one: list[str], other: list[str]) -> None:
    assert not is_finer(one, than=other)
