"""When a sub-group needs a run, and why."""

from datetime import timedelta

import pytest

from ccat_ops_db.states import DataProductType, RunReason, VersionPolicy
from tests.engine.model import START, Model
from tests.engine.oracle.gap import Verdict


@pytest.fixture
def model() -> Model:
    """Scans are calibrated one by one, and gridded by source."""
    made = Model()
    made.step("calibrate", ["scan"])
    made.step("grid", ["source"], after=["calibrate"])
    return made


@pytest.fixture
def settled(model: Model) -> Model:
    """The same with two scans, all done."""
    model.archive("s1")
    model.archive("s2")
    assert model.settle() == ["calibrate s1", "calibrate s2", "grid M17"]
    model.wait(10)
    return model


def reason_of(model: Model, sub_group: str) -> tuple[RunReason | None, str]:
    decision = model.look()[sub_group].decision
    return decision.reason, decision.because


def test_what_was_never_made_is_missing(model: Model) -> None:
    model.archive("s1")
    assert reason_of(model, "calibrate s1") == (RunReason.MISSING, "no run has completed yet")


def test_a_run_of_what_is_wanted_makes_it_up_to_date(settled: Model) -> None:
    assert {found.decision.verdict for found in settled.look().values()} == {Verdict.UP_TO_DATE}


def test_a_new_scan_changes_the_inputs_of_the_map_it_belongs_to_and_of_no_other(settled: Model) -> None:
    settled.archive("s3")
    settled.archive("t1", source="Saturn")
    settled.complete("calibrate s3")
    assert reason_of(settled, "grid M17") == (RunReason.INPUTS_CHANGED, "new since run 3: package s3")
    assert settled.settle() == ["calibrate t1", "grid M17", "grid Saturn"]


def test_many_new_packages_are_counted_where_they_cannot_all_be_named(settled: Model) -> None:
    for number in range(5):
        settled.archive(f"n{number}")
        settled.complete(f"calibrate n{number}")
    assert settled.because("grid M17") == "new since run 3: package n0, package n1, package n2 and 2 more"


def test_a_package_that_leaves_changes_the_inputs(settled: Model) -> None:
    del settled.packages["s2"]
    assert reason_of(settled, "grid M17") == (RunReason.INPUTS_CHANGED, "inputs differ from those of run 3")


def test_a_changed_config_changes_the_recipe(settled: Model) -> None:
    settled.change("calibrate", config_digest="another")
    assert reason_of(settled, "calibrate s1") == (
        RunReason.RECIPE_CHANGED,
        "recipe changed since run 1: config or definition",
    )


def test_new_products_upstream_change_what_depends_on_them(settled: Model) -> None:
    settled.change("calibrate", config_digest="another")
    settled.complete("calibrate s1", "calibrate s2")
    reason, because = reason_of(settled, "grid M17")
    assert reason is RunReason.UPSTREAM_CHANGED
    assert because.startswith("new products since run 3: calibrate s1-")


@pytest.mark.parametrize(
    ("policy", "series", "redone"),
    [
        (VersionPolicy.COMPATIBLE, "1", False),
        (VersionPolicy.COMPATIBLE, "2", True),
        (VersionPolicy.LATEST, "1", True),
        (VersionPolicy.EXACT, "1", True),  # of an exact policy, the version is the pinned one
    ],
)
def test_the_policy_says_whether_another_version_redoes_what_is_there(
    settled: Model, policy: VersionPolicy, series: str, *, redone: bool
) -> None:
    settled.change("grid", policy=policy)
    settled.release("grid", "1.1", series=series)
    if redone:
        assert reason_of(settled, "grid M17") == (
            RunReason.RECIPE_CHANGED,
            "recipe changed since run 3: version 1.0 → 1.1",
        )
    else:
        assert settled.verdict("grid M17") is Verdict.UP_TO_DATE


def test_every_policy_uses_the_new_version_for_new_work(settled: Model) -> None:
    settled.release("calibrate", "1.1")
    settled.archive("s3")
    version = settled.look()["calibrate s3"].step.version
    assert version
    assert version.version == "1.1"
    assert settled.settle() == ["calibrate s3", "grid M17"]


@pytest.mark.parametrize("change", ["key", "cooldown", "revision_id", "id"])
def test_what_changes_no_result_is_not_part_of_the_recipe(settled: Model, change: str) -> None:
    step = settled.steps[1]
    before = step.recipe
    other = {"cooldown": timedelta(hours=1), "key": "other"}.get(change, 99)
    settled.change("grid", **{change: other})
    assert settled.steps[1].recipe == before


@pytest.mark.parametrize(
    "change",
    [
        {"group_by": ("source", "observing_night")},
        {"group_by": ("observing_night", "source")},
        {"upstream": ("calibrate", "baseline")},
        {"takes_raw": True},
        {"config_digest": "other"},
        {"software": "other"},
    ],
)
def test_what_changes_results_is_part_of_both_digests(settled: Model, change: dict[str, object]) -> None:
    before = settled.steps[1].recipe
    settled.change("grid", **change)
    after = settled.steps[1].recipe
    assert before
    assert after
    assert before.digest != after.digest
    assert before.series_digest != after.series_digest


def test_a_byte_identical_run_upstream_redoes_nothing_below(model: Model) -> None:
    model.stable = {"calibrate"}
    model.archive("s1")
    model.settle()
    model.release("calibrate", "2.0", series="2")
    assert model.settle() == ["calibrate s1"]


def test_a_new_package_that_changes_no_byte_upstream_redoes_nothing_below() -> None:
    model = Model(stable={"flag"})
    model.step("flag", ["night"])
    model.step("map", ["night"], after=["flag"])
    model.step("check", ["night"], after=["map"])
    model.archive("s1")
    assert model.settle() == ["flag 1", "map 1", "check 1"]
    model.archive("s2")
    assert model.settle() == ["flag 1"]
    assert model.verdict("check 1") is Verdict.UP_TO_DATE


@pytest.mark.parametrize("kind", [DataProductType.LOG, DataProductType.PLOT, DataProductType.STATISTICS])
def test_a_step_whose_products_are_no_inputs_does_not_make_what_follows_run_for_ever(
    model: Model, kind: DataProductType
) -> None:
    model.types["calibrate"] = kind
    model.archive("s1")
    assert model.settle() == ["calibrate s1", "grid M17"]
    model.archive("s2")
    assert model.settle() == ["calibrate s2"]


def test_the_cause_is_the_version_only_where_it_makes_the_difference(settled: Model) -> None:
    settled.release("grid", "1.1")
    assert settled.verdict("grid M17") is Verdict.UP_TO_DATE
    settled.change("grid", config_digest="sha256:other")
    assert settled.because("grid M17") == "recipe changed since run 3: config or definition"
    settled.release("grid", "2.0", series="2")
    assert settled.because("grid M17") == "recipe changed since run 3: version 1.0 → 2.0"


def test_what_leaves_by_a_relative_time_alone_makes_nothing_anew_but_the_next_run_goes_without_it(
    settled: Model,
) -> None:
    settled.fade("s1")
    assert {found.decision.verdict for found in settled.look().values()} == {Verdict.UP_TO_DATE}
    settled.archive("s3")
    assert settled.settle() == ["calibrate s3", "grid M17"]
    assert settled._covers(settled.runs[-1]) == {settled.packages[one].package.id for one in ("s2", "s3")}


class TestCooldown:
    def test_a_byte_identical_run_upstream_long_ago_does_not_shorten_the_next_rest(self) -> None:
        model = Model(stable={"calibrate"})
        model.step("calibrate", ["scan"])
        model.step("grid", ["source"], after=["calibrate"], rest=60)
        model.archive("s1")
        model.settle()
        model.end(model.begin("calibrate s1", force=True))
        model.wait(3600)
        model.archive("s2")
        model.complete("calibrate s2")
        assert model.verdict("grid M17") is Verdict.COOLING

    @pytest.fixture
    def model(self) -> Model:
        made = Model()
        made.step("grid", ["source"], rest=60)
        made.archive("s1")
        return made

    def test_it_runs_from_the_first_change(self, model: Model) -> None:
        model.wait(30)
        model.archive("s2")
        decision = model.look()["grid M17"].decision
        assert decision.verdict is Verdict.COOLING
        assert decision.due == START + timedelta(seconds=60)
        assert decision.because == "no run has completed yet; rests until 01:01:00"

    def test_it_is_over_at_its_end(self, model: Model) -> None:
        model.wait(60)
        decision = model.look()["grid M17"].decision
        assert (decision.verdict, decision.cut_off) == (Verdict.WANTED, model.now)

    def test_it_runs_from_the_creation_of_the_last_run_where_that_is_later(self, model: Model) -> None:
        model.wait(100)
        run = model.begin("grid M17")
        model.wait(1)
        model.archive("s2")
        model.wait(9)
        model.end(run)
        assert model.look()["grid M17"].decision.due == START + timedelta(seconds=161)
        model.wait(1000)
        assert model.look()["grid M17"].decision.cut_off == START + timedelta(seconds=161)

    @pytest.mark.parametrize("outcome", ["failed", "cancelled"])
    def test_after_a_run_that_was_given_up_it_runs_from_the_next_change(self, model: Model, outcome: str) -> None:
        model.wait(60)
        model.end(model.begin("grid M17"), outcome)
        model.wait(500)
        model.archive("s2")
        assert model.look()["grid M17"].decision.due == START + timedelta(seconds=620)

    def test_a_recipe_change_does_not_wait(self, model: Model) -> None:
        model.settle()
        model.change("grid", config_digest="other")
        assert model.wanted() == ["grid M17"]

    def test_a_corrected_recipe_does_not_wait_after_a_failure(self, model: Model) -> None:
        model.wait(60)
        model.fail("grid M17")
        model.wait(5)
        model.change("grid", config_digest="corrected")
        assert model.wanted() == ["grid M17"]

    def test_a_recipe_that_failed_before_waits_like_any_other(self, model: Model) -> None:
        model.settle()
        model.change("grid", config_digest="bad")
        model.fail("grid M17")
        model.archive("s2")
        assert model.verdict("grid M17") is Verdict.COOLING

    def test_a_change_far_in_the_past_waits_no_more(self, model: Model) -> None:
        model.wait(10_000)
        assert model.look()["grid M17"].decision.cut_off == START + timedelta(seconds=60)


class TestGivingUp:
    @pytest.mark.parametrize(
        ("outcome", "verdict", "because"),
        [
            ("failed", Verdict.FAILED, "run 1 with this recipe and these inputs failed: exit code 1"),
            ("cancelled", Verdict.CANCELLED, "run 1 with this recipe and these inputs was cancelled"),
        ],
    )
    def test_the_same_is_not_tried_again_by_itself(
        self, model: Model, outcome: str, verdict: Verdict, because: str
    ) -> None:
        model.archive("s1")
        model.end(model.begin("calibrate s1"), outcome)
        decision = model.look()["calibrate s1"].decision
        assert (decision.verdict, decision.because, decision.reason) == (verdict, because, RunReason.MISSING)
        assert model.settle() == []

    @pytest.mark.parametrize("outcome", ["failed", "cancelled"])
    def test_changed_inputs_reopen_it(self, settled: Model, outcome: str) -> None:
        settled.archive("s3")
        settled.complete("calibrate s3")
        settled.end(settled.begin("grid M17"), outcome)
        settled.archive("s4")
        assert settled.settle() == ["calibrate s4", "grid M17"]

    @pytest.mark.parametrize("outcome", ["failed", "cancelled"])
    def test_a_changed_recipe_reopens_it_even_within_a_series(self, model: Model, outcome: str) -> None:
        model.archive("s1")
        model.end(model.begin("calibrate s1"), outcome)
        model.release("calibrate", "1.1")
        assert model.wanted() == ["calibrate s1"]

    def test_what_failed_with_these_inputs_stays_failed_when_they_come_back(self, settled: Model) -> None:
        settled.archive("s3")
        settled.complete("calibrate s3")
        settled.fail("grid M17")
        settled.archive("s4")
        settled.complete("calibrate s4")
        settled.fail("grid M17")
        del settled.packages["s4"]
        assert settled.verdict("grid M17") is Verdict.FAILED

    def test_what_failed_once_and_completed_later_with_the_same_is_not_failed(self, model: Model) -> None:
        model.archive("s1")
        model.fail("calibrate s1")
        model.end(model.begin("calibrate s1", force=True))
        model.release("calibrate", "2.0", series="2")
        model.complete("calibrate s1")
        model.release("calibrate", "1.0")
        assert model.wanted() == ["calibrate s1"]


class TestReadiness:
    def test_a_map_waits_for_all_scans_that_were_there_at_its_cut_off(self, model: Model) -> None:
        model.archive("s1")
        model.archive("s2")
        model.complete("calibrate s1")
        found = model.look()["grid M17"]
        assert found.decision.verdict is Verdict.BLOCKED
        path = model.look()["calibrate s2"].name.path
        assert found.decision.because == f"waits for calibrate {path} (wanted)"
        run = model.begin("calibrate s2")
        assert model.because("grid M17") == f"waits for calibrate {path} (running)"
        model.end(run)
        assert model.wanted() == ["grid M17"]

    def test_scans_that_come_later_are_not_waited_for(self, model: Model) -> None:
        model.archive("s1")
        model.complete("calibrate s1")
        model.wait(1)
        model.archive("s2")
        assert "grid M17" in model.wanted()

    def test_a_stream_of_scans_never_starves_a_map(self) -> None:
        model = Model()
        model.step("calibrate", ["scan"])
        model.step("grid", ["source"], after=["calibrate"], rest=60)
        maps = 0
        for number in range(21):
            model.archive(f"s{number}")
            model.wait(10)
            if number:
                model.complete(f"calibrate s{number - 1}")
            if "grid M17" in model.wanted():
                model.complete("grid M17")
                maps += 1
        assert maps == 2

    def test_a_changed_recipe_waits_for_the_scans_that_were_there_when_it_changed(self, settled: Model) -> None:
        settled.archive("s3")
        settled.wait(1)
        settled.change("grid", config_digest="other")
        assert settled.verdict("grid M17") is Verdict.BLOCKED
        assert settled.settle() == ["calibrate s3", "grid M17"]

    def test_nor_one_whose_recipe_changed(self, settled: Model) -> None:
        settled.change("grid", config_digest="other")
        settled.wait(1)
        settled.archive("s3")
        assert "grid M17" in settled.wanted()

    def test_later_packages_of_a_coarse_step_do_not_block_what_needs_the_earlier_ones(self) -> None:
        model = Model()
        model.step("night", ["night"], rest=100)
        model.step("scan", ["scan"], after=["night"])
        model.step("map", ["source"], after=["scan"])
        model.archive("s1")
        model.settle()
        model.wait(10)
        model.change("map", config_digest="other")
        model.wait(10)
        model.archive("s2")
        verdicts = {one: model.verdict(one) for one in ("night 1", "scan s1", "scan s2", "map M17")}
        assert verdicts == {
            "night 1": Verdict.COOLING,
            "scan s1": Verdict.UP_TO_DATE,
            "scan s2": Verdict.BLOCKED,
            "map M17": Verdict.WANTED,
        }

    def test_a_new_package_waits_for_its_upstream_even_where_that_ran_long_before_without_it(self) -> None:
        model = Model()
        model.step("night", ["night"], rest=100)
        model.step("map", ["source"], after=["night"])
        model.archive("s1")
        model.archive("t1", source="Saturn", night="2")
        model.settle()
        model.archive("s2", night="2")
        assert model.verdict("map M17") is Verdict.BLOCKED
        assert model.settle() == ["night 2", "map M17", "map Saturn"]

    @pytest.mark.parametrize(("outcome", "word"), [("failed", "failed"), ("cancelled", "cancelled")])
    def test_a_scan_that_was_given_up_blocks_its_map_and_is_named(self, model: Model, outcome: str, word: str) -> None:
        model.archive("s1")
        model.archive("s2")
        model.complete("calibrate s1")
        model.end(model.begin("calibrate s2"), outcome)
        path = model.look()["calibrate s2"].name.path
        assert model.verdict("grid M17") is Verdict.BLOCKED
        assert model.because("grid M17") == f"waits for calibrate {path} ({word}); `ccat accept` lets it go without"

    def test_a_step_far_down_waits_too(self, model: Model) -> None:
        model.step("check", ["source"], after=["grid"])
        model.archive("s1")
        model.fail("calibrate s1")
        assert model.because("check M17").startswith("waits for grid M17-")

    def test_a_map_waits_where_a_scan_of_it_is_made_without_a_package_that_left(self) -> None:
        model = Model()
        model.step("night", ["night"], rest=50)
        model.step("map", ["source"], after=["night"])
        for scan in ("s1", "s2"):
            model.archive(scan)
        model.settle()
        del model.packages["s2"]
        model.change("map", config_digest="other")
        assert model.because("map M17").startswith("waits for night 1-")
        assert model.settle() == ["night 1", "map M17"]

    def test_without_a_released_version_nothing_starts_and_what_there_is_still_counts(self, settled: Model) -> None:
        settled.change("calibrate", version=None)
        assert settled.because("calibrate s1") == "waits for a version of calibrate-software to be released"
        settled.change("grid", config_digest="other")
        assert settled.settle() == ["grid M17"]
        settled.archive("s3")
        assert settled.settle() == []
        assert settled.because("grid M17").endswith("(blocked)")

    def test_a_pinned_version_that_is_not_released_is_named_so(self, settled: Model) -> None:
        settled.change("calibrate", version=None, policy=VersionPolicy.EXACT)
        assert settled.because("calibrate s1") == "waits for its pinned version of calibrate-software to be released"


class TestSteps:
    def test_one_release_redoes_the_map_once_and_not_once_per_scan(self, model: Model) -> None:
        for number in range(6):
            model.archive(f"s{number}")
        model.settle()
        model.release("calibrate", "2.0", series="2")
        assert model.settle() == [*(f"calibrate s{number}" for number in range(6)), "grid M17"]

    def test_a_release_in_the_middle_of_a_long_chain_redoes_only_what_is_below(self, model: Model) -> None:
        model.step("check", ["source"], after=["grid"])
        model.archive("s1")
        model.settle()
        model.release("grid", "2.0", series="2")
        assert model.settle() == ["grid M17", "check M17"]

    def test_a_coarser_upstream_gives_all_its_products_to_each_finer_sub_group(self) -> None:
        model = Model()
        model.step("sky", ["night"])
        model.step("map", ["source"], after=["sky"])
        model.archive("s1", night="1")
        model.archive("s2", night="2")
        model.archive("t1", night="2", source="Saturn")
        assert model.settle() == ["sky 1", "sky 2", "map M17", "map Saturn"]
        model.archive("t2", night="2", source="Saturn")
        assert model.settle() == ["sky 2", "map M17", "map Saturn"]

    def test_a_step_may_take_raw_packages_and_products(self, model: Model) -> None:
        model.step("both", ["source"], after=["calibrate"], raw=True)
        model.archive("s1")
        model.settle()
        found = model.look()["both M17"]
        assert (len(found.raw_package_ids), len(found.product_ids)) == (1, 1)

    def test_a_diamond_is_done_once(self) -> None:
        model = Model()
        model.step("calibrate", ["scan"])
        model.step("left", ["scan"], after=["calibrate"])
        model.step("right", ["scan"], after=["calibrate"])
        model.step("join", ["source"], after=["left", "right"])
        model.archive("s1")
        model.settle()
        model.release("calibrate", "2.0", series="2")
        assert model.settle() == ["calibrate s1", "left s1", "right s1", "join M17"]

    def test_without_dimensions_there_is_one_sub_group(self) -> None:
        model = Model()
        model.step("all")
        model.archive("s1")
        model.archive("t1", source="Saturn")
        assert model.settle() == ["all"]
