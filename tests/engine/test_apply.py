"""Definitions as code, applied to a database: the same command that people type."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from ccat.cli import app
from ccat_ops_db import models
from ccat_ops_db.definitions.parsing import parse_definitions
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import presets
from ccat_ops_db.models import Base
from ccat_ops_db.moves import advance
from ccat_ops_db.session import transaction
from ccat_ops_db.states import VersionState
from ccat_ops_db.verbs.definitions import apply_definitions
from tests.engine.toy import install

EXAMPLES = Path(__file__).parents[2] / "pipelines" / "examples"
BASE = """
sources:
  - {name: M17, ra_deg: 275.1, dec_deg: -16.2}
observing_programs:
  - {short_name: Cal, observations: [{name: M17 map, source: M17, obs_mode: OTF}]}
software:
  - {name: toy, versions: [{version: "1.0", series: "1", command: [toy], environment: env, distribution: toy}]}
configs:
  - {name: deep, parameters: {order: 3}}
  - {name: wide, parameters: {order: 1}}
groupings:
  - {name: m17, rules: [{table: Source, column: name, operator: eq, value: M17}]}
pipelines:
  - name: maps
    grouping: m17
    location: cologne/ramses
    steps:
      - {key: grid, group_by: [source], software: toy, config: deep, depends_on: [calibrate]}
      - {key: calibrate, group_by: [executed_obs_unit], software: toy}
"""


@dataclass(frozen=True)
class Desk:
    """Where somebody writes definitions and applies them."""

    engine: sa.Engine
    folder: Path

    def apply(self, text: str, *options: str) -> dict[tuple[str, str], str]:
        """What applying changed: (kind, name) → action and detail."""
        told = json.loads(self._run(text, *options, "--json", code=0).stdout)
        return {
            (one["kind"], one["name"]): f"{one['action']} {one['detail']}".strip()
            for one in told["changes"]
            if one["action"] != "unchanged"
        }

    def refusal(self, text: str) -> str:
        """What a person reads whose file is refused; nothing of it was applied."""
        before = self.rows()
        told = self._run(text, code=1).stderr
        assert self.rows() == before
        return str(told)

    def rows(self) -> list[Any]:
        """How many rows every table has, and what wrote them last."""
        counts: list[Any] = [
            sa.select(
                sa.literal(table.name), sa.func.count(), sa.func.max(sa.literal_column("xmin::text::bigint"))
            ).select_from(table)
            for table in Base.metadata.sorted_tables
        ]
        with self.engine.connect() as connection:
            return sorted(map(tuple, connection.execute(sa.union_all(*counts))))

    def _run(self, text: str, *options: str, code: int) -> Any:
        file = self.folder / "pipelines.yaml"
        file.write_text(text)
        result = CliRunner().invoke(app, ["apply", "-f", str(file), *options])
        assert result.exit_code == code, result.output
        return result

    def revisions(self, noun: type[Base]) -> int:
        with transaction(self.engine) as session:
            return session.scalars(sa.select(sa.func.count()).select_from(noun)).one()


@pytest.fixture
def desk(ops_db: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk with an environment `env` that holds toy 1.0."""
    for name in list(os.environ):
        if name.startswith("CCAT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CCAT_OPS_DB_URL", ops_db.url.render_as_string(hide_password=False))
    monkeypatch.chdir(tmp_path)
    install(tmp_path / "env")
    return Desk(ops_db, tmp_path)


@pytest.fixture
def applied(desk: Desk) -> Desk:
    """The same, with the definitions above applied."""
    desk.apply(BASE)
    return desk


def test_the_first_time_everything_is_created(desk: Desk) -> None:
    assert desk.apply(BASE) == {
        ("source", "M17"): "created",
        ("observing program", "Cal"): "created",
        ("observation", "M17 map"): "created",
        ("software", "toy"): "created",
        ("version", "toy 1.0"): "created series 1",
        ("config", "deep"): "created revision 1",
        ("config", "wide"): "created revision 1",
        ("grouping", "m17"): "created revision 1",
        ("pipeline", "maps"): "created revision 1",
    }


def test_the_second_time_nothing_changes(applied: Desk) -> None:
    before = applied.rows()
    assert applied.apply(BASE) == {}
    assert applied.rows() == before


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda one: one.name)
def test_what_is_shipped_is_applied_and_then_changes_nothing(desk: Desk, example: Path) -> None:
    install(desk.folder / "env", version="1.0.0", name="ccat_pipelines")
    text = example.read_text().replace("../../build/pipelines-env", "env")
    told = desk.apply(text)
    assert {said.partition(" ")[0] for said in told.values()} == {"created"}
    defined = yaml.safe_load(text)["pipelines"]
    assert [name for kind, name in told if kind == "pipeline"] == [pipeline["name"] for pipeline in defined]
    assert desk.apply(text) == {}


def test_a_trigger_is_stored_with_its_schedule(desk: Desk) -> None:
    assert desk.apply(scheduled("trigger: cron", 'trigger_config: {cron: "30 18 * * *", time_zone: Europe/Berlin}'))
    assert trigger(desk) == ("cron", {"cron": "30 18 * * *", "time_zone": "Europe/Berlin"})
    assert desk.apply(scheduled("trigger: cron", 'trigger_config: {cron: "30 18 * * *"}')) == {
        ("pipeline", "maps"): "changed revision 2"
    }
    assert trigger(desk) == ("cron", {"cron": "30 18 * * *", "time_zone": "UTC"})
    desk.apply(scheduled("trigger: manual"))
    assert trigger(desk) == ("manual", {})


def test_a_schedule_is_kept_when_what_is_under_the_pipeline_changes(desk: Desk) -> None:
    desk.apply(scheduled("trigger: cron", 'trigger_config: {cron: "30 18 * * *"}'))
    changed = desk.apply("configs: [{name: deep, parameters: {order: 4}}]")
    assert ("pipeline", "maps") in changed
    assert trigger(desk) == ("cron", {"cron": "30 18 * * *", "time_zone": "UTC"})


def scheduled(*keys: str) -> str:
    """The definitions above, where the pipeline has these keys besides."""
    return BASE.replace("    grouping: m17\n", "".join(f"    {key}\n" for key in ("grouping: m17", *keys)))


def trigger(desk: Desk) -> tuple[str, dict[str, str]]:
    """What is stored of the pipeline's trigger."""
    with transaction(desk.engine) as session:
        newest = sa.select(models.PipelineRevision).order_by(models.PipelineRevision.id.desc()).limit(1)
        revision = session.scalars(newest).one()
        return revision.trigger_type, revision.trigger_config


def test_steps_are_stored_in_topological_order_with_their_edges(applied: Desk) -> None:
    with transaction(applied.engine) as session:
        steps = session.scalars(
            sa.select(models.ReductionStepRevision).order_by(models.ReductionStepRevision.position)
        ).all()
        found = [
            (one.reduction_step.key, [up.key for up in one.upstream], one.takes_raw, one.is_final) for one in steps
        ]
    assert found == [("calibrate", [], True, False), ("grid", ["calibrate"], False, True)]


def test_a_dry_run_tells_the_same_and_changes_nothing(desk: Desk) -> None:
    before = desk.rows()
    assert ("pipeline", "maps") in desk.apply(BASE, "--dry-run")
    assert desk.rows() == before


def test_an_empty_file_changes_nothing(applied: Desk) -> None:
    assert applied.apply("") == {}


def test_a_changed_config_makes_a_revision_of_it_and_of_every_pipeline_that_uses_it(applied: Desk) -> None:
    applied.apply(BASE.replace("name: maps", "name: others"))
    assert applied.apply("configs: [{name: deep, parameters: {order: 4}}]") == {
        ("config", "deep"): "changed revision 2",
        ("pipeline", "maps"): "changed revision 2",
        ("pipeline", "others"): "changed revision 2",
    }
    assert applied.apply("configs: [{name: deep, parameters: {order: 4}}]") == {}


def test_a_config_that_no_pipeline_uses_makes_a_revision_of_itself_only(applied: Desk) -> None:
    assert applied.apply("configs: [{name: wide, parameters: {order: 2}}]") == {
        ("config", "wide"): "changed revision 2"
    }


def test_a_changed_grouping_makes_a_revision_of_every_pipeline_that_uses_it(applied: Desk) -> None:
    assert applied.apply("groupings: [{name: m17, rules: []}]") == {
        ("grouping", "m17"): "changed revision 2",
        ("pipeline", "maps"): "changed revision 2",
    }


def test_old_revisions_stay_as_they_are(applied: Desk) -> None:
    applied.apply("configs: [{name: deep, parameters: {order: 4}}]")
    with transaction(applied.engine) as session:
        revisions = session.scalars(
            sa.select(models.ReductionStepConfigRevision)
            .join(models.ReductionStepConfigRevision.reduction_step_config)
            .where(models.ReductionStepConfig.name == "deep")
            .order_by(models.ReductionStepConfigRevision.number)
        ).all()
        assert [one.parameters for one in revisions] == [{"order": 3}, {"order": 4}]


def test_a_switch_is_no_revision(applied: Desk) -> None:
    text = BASE.replace("name: maps", "name: maps\n    enabled: false\n    priority: 7")
    assert applied.apply(text) == {("pipeline", "maps"): "changed enabled, priority"}
    assert applied.revisions(models.PipelineRevision) == 1
    assert applied.apply("configs: [{name: deep, parameters: {}}]") == {
        ("config", "deep"): "changed revision 2",
        ("pipeline", "maps"): "changed revision 2",
    }
    with transaction(applied.engine) as session:
        pipeline = session.scalars(sa.select(models.Pipeline)).one()
        assert (pipeline.enabled, pipeline.priority) == (False, 7)


def test_coordinates_and_descriptions_are_corrected_in_place(applied: Desk) -> None:
    text = BASE.replace("275.1", "275.2").replace("name: toy,", "name: toy, description: plays,")
    assert applied.apply(text) == {
        ("source", "M17"): "changed ra_deg",
        ("software", "toy"): "changed description",
    }


def test_a_moment_in_a_rule_is_kept_as_it_is_written(applied: Desk) -> None:
    rules = "[{table: ExecutedObsUnit, column: observing_night, operator: gte, value: 2026-04-01}]"
    text = f"groupings: [{{name: m17, rules: {rules}}}]\nconfigs: [{{name: deep, parameters: {{epoch: 2026-04-01}}}}]"
    assert ("grouping", "m17") in applied.apply(text)
    with transaction(applied.engine) as session:
        revision = session.scalars(sa.select(models.DataGroupingRevision).filter_by(number=2)).one()
        assert revision.filter_rules[0]["value"] == "2026-04-01"


class TestUnknownNames:
    def test_all_are_told_at_once_each_with_its_place(self, applied: Desk) -> None:
        text = """
observing_programs:
  - {short_name: X, observations: [{name: x, source: M71, obs_mode: OFT}, {name: y, source: M17, obs_mode: OTF}]}
pipelines:
  - name: other
    grouping: m71
    location: cologne/ramsees
    steps:
      - {key: a, group_by: [], software: tyo, config: depe}
      - {key: b, group_by: [], software: toy, version_policy: exact, version: "1.1"}
  - name: third
    grouping: m17
    location: cologne/lta
    steps: [{key: a, group_by: [], software: nothing-like-it, version_policy: exact, version: "1"}]
"""
        assert applied.refusal(text) == (
            "error: observing_programs[0].observations[0].source: there is no source `M71`. Did you mean `M17`? "
            "observing_programs[0].observations[0].obs_mode: there is no observing mode `OFT`. Did you mean `OTF`? "
            "pipelines[0].grouping: there is no grouping `m71`. Did you mean `m17`? "
            "pipelines[0].location: there is no location `cologne/ramsees`. Did you mean `cologne/ramses`? "
            "pipelines[0].steps[0].software: there is no software `tyo`. Did you mean `toy`? "
            "pipelines[0].steps[0].config: there is no config `depe`. Did you mean `deep`? "
            "pipelines[0].steps[1].version: there is no version of toy `1.1`. Did you mean `1.0`? "
            "pipelines[1].steps[0].software: there is no software `nothing-like-it`. Known: `toy`. "
            "pipelines[1].steps[0].version: there is no version of nothing-like-it `1`. There is none yet. "
            "pipelines[1].location: `cologne/lta` is a long_term_archive location; "
            "a pipeline runs at a processing location. Nothing was applied.\n"
        )

    def test_what_the_same_file_defines_is_known(self, desk: Desk) -> None:
        text = BASE.replace("config: deep", "config: deep, version_policy: exact, version: '1.0'")
        assert ("pipeline", "maps") in desk.apply(text)


class TestReleases:
    VERSION = 'software: [{{name: toy, versions: [{{version: "{version}", series: "1", command: [toy], environment: env, distribution: toy{more}}}]}}]'  # noqa: E501 - one line of YAML

    def text(self, version: str = "1.0", more: str = "") -> str:
        return self.VERSION.format(version=version, more=more)

    def digest(self, desk: Desk) -> str:
        with transaction(desk.engine) as session:
            return session.scalars(sa.select(models.ReductionSoftwareVersion.content_digest)).one()

    def test_a_released_version_with_other_code_is_refused(self, applied: Desk) -> None:
        recorded = self.digest(applied)
        install(applied.folder / "env", code="answer = 41\n")
        said = applied.refusal(self.text())
        assert said.startswith(
            f"error: software[0].versions[0]: toy 1.0 is released with content_digest {recorded}, now told sha256:"
        )
        assert said.endswith(
            "A released version never changes, because products name it: release a new version. Nothing was applied.\n"
        )

    @pytest.mark.parametrize(
        ("old", "new", "field", "recorded", "told"),
        [
            ('series: "1"', 'series: "2"', "series", "1", "2"),
            ("command: [toy]", "command: [toy, --fast]", "command", "['toy']", "['toy', '--fast']"),
        ],
    )
    def test_a_released_version_told_otherwise_is_refused(
        self, applied: Desk, old: str, new: str, field: str, recorded: str, told: str
    ) -> None:
        assert applied.refusal(self.text().replace(old, new)) == (
            f"error: software[0].versions[0]: toy 1.0 is released with {field} {recorded}, now told {told}. "
            "A released version never changes, "
            "because products name it: release a new version. Nothing was applied.\n"
        )

    def test_the_same_code_in_another_place_is_the_same_version(self, applied: Desk) -> None:
        install(applied.folder / "elsewhere")
        assert applied.apply(self.text().replace("env,", "elsewhere,")) == {
            ("version", "toy 1.0"): "changed environment_prefix"
        }

    def test_compiled_files_and_scripts_are_not_the_code(self, applied: Desk) -> None:
        record = applied.folder / "env/lib/python3.11/site-packages/toy-1.0.dist-info/RECORD"
        others = ["__pycache__/toy.pyc,,", "../../../bin/toy,sha256=abc,3", "toy-1.0.dist-info/INSTALLER,sha256=x,3"]
        record.write_text("\n".join([record.read_text().strip(), *others, ""]))
        assert applied.apply(self.text()) == {}

    def test_another_version_installed_is_refused(self, applied: Desk) -> None:
        assert applied.refusal(self.text("1.1")) == (
            f"error: software[0].versions[0]: toy 1.1: {applied.folder}/env holds version 1.0. "
            "Install the one that you release there. Nothing was applied.\n"
        )

    @pytest.mark.parametrize(
        ("environment", "found"),
        [("nowhere", "does not exist, and so has no"), (".", "has no installed Python distribution")],
    )
    def test_a_missing_environment_or_distribution_is_refused(self, desk: Desk, environment: str, found: str) -> None:
        place = (desk.folder / environment).resolve()
        assert desk.refusal(self.text().replace("env,", f"{environment},")) == (
            f"error: software[0].versions[0].environment: {place} {found} `toy`; "
            f"install it there, for instance with `{place}/bin/python -m pip install …`. Nothing was applied.\n"
        )

    def test_a_version_is_retired_and_released_again(self, applied: Desk) -> None:
        retired = self.text(more=", state: retired")
        assert applied.apply(retired) == {("version", "toy 1.0"): "changed now retired"}
        assert applied.apply(retired) == {}
        assert applied.apply(self.text()) == {("version", "toy 1.0"): "changed now released"}

    def test_what_starts_nothing_need_not_be_installed_any_more(self, applied: Desk) -> None:
        install(applied.folder / "env", version="2.0")
        assert applied.apply(self.text(more=", state: retired")) == {("version", "toy 1.0"): "changed now retired"}

    def test_a_withdrawn_version_is_not_released_by_a_file(self, applied: Desk) -> None:
        with transaction(applied.engine) as session:
            one = session.scalars(sa.select(models.ReductionSoftwareVersion.id)).all()
            to = VersionState.WITHDRAWN
            advance(session, models.ReductionSoftwareVersion, one, to=to, because="wrong", by="somebody")
        assert applied.refusal(self.text()) == (
            "error: software[0].versions[0]: toy 1.0 is withdrawn, now told released. "
            "What is withdrawn can become retired only. Write `state: withdrawn` for it in the file, or, if it was "
            "right after all, `ccat reinstate version toy/1.0`. Nothing was applied.\n"
        )
        assert applied.apply(self.text(more=", state: withdrawn")) == {}

    def test_the_same_version_written_differently_is_refused(self, applied: Desk) -> None:
        assert applied.refusal(self.text("1.0.0")) == (
            "error: software[0].versions[0]: toy 1.0.0 is the same version as 1.0, which is released; "
            "write it so, or raise it. Nothing was applied.\n"
        )


def test_two_that_apply_at_once_take_turns(desk: Desk) -> None:
    definitions = parse_definitions(
        yaml.safe_load(BASE), catalogue=catalogue(), dimensions=list(dimensions()), presets=presets()
    )
    together = threading.Barrier(2)

    def apply() -> int:
        with transaction(desk.engine) as session:
            together.wait()
            changes = apply_definitions(session, definitions, folder=desk.folder, by="somebody")
        return sum(change.action == "created" for change in changes)

    with ThreadPoolExecutor() as pool:
        created = [one.result() for one in [pool.submit(apply), pool.submit(apply)]]
    assert sorted(created) == [0, 9]
    assert desk.revisions(models.PipelineRevision) == 1
