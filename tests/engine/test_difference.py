"""What two runs differ in, decided on values."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccat_ops_db.plan.difference import (
    Attempt,
    Change,
    Config,
    Difference,
    Kind,
    Made,
    Part,
    Snapshot,
    Software,
    Taken,
    Topic,
    difference,
)
from ccat_ops_db.plan.digests import Definition, auxiliary_rule, content_digest
from ccat_ops_db.plan.hiding import HIDDEN
from ccat_ops_db.states import DataProductType, InputRole, RunStatus

MAP = Made(path="science/map.fits", type=DataProductType.SCIENCE, checksum="sha256:1", metrics={"snr": 9.0})
LOG = Made(path="logs/log.txt", type=DataProductType.LOG, checksum="sha256:2", metrics={})
SCAN = Taken(role=InputRole.RAW, path="scan-1", checksum="sha256:3")
SPECTRUM = Taken(role=InputRole.UPSTREAM, step="calibrate", sub_group="M17", path="s.fits", checksum="sha256:4")
PARAMETERS = {"baseline": {"order": 3, "windows": [[0, 5], [9, 12]]}}


def attempt(directory: str, **environment: str) -> Attempt:
    return Attempt(
        directory=directory,
        host="ramses",
        command=["chai", "grid", "--out", f"/data/{directory}/output"],
        environment={"HOME": f"/data/{directory}/home", "CPU": "4", "WORKFLOW_RUN_ID": directory[-1], **environment},
    )


FIRST, SECOND = attempt("maps/grid/1", METHOD="fast"), attempt("maps/grid/2", METHOD="fast")
RUN = Snapshot(
    id=1,
    status=RunStatus.COMPLETED,
    finished_at=None,
    pipeline="maps",
    step="grid",
    sub_group={"source": "M17"},
    recipe_digest="sha256:a",
    software=Software(name="chai", version="1.0", series="1", content_digest="sha256:b"),
    config=Config("deep", 1, PARAMETERS, {"METHOD": "fast"}),
    definition=Definition(["source"], ["calibrate"], takes_raw=False),
    inputs=[SCAN, SPECTRUM],
    last_attempt=FIRST,
    products=[MAP, LOG],
    metrics={"rms_mk": 1.5},
)
FLAT = Taken(
    role=InputRole.AUXILIARY,
    name="flat",
    step="flat_field",
    sub_group="night",
    path="f.fits",
    checksum="sha256:7",
    made_by=4,
)
AGAIN = replace(RUN, id=2, last_attempt=SECOND)


def with_config(parameters: dict[str, Any], **environment: str) -> Snapshot:
    return replace(AGAIN, config=Config("deep", 2, parameters, environment), recipe_digest="sha256:other")


def changes(found: Difference) -> dict[Topic, tuple[Change, ...]]:
    """Changes of the topics that have any."""
    return {topic: part.changes for topic, part in found.parts.items() if part and part.changes}


def part(found: Difference, topic: Topic) -> Part:
    one = found.parts[topic]
    assert one is not None
    return one


def test_a_run_that_was_repeated_with_the_same_bytes_differs_in_nothing() -> None:
    found = difference(RUN, AGAIN)
    assert changes(found) == {}
    assert found.summary == "the same recipe and inputs; products are byte-identical"
    assert {topic: one.same for topic, one in found.parts.items() if one} == {
        Topic.PLACE: 3,
        Topic.SOFTWARE: 4,
        Topic.PARAMETERS: 5,
        Topic.VARIABLES: 1,
        Topic.DEFINITION: 4,
        Topic.INPUTS: 2,
        Topic.EXECUTION: 4,
        Topic.PRODUCTS: 1,
        Topic.LOGS: 1,
        Topic.METRICS: 2,
    }


def test_rules_for_auxiliary_inputs_differ_key_by_key() -> None:
    def by_flat(**window: float) -> Definition:
        rule = auxiliary_rule("flat", "calibration/flat", same=["source"], max_age=timedelta(**window))
        return replace(RUN.definition, auxiliary=[rule])

    found = difference(replace(RUN, definition=by_flat(hours=1)), replace(AGAIN, definition=by_flat(hours=2)))
    change = Change(Kind.CHANGED, ("auxiliary", "flat", "max_age"), 3600.0, 7200.0)
    assert changes(found) == {Topic.DEFINITION: (change,)}


@pytest.mark.parametrize(
    ("other", "topic", "change"),
    [
        (
            replace(AGAIN, sub_group={"source": "M51"}),
            Topic.PLACE,
            Change(Kind.CHANGED, ("sub_group", "source"), "M17", "M51"),
        ),
        (
            replace(AGAIN, software=replace(RUN.software, version="1.1")),
            Topic.SOFTWARE,
            Change(Kind.CHANGED, ("version",), "1.0", "1.1"),
        ),
        (
            with_config({"baseline": {"order": 3, "windows": [[0, 5], [9, 13]]}}, METHOD="fast"),
            Topic.PARAMETERS,
            Change(Kind.CHANGED, ("baseline", "windows", 1, 1), 12, 13),
        ),
        (
            with_config({**PARAMETERS, "mask": 1.5}, METHOD="fast"),
            Topic.PARAMETERS,
            Change(Kind.ADDED, ("mask",), None, 1.5),
        ),
        (
            with_config({"baseline": {"order": 3.0, "windows": [[0, 5], [9, 12]]}}, METHOD="fast"),
            Topic.PARAMETERS,
            Change(Kind.CHANGED, ("baseline", "order"), 3, 3.0),
        ),
        (
            replace(AGAIN, definition=Definition(["source", "night"], ["calibrate"], takes_raw=False)),
            Topic.DEFINITION,
            Change(Kind.CHANGED, ("group_by",), ["source"], ["source", "night"]),
        ),
        (
            replace(AGAIN, inputs=[SCAN, SPECTRUM, FLAT]),
            Topic.INPUTS,
            Change(Kind.ADDED, ("auxiliary", "flat", "flat_field", "night", "f.fits"), None, "sha256:7"),
        ),
        (
            replace(AGAIN, inputs=[SPECTRUM]),
            Topic.INPUTS,
            Change(Kind.REMOVED, ("raw", "scan-1"), "sha256:3", None),
        ),
        (
            replace(AGAIN, inputs=[SCAN, replace(SPECTRUM, checksum="sha256:5")]),
            Topic.INPUTS,
            Change(Kind.CHANGED, ("upstream", "calibrate", "M17", "s.fits"), "sha256:4", "sha256:5"),
        ),
        (
            replace(AGAIN, last_attempt=replace(SECOND, host="osiris")),
            Topic.EXECUTION,
            Change(Kind.CHANGED, ("host",), "ramses", "osiris"),
        ),
        (
            replace(AGAIN, products=[MAP, replace(LOG, checksum="sha256:6")]),
            Topic.LOGS,
            Change(Kind.CHANGED, ("logs/log.txt",), "sha256:2", "sha256:6"),
        ),
        (replace(AGAIN, metrics={"rms_mk": 2.0}), Topic.METRICS, Change(Kind.CHANGED, ("rms_mk",), 1.5, 2.0)),
        (
            replace(AGAIN, products=[replace(MAP, metrics={}), LOG]),
            Topic.METRICS,
            Change(Kind.REMOVED, ("science/map.fits", "snr"), 9.0, None),
        ),
    ],
)
def test_one_thing_that_differs_is_the_only_change(other: Snapshot, topic: Topic, change: Change) -> None:
    assert changes(difference(RUN, other)) == {topic: (change,)}


def test_a_variable_of_the_config_is_told_once() -> None:
    other = replace(with_config(PARAMETERS, METHOD="slow"), last_attempt=attempt("maps/grid/2", METHOD="slow"))
    found = changes(difference(RUN, other))
    assert found == {Topic.VARIABLES: (Change(Kind.CHANGED, ("METHOD",), "fast", "slow"),)}


SURPRISE = "the software writes other bytes each time, or depends on its host"
OTHER_RECIPE = replace(with_config({}, METHOD="slow"), software=replace(RUN.software, version="2.0", series="2"))


@pytest.mark.parametrize(
    ("other", "summary"),
    [
        (
            replace(OTHER_RECIPE, products=[replace(MAP, checksum="sha256:7"), LOG]),
            "another recipe (software, parameters, environment variables), the same inputs; the product differs",
        ),
        (
            replace(AGAIN, inputs=[SCAN], products=[MAP, replace(MAP, path="cube.fits"), LOG]),
            "the same recipe, other inputs; 1 of 2 products differs",
        ),
        (
            replace(AGAIN, sub_group={"source": "M51"}, step="check", inputs=[]),
            "another step, another sub-group, the same recipe, other inputs; products are byte-identical",
        ),
        (
            replace(AGAIN, products=[replace(MAP, checksum="sha256:7"), LOG]),
            f"the same recipe and inputs; yet the product differs: {SURPRISE}",
        ),
        (
            replace(AGAIN, status=RunStatus.FAILED, products=None),
            "the same recipe and inputs; products are not compared: run 2 has none (failed)",
        ),
        (
            replace(AGAIN, status=RunStatus.PENDING, inputs=None, last_attempt=None, products=None),
            "the same recipe, inputs that are not fixed yet; products are not compared: run 2 has none (pending)",
        ),
    ],
)
def test_one_sentence_says_what_matters(other: Snapshot, summary: str) -> None:
    assert difference(RUN, other).summary == summary


def test_of_an_input_that_changed_the_runs_are_named_that_made_it() -> None:
    old = replace(RUN, inputs=[SCAN, replace(SPECTRUM, made_by=5)])
    assert difference(old, replace(old, inputs=[replace(SPECTRUM, made_by=6)])).upstream is None
    newer = replace(SPECTRUM, made_by=6, checksum="sha256:8")
    assert difference(old, replace(old, inputs=[SCAN, newer])).upstream == (5, 6)


def test_what_a_run_does_not_have_yet_is_not_compared() -> None:
    waiting = replace(AGAIN, status=RunStatus.PENDING, inputs=None, last_attempt=None, products=None, metrics={})
    found = difference(RUN, waiting)
    assert changes(found) == {}
    nothing = {Topic.INPUTS, Topic.EXECUTION, Topic.PRODUCTS, Topic.LOGS, Topic.METRICS}
    assert {topic for topic, one in found.parts.items() if one is None} == nothing


@pytest.mark.parametrize(
    ("parameters", "environment"),
    [
        ({"archive": {"password": "hush", "user": "me"}}, {}),
        ({"apiKey": "hush"}, {}),
        ({"tokens": [["hush"], "x"]}, {}),
        ({"url": "https://me:hush@archive/data"}, {}),
        ({"url": "postgresql://me:o/hush@x@archive/data"}, {}),
        ({"dsn": "host=archive password = 'so hush' user=me"}, {}),
        ({"header": "Authorization: Bearer hush"}, {}),
        ({"header": "Authorization: Basic hush"}, {}),
        ({}, {"ARCHIVE_TOKEN": "hush"}),
        ({}, {"AWS_SECRET_ACCESS_KEY": "hush"}),
        ({}, {"S3_KEY": "hush"}),
        ({}, {"OPTIONS": "--verbose --password=hush"}),
    ],
)
def test_secrets_are_told_by_name_only(parameters: dict[str, Any], environment: dict[str, str]) -> None:
    found = difference(replace(RUN, config=None), with_config(parameters, **environment))
    assert part(found, Topic.PARAMETERS).changes + part(found, Topic.VARIABLES).changes
    assert "hush" not in repr(found)
    assert HIDDEN in repr(found)


def test_a_secret_that_differs_is_a_change_without_values() -> None:
    found = difference(with_config({}, TOKEN="hush"), with_config({}, TOKEN="new"))
    assert changes(found) == {Topic.VARIABLES: (Change(Kind.CHANGED, ("TOKEN",), HIDDEN, HIDDEN),)}


def test_secrets_on_the_command_line_and_in_the_environment_of_an_attempt_are_hidden() -> None:
    made = replace(SECOND, command=["chai", "--token", "hush", "-k", "--api-key=hush", "--user", "me"])
    made = replace(made, environment={"DATABASE": "redis://:hush@host", "MY_PASSWORD": "hush"})
    found = part(difference(RUN, replace(AGAIN, last_attempt=made)), Topic.EXECUTION)
    told = {one.path: one.new for one in found.changes if one.new is not None}
    assert told == {
        ("command",): ["chai", "--token", HIDDEN, "-k", f"--api-key={HIDDEN}", "--user", "me"],
        ("environment", "DATABASE"): f"redis://{HIDDEN}@host",
        ("environment", "MY_PASSWORD"): HIDDEN,
    }


leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
names = st.text("ab0", max_size=2)
documents = st.dictionaries(
    names,
    st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)),
    max_size=4,
)


@given(documents, documents)
def test_parameters_differ_exactly_where_their_digests_do(before: dict[str, Any], after: dict[str, Any]) -> None:
    found = part(difference(with_config(before), with_config(after)), Topic.PARAMETERS)
    assert (not found.changes) == (content_digest(before) == content_digest(after))


@given(documents, documents)
def test_the_other_way_round_the_same_changes_are_found(before: dict[str, Any], after: dict[str, Any]) -> None:
    there = part(difference(with_config(before), with_config(after)), Topic.PARAMETERS)
    back = part(difference(with_config(after), with_config(before)), Topic.PARAMETERS)
    mirror = {Kind.ADDED: Kind.REMOVED, Kind.REMOVED: Kind.ADDED, Kind.CHANGED: Kind.CHANGED}
    mirrored = [Change(mirror[one.kind], one.path, one.new, one.old) for one in back.changes]
    assert sorted(map(repr, there.changes)) == sorted(map(repr, mirrored))
    assert there.same == back.same
