"""What rules for auxiliary inputs may say, and what a person reads who said something else."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.definitions.parsing import InvalidDefinition
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.plan.ages import age, told
from ccat_ops_db.states import LocationType
from ccat_ops_db.verbs.cautions import cautions
from ccat_ops_db.verbs.changes import Change
from tests.engine.history import History

FLAT = {"key": "flat", "group_by": ["instrument_module"], "pipeline": "calibration"}
HERE = "pipelines[0].steps[0].auxiliary[0]"


def rule(**keys: Any) -> dict[str, Any]:
    return {"name": "flat", "from": "calibration/flat", "max_age": "12h", **keys}


def by_flat(*rules: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"key": "grid", "group_by": ["source"], "auxiliary": list(rules), **keys}


def refusal(history: History, *steps: dict[str, Any], **keys: Any) -> str:
    with pytest.raises(InvalidDefinition) as refused:
        history.define(*steps, **keys)
    return str(refused.value).removesuffix("\nNothing was applied.")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{}], f"{HERE}.name: it is missing.\n{HERE}.from: it is missing.\n{HERE}.max_age: it is missing."),
        ([rule(form="x")], f"{HERE}: unknown key `form`. Did you mean `from`?"),
        (
            [rule(place="calibration/flat")],
            (
                f"{HERE}: unknown key `place`. Known: `from`, `max_age`, `name`, `nearest`, `on_missing`, "
                "`redo_on_better`, `same`."
            ),
        ),
        (
            [rule(name="Flat field")],
            (f"{HERE}.name: `Flat field` is no identifier: lower-case letters, digits, `_`, `.` and `-` make one."),
        ),
        (
            [rule(**{"from": "flat"})],
            f"{HERE}.from: `flat` names no step of a pipeline, such as calibration/flat_field.",
        ),
        (
            [rule(**{"from": "a/b/c"})],
            f"{HERE}.from: `a/b/c` names no step of a pipeline, such as calibration/flat_field.",
        ),
        (
            [rule(nearest="elevation")],
            f"{HERE}.nearest: `elevation` is nothing to be near in; it is always `observation time`.",
        ),
        ([rule(max_age="soon")], f"{HERE}.max_age: `soon` is no span of time, such as 30m, 12h or 7d."),
        ([rule(max_age="12")], f"{HERE}.max_age: `12` is no span of time, such as 30m, 12h or 7d."),
        ([rule(max_age=12)], f"{HERE}.max_age: 12 is a number here; write it in quotes."),
        ([rule(max_age="-1h")], f"{HERE}.max_age: `-1h` is no span of time, such as 30m, 12h or 7d."),
        ([rule(max_age="0h")], f"{HERE}.max_age: `0h` must be more than nothing, and a year at most."),
        ([rule(max_age="400d")], f"{HERE}.max_age: `400d` must be more than nothing, and a year at most."),
        ([rule(on_missing="skip")], f"{HERE}.on_missing: input should be 'wait' or 'fail'."),
        (
            [rule(redo_on_better="perhaps")],
            f"{HERE}.redo_on_better: `perhaps` is neither true nor false: write `true` or `false`, without quotes.",
        ),
        (
            [rule(same=["instrument_modul", "source", "source"])],
            (
                f"{HERE}.same[0]: there is no dimension `instrument_modul`. Did you mean `instrument_module`?\n"
                f"{HERE}.same[2]: `source` stands twice."
            ),
        ),
        ([rule(), rule()], "pipelines[0].steps[0].auxiliary[1].name: `flat` is defined twice."),
        (
            [rule(**{"from": "it/grid"})],
            "pipelines[0].steps: the steps depend on each other in a circle: grid → grid.",
        ),
        (
            [rule(**{"from": "calibraton/flat"})],
            f"{HERE}.from: there is no pipeline `calibraton`. Did you mean `calibration`?",
        ),
        (
            [rule(**{"from": "calibration/falt"})],
            f"{HERE}.from: there is no step `falt` of pipeline calibration. Did you mean `flat`?",
        ),
        (
            [rule(**{"from": "it/flat"})],
            f"{HERE}.from: there is no step `flat` of pipeline it. Known: `grid`.",
        ),
    ],
)
def test_every_problem_is_named_with_its_place(history: History, rules: list[dict[str, Any]], message: str) -> None:
    assert refusal(history, by_flat(*rules), FLAT) == message


def test_circles_are_refused_within_a_pipeline(history: History) -> None:
    dark = {"key": "dark", "group_by": [], "depends_on": ["grid"]}
    assert refusal(history, by_flat(rule(**{"from": "it/dark"})), dark) == (
        "pipelines[0].steps: the steps depend on each other in a circle: grid → dark → grid."
    )


def test_circles_are_refused_through_several_pipelines(history: History) -> None:
    flat = {**FLAT, "auxiliary": [rule(name="map", **{"from": "it/grid"})]}
    assert refusal(history, by_flat(rule()), flat) == (
        "pipelines[0].steps: steps take products of each other in a circle: it/grid → calibration/flat → it/grid."
    )


def test_two_pipelines_may_take_of_each_other_where_no_step_does(history: History) -> None:
    dark = {"key": "dark", "group_by": []}
    history.define(by_flat(rule()), dark, {**FLAT, "auxiliary": [rule(name="dark", **{"from": "it/dark"})]})


def test_pipelines_at_different_locations_cannot_take_of_each_other(history: History) -> None:
    history.session(_put_elsewhere)
    assert refusal(history, by_flat(rule()), FLAT, location="cologne/elsewhere") == (
        f"{HERE}.from: pipeline calibration runs at cologne/ramses, and it, which takes its products, at "
        "cologne/elsewhere; products are not brought from one to the other, so let both run at one location."
    )


def _put_elsewhere(session: Session) -> None:
    here = find(session, LOCATION, "cologne/ramses")
    session.add(
        models.DiskDataLocation(
            site_id=here.site_id,
            name="elsewhere",
            location_type=LocationType.PROCESSING,
            backend=here.backend,
            path="/elsewhere",
        )
    )


class TestLater:
    @pytest.fixture
    def applied(self, history: History) -> History:
        history.define(by_flat(rule(same=["source", "instrument_module"], max_age="90m")), FLAT)
        return history

    def test_the_rule_is_kept_as_it_is_written(self, applied: History) -> None:
        [kept] = applied.session(lambda session: session.scalars(sa.select(models.AuxiliaryRule)).all())
        assert (kept.name, kept.same, kept.max_age) == (
            "flat",
            ["source", "instrument_module"],
            timedelta(minutes=90),
        )
        applied.apply()
        numbers = sa.select(models.PipelineRevision.number)
        assert set(applied.session(lambda session: session.scalars(numbers).all())) == {1}

    def test_to_say_that_time_is_what_counts_changes_nothing(self, applied: History) -> None:
        [step, flat] = applied.steps
        [said] = step["auxiliary"]
        applied.define({**step, "auxiliary": [{**said, "nearest": "observation time"}]}, flat)
        numbers = sa.select(models.PipelineRevision.number)
        assert set(applied.session(lambda session: session.scalars(numbers).all())) == {1}

    def test_a_step_that_others_take_of_cannot_go(self, applied: History) -> None:
        whole = applied.document
        applied.document = lambda: {"pipelines": [_with(whole()["pipelines"][1], key="other", software="flat")]}  # type: ignore[method-assign]  # only that pipeline
        with pytest.raises(InvalidDefinition) as refused:
            applied.apply()
        assert str(refused.value) == (
            "pipelines[0].steps: `flat` is missing, which step it/grid takes as its auxiliary input `flat`; keep it, "
            "or apply that pipeline without the rule first.\nNothing was applied."
        )

    def test_both_may_go_at_once(self, applied: History) -> None:
        applied.define({"key": "grid", "group_by": ["source"]}, {**FLAT, "key": "other"})

    def test_people_are_told_of_a_step_that_mixes_what_has_to_be_the_same(self, applied: History) -> None:
        changes = [Change("pipeline", "it", "changed")]
        told_of = applied.session(lambda session: cautions(session, changes, now=applied.now))
        assert told_of[-1] == (
            "pipeline it, step grid: its auxiliary input flat has to be the same in source, and calibration/flat (by "
            "instrument_module) does not divide its packages by that: of a run that mixes them nothing is taken"
        )


def _with(pipeline: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A pipeline with other keys of its only step."""
    return {**pipeline, "steps": [{**step, **keys} for step in pipeline["steps"]]}


@pytest.mark.parametrize(
    ("text", "span", "again"),
    [
        ("30m", timedelta(minutes=30), "30 m"),
        ("90m", timedelta(minutes=90), "90 m"),
        ("1.5h", timedelta(minutes=90), "90 m"),
        ("24h", timedelta(days=1), "1 d"),
        ("36h", timedelta(hours=36), "36 h"),
        ("7d", timedelta(days=7), "7 d"),
    ],
)
def test_spans_of_time_are_read_and_told(text: str, span: timedelta, again: str) -> None:
    assert (age(text), told(age(text))) == (span, again)
