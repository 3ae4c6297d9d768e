"""Whatever happens in whatever order: work ends, and what it ends with is up to date."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccat_ops_db.states import DataProductType, VersionPolicy
from tests.engine.model import Model
from tests.engine.oracle.gap import Verdict

QUIET = {Verdict.UP_TO_DATE, Verdict.BLOCKED, Verdict.FAILED, Verdict.CANCELLED}


def by_scan_then_source(rest: float) -> Model:
    model = Model()
    model.step("a", ["scan"])
    model.step("b", ["scan"], after=["a"])
    model.step("c", ["source"], after=["b"], rest=rest)
    model.step("d", ["source", "night"], after=["b"], rest=rest)
    model.step("e", ["source"], after=["c", "d"])
    return model


def coarse_before_fine(rest: float) -> Model:
    model = Model()
    model.step("a", ["night"], rest=rest)
    model.step("b", ["scan"], after=["a"], raw=True)
    model.step("c", [], after=["a", "b"], rest=rest)
    return model


def with_steps_that_ignore_their_inputs(rest: float) -> Model:
    model = Model(stable={"a"}, types={"b": DataProductType.PLOT})
    model.step("a", ["source"], rest=rest)
    model.step("b", ["night"], after=["a"])
    model.step("c", ["scan"], after=["a", "b"])
    return model


SHAPES: list[Callable[[float], Model]] = [
    by_scan_then_source,
    coarse_before_fine,
    with_steps_that_ignore_their_inputs,
]
MODELS = st.builds(lambda shape, rest: shape(rest), st.sampled_from(SHAPES), st.sampled_from([0, 60]))
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("archive"), st.sampled_from(["M17", "Saturn"]), st.sampled_from(["1", "2"])),
        st.tuples(st.just("leave"), st.integers(0, 5), st.none()),
        st.tuples(st.just("release"), st.sampled_from("abc"), st.sampled_from(["1", "2"])),
        st.tuples(st.just("config"), st.sampled_from("abc"), st.sampled_from("xyz")),
        st.tuples(st.just("policy"), st.sampled_from("abc"), st.sampled_from(VersionPolicy)),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 30.0, 90.0]), st.none()),
    ),
    min_size=1,
    max_size=4,
)


def apply(model: Model, change: tuple[str, object, object]) -> None:
    match change:
        case ("archive", str(source), str(night)):
            model.archive(f"s{len(model.packages) + len(model.runs)}-{model.now:%H%M%S}", source=source, night=night)
        case ("leave", int(number), _) if len(model.packages) > number:
            del model.packages[sorted(model.packages)[number]]
        case ("release", str(step), str(series)):
            model.release(step, f"{series}.{len(model.runs)}", series=series)
        case ("config", str(step), value):
            model.change(step, config_digest=value)
        case ("policy", str(step), value):
            model.change(step, policy=value)
        case ("wait", float(seconds), _):
            model.wait(seconds)


def verdicts(model: Model) -> set[Verdict]:
    return {found.decision.verdict for found in model.look().values()}


@settings(max_examples=200, derandomize=True)
@given(MODELS, st.lists(CHANGES, min_size=1, max_size=4), st.data())
def test_everything_ends_up_to_date_and_nothing_runs_twice_for_one_change(
    model: Model, batches: list[list[tuple[str, object, object]]], data: st.DataObject
) -> None:
    for changes in batches:
        for change in changes:
            apply(model, change)
        runs = Counter(model.settle(lambda wanted: data.draw(st.sampled_from(wanted))))
        assert max(runs.values(), default=0) <= len(changes), runs
        assert verdicts(model) <= {Verdict.UP_TO_DATE}
        assert model.settle() == []


@settings(max_examples=200, derandomize=True)
@given(MODELS, CHANGES, st.data())
def test_where_software_fails_work_ends_too_and_the_failed_are_not_tried_twice(
    model: Model, changes: list[tuple[str, object, object]], data: st.DataObject
) -> None:
    for change in changes:
        apply(model, change)
    bad = data.draw(st.sets(st.sampled_from([*model.look(), "nothing"])))
    runs = Counter(model.settle(bad=bad))
    assert verdicts(model) <= QUIET
    assert {
        name for name, found in model.look().items() if found.decision.verdict is Verdict.FAILED
    } == bad & runs.keys()
    assert max(runs.values(), default=0) <= len(changes)


@settings(max_examples=200, derandomize=True)
@given(MODELS, CHANGES)
def test_a_run_with_the_inputs_that_were_offered_settles_its_sub_group(
    model: Model, changes: list[tuple[str, object, object]]
) -> None:
    for change in changes:
        apply(model, change)
    while wanted := model.wanted():
        model.complete(wanted[-1])
        assert model.verdict(wanted[-1]) in {Verdict.UP_TO_DATE, Verdict.BLOCKED}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rest", [0, 60])
@pytest.mark.parametrize("change", [("release", "a", "2"), ("config", "b", "x"), ("archive", "M17", "1")])
def test_one_change_runs_no_sub_group_twice(
    shape: Callable[[float], Model], rest: float, change: tuple[str, object, object]
) -> None:
    model = shape(rest)
    for source, night in [("M17", "1"), ("M17", "2"), ("Saturn", "2")]:
        model.archive(f"{source}-{night}", source=source, night=night)
    model.settle()
    apply(model, change)
    runs = Counter(model.settle())
    assert runs
    assert max(runs.values()) == 1
