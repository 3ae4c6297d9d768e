"""What a person reads whose file of definitions cannot be meant: `ccat apply` before it asks any database."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccat.cli import app, definitions, main
from ccat.cli.reading import read_yaml
from ccat_ops_db.grouping import paths
from ccat_ops_db.grouping.dimensions import dimensions

REPOSITORY = Path(__file__).parents[2]
NOTHING = " Nothing was applied.\n"
ENDLESS = "is no finite number, and JSON holds no other; text goes in quotes."


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of definitions, where no settings are at hand."""
    for name in list(os.environ):
        if name.startswith("CCAT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pipelines.yaml"


def refusal(file: Path, text: str) -> str:
    """What `ccat apply` says of a file that it refuses."""
    file.write_text(text)
    result = CliRunner().invoke(app, ["apply", "-f", str(file)])
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    return result.stderr


def limits(text: str) -> str:
    """A pipeline with these limits."""
    return step().replace("location:", f"limits: {text}, location:")


def step(**keys: object) -> str:
    """A pipeline of one step, with these keys besides."""
    said = {"key": "grid", "group_by": "[source]", "software": "gridder"} | keys
    lines = ", ".join(f"{key}: {value}" for key, value in said.items())
    return "pipelines: [{name: maps, grouping: all, location: cologne/ramses, steps: [{" + lines + "}]}]"


def rule(**keys: object) -> str:
    said = {"table": "Source", "column": "name", "operator": "eq", "value": "M17"} | keys
    return "groupings: [{name: some, rules: [{" + ", ".join(f"{key}: {value}" for key, value in said.items()) + "}]}]"


def cone(**keys: object) -> str:
    said = {"ra_deg": 1, "dec_deg": 1, "radius_deg": 1} | keys
    return "groupings: [{name: some, rules: [{cone: {" + ", ".join(f"{k}: {v}" for k, v in said.items()) + "}}]}]"


def version(**keys: object) -> str:
    said = {
        "version": "'1.0'",
        "series": "'1'",
        "command": "[grid]",
        "environment": "env",
        "distribution": "toy",
    } | keys
    text = ", ".join(f"{key}: {value}" for key, value in said.items() if value is not None)
    return "software: [{name: gridder, versions: [{" + text + "}]}]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("piplines: []", "file: unknown key `piplines`. Did you mean `pipelines`?"),
        *((text, "file: it must be a mapping.") for text in ("42", "false", "0", "[]", "''")),
        ("sources: {name: M17}", "sources: it must be a list."),
        (
            step(cooldown_secs=5),
            "pipelines[0].steps[0]: unknown key `cooldown_secs`. Did you mean `cooldown_seconds`?",
        ),
        (step(resources="{cpus: 2}"), "pipelines[0].steps[0].resources: unknown key `cpus`. Did you mean `cpu`?"),
        (
            "software: [{name: gridder, versions: [{versoin: '1.0'}]}]",
            (
                "software[0].versions[0].version: it is missing. software[0].versions[0].series: it is missing. "
                "software[0].versions[0].command: it is missing. "
                "software[0].versions[0]: unknown key `versoin`. Did you mean `version`?"
            ),
        ),
        (
            step(cooldown_seconds="soon"),
            "pipelines[0].steps[0].cooldown_seconds: it must be a whole number, without quotes.",
        ),
        (
            step(cooldown_seconds=-1),
            "pipelines[0].steps[0].cooldown_seconds: input should be greater than or equal to 0.",
        ),
        (
            step(cooldown_seconds=10**12),
            "pipelines[0].steps[0].cooldown_seconds: input should be less than or equal to 31622400.",
        ),
        (
            step(resources="{time_hours: .inf}"),
            "pipelines[0].steps[0].resources.time_hours: input should be less than or equal to 8784.",
        ),
        (
            step(resources="{memory_gb: .nan}"),
            "pipelines[0].steps[0].resources.memory_gb: input should be a finite number.",
        ),
        (
            step(version_policy="newest"),
            "pipelines[0].steps[0].version_policy: input should be 'exact', 'compatible' or 'latest'.",
        ),
        (
            step(version_policy="exact"),
            "pipelines[0].steps[0]: `version` is given with `version_policy: exact`, and only then.",
        ),
        (
            step(version="'1.0'"),
            "pipelines[0].steps[0]: `version` is given with `version_policy: exact`, and only then.",
        ),
        (
            step(version_policy="exact", version="one"),
            "pipelines[0].steps[0].version: `one` is no version by PEP 440, such as 1.2.0.",
        ),
        (
            step(inputs="[upstream]"),
            "pipelines[0].steps[0]: `inputs` names `upstream` where `depends_on` names a step, and only then.",
        ),
        *(
            (step(inputs=said), "pipelines[0].steps[0].inputs: it must be a list.")
            for said in ("raw", "true", "{raw: 1}")
        ),
        *(
            (
                step(inputs=f"[{said}]"),
                "pipelines[0].steps[0].inputs[0]: input should be 'raw', 'upstream', 'log', 'plot' or 'statistics'.",
            )
            for said in ("rawe", "Raw", "null", "5", "''")
        ),
        (step(inputs="[raw, raw]"), "pipelines[0].steps[0].inputs[1]: `raw` stands twice."),
        (
            step(key="a", depends_on="[b]", inputs="[upstream, raw, upstream]").replace(
                "steps: [", "steps: [{key: b, group_by: [], software: toy}, "
            ),
            "pipelines[0].steps[1].inputs[2]: `upstream` stands twice.",
        ),
        *(
            (step(depends_on=said), "pipelines[0].steps[0].depends_on: it must be a list.")
            for said in ("grid", "null", "{grid: 1}")
        ),
        *(
            (
                step(depends_on=f"[{said}]"),
                (
                    f"pipelines[0].steps[0].depends_on[0]: `{shown}` is no identifier: "
                    "lower-case letters, digits, `_`, `.` and `-` make one."
                ),
            )
            for said, shown in (("Grid", "Grid"), ("''", ""), ("../grid", "../grid"))
        ),
        (step(depends_on="[5]"), "pipelines[0].steps[0].depends_on[0]: 5 is a number here; write it in quotes."),
        (
            step(inputs="[]"),
            "pipelines[0].steps[0]: `inputs` is empty; leave it out, or name `raw`, `upstream` or both.",
        ),
        (
            step(inputs="[raw, log]"),
            "pipelines[0].steps[0]: `inputs` names `log`, which only a step that `depends_on` another takes.",
        ),
        (
            step(on_failed_input="skip"),
            "pipelines[0].steps[0].on_failed_input: input should be 'block' or 'omit'.",
        ),
        (
            step(on_failed_input="omit"),
            (
                "pipelines[0].steps[0]: `on_failed_input` is about what `depends_on` names, and it names nothing; "
                "leave it out."
            ),
        ),
        (
            step(readiness="available"),
            "pipelines[0].steps[0]: `readiness` is about what `depends_on` names, and it names nothing; leave it out.",
        ),
        (
            step(readiness="partial"),
            "pipelines[0].steps[0].readiness: input should be 'complete' or 'available'.",
        ),
        (
            step(min_fraction=0.5),
            "pipelines[0].steps[0]: `min_fraction` goes with `readiness: available`; write that too, or leave it out.",
        ),
        (
            step(min_fraction=0),
            "pipelines[0].steps[0].min_fraction: input should be greater than 0.",
        ),
        (
            step(min_fraction="80%"),
            "pipelines[0].steps[0].min_fraction: `80%` is no number: give a decimal number, such as 0.5.",
        ),
        (
            step(min_fraction=1.5),
            "pipelines[0].steps[0].min_fraction: input should be less than or equal to 1.",
        ),
        (
            step(wait_for="scan"),
            "pipelines[0].steps[0].wait_for: input should be 'scan_complete'.",
        ),
        (
            step(wait_for="scan_complete"),
            "pipelines[0].steps[0]: `wait_for: scan_complete` needs `executed_obs_unit` in `group_by`.",
        ),
        *(
            (step(group_by=said), "pipelines[0].steps[0].group_by: it must be a list.")
            for said in ("null", "source", "true", "{source: 1}", "''")
        ),
        (
            step().replace("group_by: [source], ", ""),
            "pipelines[0].steps[0].group_by: it is missing.",
        ),
        (step(group_by="[[source]]"), "pipelines[0].steps[0].group_by[0]: it must be text, not a list."),
        (step(group_by="[5]"), "pipelines[0].steps[0].group_by[0]: 5 is a number here; write it in quotes."),
        *(
            (
                step(group_by=f"[{said}, {said}, {said}]"),
                " ".join(f"pipelines[0].steps[0].group_by[{index}]: `{said}` stands twice." for index in (1, 2)),
            )
            for said in ("source", "ObsUnit.line_id")
        ),
        (
            step(group_by="[sources, observing_night, source, source]"),
            (
                "pipelines[0].steps[0].group_by[0]: there is no dimension `sources`. Did you mean `source`? "
                "pipelines[0].steps[0].group_by[3]: `source` stands twice."
            ),
        ),
        (
            step(depends_on="[grd, grid]"),
            (
                "pipelines[0].steps[0].depends_on[0]: there is no step `grd`. Did you mean `grid`? "
                "pipelines[0].steps: the steps depend on each other in a circle: grid → grid."
            ),
        ),
        (
            step(key="Grid it"),
            (
                "pipelines[0].steps[0].key: `Grid it` is no identifier: "
                "lower-case letters, digits, `_`, `.` and `-` make one."
            ),
        ),
        (
            "pipelines: [{name: maps, grouping: all, location: x, steps: []}]",
            "pipelines[0].steps: it is empty.",
        ),
        (
            """
pipelines:
  - name: maps
    grouping: all
    location: cologne/ramses
    steps:
      - {key: a, group_by: [], software: toy, depends_on: [c]}
      - {key: b, group_by: [], software: toy, depends_on: [a]}
      - {key: c, group_by: [], software: toy, depends_on: [b]}
      - {key: c, group_by: [], software: toy, depends_on: [b, b]}
""",
            (
                "pipelines[0].steps[3].key: `c` is used twice in pipeline `maps`. "
                "pipelines[0].steps[3].depends_on[1]: `b` stands twice. "
                "pipelines[0].steps: the steps depend on each other in a circle: a → b → c → a."
            ),
        ),
        (version(version=1.0), "software[0].versions[0].version: 1.0 is a number here; write it in quotes."),
        (version(series=1), "software[0].versions[0].series: 1 is a number here; write it in quotes."),
        (version(environment=None), "software[0].versions[0]: runtime process needs `environment`."),
        (version(image="chai"), "software[0].versions[0]: runtime process takes no `image`."),
        (version(runtime="apptainer"), "software[0].versions[0]: runtime apptainer needs `image`."),
        (
            version(state="old"),
            "software[0].versions[0].state: input should be 'released', 'retired' or 'withdrawn'.",
        ),
        (
            "sources: [{name: M17, ra_deg: 360, dec_deg: -91}]",
            (
                "sources[0].ra_deg: input should be less than 360. "
                "sources[0].dec_deg: input should be greater than or equal to -90."
            ),
        ),
        (
            "configs: [{name: a}, {name: b}, {name: a}]",
            "configs[2].name: `a` is defined twice.",
        ),
        (
            (
                "software: [{name: a, versions: ["
                "{version: '1.0', series: '1', command: [x], environment: e, distribution: d},"
                "{version: 1.0.0, series: '1', command: [x], environment: e, distribution: d}]}]"
            ),
            "software[0].versions[1].version: `1.0.0` is defined twice.",
        ),
        (
            (
                "observing_programs: [{short_name: A, observations: [{name: x, source: M17, obs_mode: OTF}]},"
                " {short_name: A, observations: [{name: x, source: M17, obs_mode: OTF}]}]"
            ),
            (
                "observing_programs[1].short_name: `A` is defined twice. "
                "observing_programs[1].observations[0].name: `x` is defined twice."
            ),
        ),
        (rule(table="Sorce"), "groupings[0].rules[0].table: there is no table `Sorce`. Did you mean `Source`?"),
        (
            rule(table="RawDataPackage", column="state", value="archved"),
            "groupings[0].rules[0].value: `archved` is no PackageState. Did you mean `archived`?",
        ),
        (
            rule(table="ExecutedObsUnit", column="started_at", operator="gt", value="2026-04-01"),
            "groupings[0].rules[0].value: `2026-04-01` has no time zone; write `2026-04-01T00:00:00Z` for UTC.",
        ),
        (
            "configs: [{name: a, parameters: {x: .nan}}]",
            f"configs[0].parameters: `x` {ENDLESS}",
        ),
        (
            "configs: [{name: a, parameters: {x: {y: [1, -.inf]}}}]",
            f"configs[0].parameters: `x.y[1]` {ENDLESS}",
        ),
        *(
            (
                f"groupings: [{{name: some, rules: [{{{key}: {{ra_deg: {said}, dec_deg: 1, radius_deg: 1}}}}]}}]",
                f"groupings[0].rules[0]: `{key}.ra_deg` {ENDLESS}",
            )
            for key, said in (("cone", ".nan"), ("cone", ".inf"), ("cone", "1e400"), ("with", ".nan"))
        ),
        *(
            (f"groupings: [{{name: some, rules: {said}}}]", "groupings[0].rules: it must be a list.")
            for said in ("null", "text", "{}", "{preset: by-source}")
        ),
        *(
            (f"groupings: [{{name: some, rules: [{said}]}}]", "groupings[0].rules[0]: it must be a mapping.")
            for said in ("null", "5", "[]", "M17")
        ),
        ("groupings: [{name: some}]", "groupings[0].rules: it is missing."),
        (
            cone(radius_deg=-1),
            "groupings[0].rules[0].cone.radius_deg: it is a number of degrees from 0 to 180, not -1.",
        ),
        (
            rule(table="RawDataPackage", column="metadata", json_path="$.a"),
            (
                "groupings[0].rules[0].json_path: it is names joined by dots, with numbers for items of lists, "
                'such as `spectra.0.frequency_ghz`, not "$.a". Did you mean `a`?'
            ),
        ),
        (
            rule(table="RawDataPackage", column="state", operator="gt", value="archived"),
            (
                "groupings[0].rules[0].operator: `gt` does not go with RawDataPackage.state, which holds one of "
                "`waiting`, `transferring`, `archived`, `failed`; these do: `eq`, `neq`, `in`, `not_in`, `is_null`."
            ),
        ),
        (
            "configs: [{name: a, environment: {N: 1}}]",
            "configs[0].environment.N: 1 is a number here; write it in quotes.",
        ),
        (
            "sources: [{name: M17}]\npipelines: [{name: maps, gruoping: all}]",
            (
                "sources[0].ra_deg: it is missing. sources[0].dec_deg: it is missing. "
                "pipelines[0].grouping: it is missing. pipelines[0].location: it is missing. "
                "pipelines[0].steps: it is missing. pipelines[0]: unknown key `gruoping`. Did you mean `grouping`?"
            ),
        ),
    ],
)
def test_every_problem_is_named_with_its_place(file: Path, text: str, message: str) -> None:
    assert refusal(file, text) == f"error: {message}{NOTHING}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("configs:\n  - name: a\n    name: b\n", ", line 3, column 5: not valid YAML: key `name` stands twice."),
        ("configs:\n  - {1: a}\n", ", line 2, column 6: not valid YAML: key `1` is no text, write it in quotes."),
        ("configs:\n  - {[a]: b}\n", ", line 2, column 6: not valid YAML: key `['a']` is no text, write it in quotes."),
        (
            "configs:\n  - &x {name: a}\n  - <<: *x\n",
            ", line 3, column 5: not valid YAML: `<<` is not read, write out what it stands for.",
        ),
        ("configs: []\nconfigs: []\n", ", line 2, column 1: not valid YAML: key `configs` stands twice."),
        *(
            (text, ", line 2, column 1: not valid YAML: another document begins here, write it to a file of its own.")
            for text in ("configs: []\n---\nconfigs: []\n", "configs: []\n--- {}", "---\n---\n")
        ),
        *(
            (text, f", {place}: not valid YAML: a tab stands here, write spaces.")
            for text, place in (
                ("\tconfigs: []", "line 1, column 1"),
                ("configs:\t[]", "line 1, column 9"),
                ("configs:\n\t- name: a\n", "line 2, column 1"),
                ("configs:\n  - name: a\n  \tparameters: {}\n", "line 3, column 3"),
            )
        ),
        (
            "configs: *x",
            (
                ", line 1, column 10: not valid YAML: `*x` refers to `&x`, which stands nowhere before, "
                "write text in quotes."
            ),
        ),
        ("configs: &x []\nsources: &x []", ", line 2, column 10: not valid YAML: anchor `&x` stands twice."),
        *(
            (
                f"configs: {mark}x",
                f', line 1, column 10: not valid YAML: nothing begins with "{mark}", write text in quotes.',
            )
            for mark in ("@", "`")
        ),
        *(
            (
                text,
                (
                    f", {place}: not valid YAML: no key can stand here, indent keys alike, "
                    "and write text with `: ` in quotes."
                ),
            )
            for text, place in (
                ("configs: a: b", "line 1, column 11"),
                ("configs:\n- name: a\n   x: 1\n", "line 3, column 5"),
                ("no key\nconfigs: []", "line 2, column 8"),
            )
        ),
        *(
            (text, f", {place}: not valid YAML: the file ends within a list, a mapping or a text, close it.")
            for text, place in (
                ("configs: [\n", "line 2, column 1"),
                ("configs: {", "line 1, column 11"),
                ("configs: 'x", "line 1, column 12"),
            )
        ),
        (
            "configs: ]",
            (
                ", line 1, column 10: not valid YAML: while parsing a block node "
                "expected the node content, but found ']'."
            ),
        ),
        ("configs: !mine x", ", line 1, column 10: not valid YAML: tag `!mine` is not read, write text in quotes."),
        (
            f"configs: 0x{'F' * 5000}",
            f", line 1, column 10: not valid YAML: `0x{'F' * 38}` is no int, write text in quotes.",
        ),
        ("configs: !!int many", ", line 1, column 10: not valid YAML: `many` is no int, write text in quotes."),
        ("configs: !!float much", ", line 1, column 10: not valid YAML: `much` is no float, write text in quotes."),
        ("configs: !!bool maybe", ", line 1, column 10: not valid YAML: `maybe` is no bool, write text in quotes."),
        ("configs: 0b_", ", line 1, column 10: not valid YAML: `0b_` is no int, write text in quotes."),
        (
            f"configs: {'9' * 5000}",
            f", line 1, column 10: not valid YAML: `{'9' * 40}` is no int, write text in quotes.",
        ),
        (
            "configs: [{name: a, parameters: &x {again: *x}}]",
            ", line 1, column 33: not valid YAML: it contains itself.",
        ),
        (
            "configs:\n"
            "  - &a0 [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"  - &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 7)),
            (
                ", line 6, column 5: not valid YAML: its aliases stand for more than 100,000 values, "
                "write out what is meant."
            ),
        ),
        (
            f"configs: {'[' * 101}{']' * 101}",
            ", line 1, column 10: not valid YAML: it is nested more than 100 levels deep.",
        ),
        *(
            (
                f"configs: {written}",
                (
                    f", line 1, column 10: not valid YAML: `{written}` begins with 0, as octal numbers do, "
                    "write the number without, or text in quotes."
                ),
            )
            for written in ("010", "-0_7", "08")
        ),
        ("configs: !!float 5:30", ", line 1, column 10: not valid YAML: `5:30` is no float, write text in quotes."),
        *(
            (
                f"configs: !!{kind} {written}",
                (
                    f", line 1, column 10: not valid YAML: `!!{kind}` is not read, "
                    "write text in quotes, a list or a mapping."
                ),
            )
            for kind, written in (("binary", "aGk="), ("set", "{a}"), ("omap", "[a: 1]"), ("pairs", "[a: 1]"))
        ),
        (
            "configs: !!python/object:os.system {}",
            ", line 1, column 10: not valid YAML: tag `python/object:os.system` is not read, write text in quotes.",
        ),
    ],
)
def test_what_is_no_plain_yaml_is_refused_with_its_line(file: Path, text: str, message: str) -> None:
    assert refusal(file, text) == f"error: {file}{message}{NOTHING}"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (r'sources: [{name: "De\0mo", ra_deg: 1, dec_deg: 1}]', "sources[0].name"),
        (r'configs: [{name: a, parameters: {x: [1, "a\0b"]}}]', "configs[0].parameters.x[1]"),
        (r'configs: [{name: a, parameters: {"a\0b": 1}}]', "configs[0].parameters[0]"),
        (r'sources: [{name: "\ud800", ra_deg: 1, dec_deg: 1}]', "sources[0].name"),
    ],
)
def test_text_that_no_database_keeps_is_refused_with_its_place(file: Path, text: str, place: str) -> None:
    assert refusal(file, text) == f"error: {place}: it has a character that cannot be kept.{NOTHING}"


TRUE = "YAML reads `yes`, `on` and `true` as true; write it in quotes."
FALSE = "YAML reads `no`, `off` and `false` as false; write it in quotes."
NULL = "`null` is no text: give some, in quotes where it is the word itself."
DEGREES = "give degrees as a decimal number, such as 82.5."
DECIMAL = "give a decimal number, such as 0.5."
BOOLEAN = "is neither true nor false: write `true` or `false`, without quotes."
PATTERN = "matches no product: give a path or pattern within the output, such as maps/*.fits."
VARIABLE = "is no name of an environment variable: it is not empty and has no `=`."
DIGEST = "is no digest: `sha256:` and 64 digits, each 0 to 9 or a to f, make one."
CONFIG = "pipelines[0].trigger_config"
STEP, VERSION, RULE = "pipelines[0].steps[0]", "software[0].versions[0]", "groupings[0].rules[0]"


def source(**keys: object) -> str:
    said = {"name": "M17", "ra_deg": 275.1, "dec_deg": -16.2} | keys
    return "sources: [{" + ", ".join(f"{key}: {value}" for key, value in said.items()) + "}]"


def image(**keys: object) -> str:
    """A version that is an image."""
    digest = f"sha256:{'0' * 64}"
    said = {"image": "chai", "image_digest": digest} | keys
    return version(runtime="apptainer", environment=None, distribution=None, **said)


def pipeline(keys: str) -> str:
    return step().replace("grouping: all", f"grouping: all, {keys}")


def program(keys: str) -> str:
    return f"observing_programs: [{{short_name: A, observations: [{{{keys}}}]}}]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (source(ra_deg="5:30"), f"sources[0].ra_deg: `5:30` is no number: {DEGREES}"),
        (source(dec_deg="-1:15"), f"sources[0].dec_deg: `-1:15` is no number: {DEGREES}"),
        (source(ra_deg="5:30:01.5"), f"sources[0].ra_deg: `5:30:01.5` is no number: {DEGREES}"),
        (source(ra_deg="12h30m"), f"sources[0].ra_deg: `12h30m` is no number: {DEGREES}"),
        (source(ra_deg="yes"), f"sources[0].ra_deg: `true` is no number: {DEGREES}"),
        (source(ra_deg="null"), f"sources[0].ra_deg: `null` is no number: {DEGREES}"),
        (source(ra_deg="[1]"), f"sources[0].ra_deg: a list is no number: {DEGREES}"),
        (source(ra_deg="'0.5'"), "sources[0].ra_deg: `0.5` is text here; write it without quotes."),
        (
            cone(ra_deg="5:30"),
            f'{RULE}.cone.ra_deg: it is a number of degrees from 0 to 360, not "5:30".',
        ),
        (
            step(resources="{memory_gb: 8, max_memory_gb: 4}"),
            f"{STEP}.resources: `max_memory_gb` is less than `memory_gb`, which the first attempt asks for; raise it.",
        ),
        (step(resources="{time_hours: true}"), f"{STEP}.resources.time_hours: `true` is no number: {DECIMAL}"),
        (step(resources="{memory_gb: '2'}"), f"{STEP}.resources.memory_gb: `2` is text here; write it without quotes."),
        (step(min_fraction="yes"), f"{STEP}.min_fraction: `true` is no number: {DECIMAL}"),
        (pipeline("enabled: 1"), f"pipelines[0].enabled: `1` {BOOLEAN}"),
        (pipeline("enabled: 'off'"), f"pipelines[0].enabled: `off` {BOOLEAN}"),
        (pipeline("enabled: maybe"), f"pipelines[0].enabled: `maybe` {BOOLEAN}"),
        (pipeline("enabled: null"), f"pipelines[0].enabled: `null` {BOOLEAN}"),
        (pipeline("enabled: {}"), f"pipelines[0].enabled: a mapping {BOOLEAN}"),
    ],
)
def test_only_a_number_is_a_number_and_only_true_and_false_are_that(file: Path, text: str, message: str) -> None:
    assert refusal(file, text) == f"error: {message}{NOTHING}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (source(name="null"), f"sources[0].name: {NULL}"),
        (source(name="yes"), f"sources[0].name: {TRUE}"),
        (source(name="[M17]"), "sources[0].name: it must be text, not a list."),
        (source(name=9**60), f"sources[0].name: {str(9**60)[:40]} is a number here; write it in quotes."),
        (step(group_by="[null]"), f"{STEP}.group_by[0]: {NULL}"),
        (step(group_by="[yes]"), f"{STEP}.group_by[0]: {TRUE}"),
        (pipeline("trigger: cron, trigger_config: {cron: null}"), f"{CONFIG}.cron: {NULL}"),
        (
            pipeline("trigger: cron, trigger_config: {cron: 1 1 * * *, time_zone: null}"),
            f"{CONFIG}.time_zone: {NULL}",
        ),
        ("configs: [{name: a, environment: {N: true}}]", f"configs[0].environment.N: {TRUE}"),
        ("configs: [{name: a, environment: {N: off}}]", f"configs[0].environment.N: {FALSE}"),
        (image(image_digest="'sha256:abc'"), f"{VERSION}.image_digest: `sha256:abc` {DIGEST}"),
        (
            image(image="'shub://chai'"),
            (
                f"{VERSION}: `shub:` brings no image: it is the path of a SIF file, or begins with "
                "docker://, oras://, library://, https://, http://."
            ),
        ),
        (image(image="'docker:chai'"), f"{VERSION}: `docker:chai` names no image: write docker://PLACE/NAME."),
        (
            image(image=f"'docker://quay.example/chai@sha256:{'1' * 64}'"),
            f"{VERSION}: the image is pinned to sha256:{'1' * 64}, and `image_digest` says sha256:{'0' * 64}.",
        ),
        (f"configs: [{{name: {'a' * 101}}}]", "configs[0].name: it is longer than 100 characters."),
        (version(version=f"'1.{'9' * 5000}'"), f"{VERSION}.version: it is longer than 100 characters."),
        (rule(value="NO"), f"{RULE}.value: the column holds text, not false. {FALSE}"),
        (
            rule(table="RawDataPackage", column="state", value="on"),
            f"{RULE}.value: `true` is no PackageState. {TRUE}",
        ),
        (
            "groupings: [{name: some, rules: [{preset: by-source, with: {source: NO}}]}]",
            f"{RULE}.with.source: it is text, not false. {FALSE}",
        ),
        (
            "groupings: [{name: some, rules: [{presett: by-source}]}]",
            f"{RULE}.presett: a rule has no key `presett`. Did you mean `preset`?",
        ),
    ],
)
def test_what_is_no_text_is_told_so_in_words_of_the_file(file: Path, text: str, message: str) -> None:
    assert refusal(file, text) == f"error: {message}{NOTHING}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            step(required_outputs="['', /etc/passwd, ../x, maps/, ./x]"),
            " ".join(
                f"{STEP}.required_outputs[{index}]: `{pattern}` {PATTERN}"
                for index, pattern in enumerate(["", "/etc/passwd", "../x", "maps/", "./x"])
            ),
        ),
        (
            version(command="['', x]"),
            f"{VERSION}.command: its first word is empty; it names the program, such as [make-map, --fast].",
        ),
        (version(command="[]"), f"{VERSION}.command: it is empty."),
        (version(environment="''"), f"{VERSION}.environment: it is empty."),
        (version(distribution="' '"), f"{VERSION}.distribution: it is empty."),
        (version(series="''"), f"{VERSION}.series: it is empty."),
        (image(image="''"), f"{VERSION}.image: it is empty."),
        (source(name="''"), "sources[0].name: it is empty."),
        ("observing_programs: [{short_name: ''}]", "observing_programs[0].short_name: it is empty."),
        (
            program("name: '', source: '', obs_mode: ''"),
            " ".join(
                f"observing_programs[0].observations[0].{key}: it is empty." for key in ("name", "source", "obs_mode")
            ),
        ),
        ("configs: [{name: a, environment: {'': x}}]", f"configs[0].environment: `` {VARIABLE}"),
        ("configs: [{name: a, environment: {A=B: x}}]", f"configs[0].environment: `A=B` {VARIABLE}"),
    ],
)
def test_what_can_never_work_is_refused(file: Path, text: str, message: str) -> None:
    assert refusal(file, text) == f"error: {message}{NOTHING}"


@pytest.mark.parametrize(
    "text",
    [
        source(ra_deg="1e2", dec_deg="-.5"),
        source(ra_deg=82),
        limits("{redo_between: {from: 22:00, to: 05:30}}"),
        pipeline("enabled: yes, priority: -7"),
        step(required_outputs="[map.fits, '**/*.h5', 'maps/*']"),
        version(command="[toy, '']"),
        "null",
        "# nothing yet",
        "",
        "---\n",
        "---\nconfigs: []\n...\n",
        "\N{BYTE ORDER MARK}configs: []\r\nsources: []\r\n",
        step(group_by="[]"),
        "groupings: [{name: some, rules: []}]",
    ],
)
def test_what_is_meant_so_is_taken(file: Path, text: str) -> None:
    assert refusal(file, text).startswith("error: CCAT_OPS_DB_URL: no operations database is named")


def test_numbers_are_read_as_people_write_them_and_nothing_else_is_one(file: Path) -> None:
    file.write_text("[1e-3, 1.5E3, +.5, 1_000, 0x1F, 0b11, 5:30, 1:30.5, 22:00, 0o17, 2026-04-01, 0, -0, 0.5, 00:30]")
    expected = [1e-3, 1.5e3, 0.5, 1000, 31, 3, "5:30", "1:30.5", "22:00", "0o17", "2026-04-01", 0, 0, 0.5, "00:30"]
    assert read_yaml(file) == expected


@pytest.mark.parametrize("example", sorted((REPOSITORY / "pipelines").rglob("*.yaml")), ids=lambda one: one.name)
def test_what_is_shipped_is_taken(file: Path, example: Path) -> None:
    assert refusal(file, example.read_text()).startswith("error: CCAT_OPS_DB_URL: no operations database is named")


UNREADABLE = "argument `M?7` has bytes that are no UTF-8; type it anew"


@pytest.mark.parametrize(
    "words",
    [["plan"], ["gap"], ["trigger", "--plan"], ["trigger", "it", "--because"], ["pause", "--all", "--because"]],
)
@pytest.mark.parametrize(
    ("options", "told"),
    [([], f"error: {UNREADABLE}\n"), (["--json"], f'{{"code": "usage", "message": "{UNREADABLE}"}}\n')],
)
def test_an_argument_that_is_no_text_is_refused_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], options: list[str], told: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["ccat", *words, os.fsdecode(b"M\xff7"), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr()) == (2, ("", told))


def test_a_preset_is_refused_with_its_place_in_the_file(file: Path) -> None:
    said = refusal(file, "groupings: [{name: some, rules: [{preset: by-sauce, with: {source: M17}}]}]")
    assert said == (
        f"error: groupings[0].rules[0].preset: there is no preset `by-sauce`. Did you mean `by-source`?{NOTHING}"
    )
    preset = "{preset: between-nights, with: {first: 2026-04-02, last: 2026-04-01}}"
    said = refusal(file, f"groupings: [{{name: some, rules: [{{any: [{preset}]}}]}}]")
    assert said == (
        "error: groupings[0].rules[0].any[0].with: the lower end comes first: "
        f'["2026-04-02", "2026-04-01"] is an empty range.{NOTHING}'
    )


def test_where_nothing_is_preferred_an_ambiguous_table_is_refused_with_the_choices(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dimensions()  # which are kept, and should not be those of this test
    monkeypatch.setattr(paths, "_PREFERRED", {})
    monkeypatch.setattr(paths, "paths", paths.paths.__wrapped__)
    monkeypatch.setattr(definitions, "catalogue", paths.catalogue.__wrapped__)
    told = (
        "error: groupings[0].rules[0].table: several ways lead to `Telescope`; say which one is meant: "
        f"`ExecutedObsUnit.Telescope` or `InstrumentModule.Instrument.Telescope`.{NOTHING}"
    )
    assert refusal(file, rule(table="Telescope")) == told
    said = refusal(file, rule(table="ExecutedObsUnit.Telescope"))
    assert said.startswith("error: CCAT_OPS_DB_URL: no operations database is named")


def test_what_is_nested_too_deeply_is_refused(file: Path) -> None:
    assert refusal(file, "[" * 3000) == f"error: {file}: it is nested too deeply.{NOTHING}"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sources", " Did you mean `source`?"),
        ("Source", " Did you mean `source`?"),
        ("Observing_Night", " Did you mean `observing_night`?"),
        ("' source'", " Did you mean `source`?"),
        ("Source.nam", " Did you mean `Source.name`?"),
        ("source.name", " Did you mean `Source.name`?"),
        ("''", f" Known: {', '.join(f'`{name}`' for name in sorted(dimensions()) if '.' not in name)}."),
        ("ObsUnit.lineid", " Did you mean `ObsUnit.line_id`?"),
        ("weather", f" Known: {', '.join(f'`{name}`' for name in sorted(dimensions()) if '.' not in name)}."),
    ],
)
def test_a_dimension_that_does_not_exist_is_refused_with_what_may_be_meant(file: Path, name: str, hint: str) -> None:
    said = name.strip("'")
    told = f"error: pipelines[0].steps[0].group_by[0]: there is no dimension `{said}`.{hint}"
    assert refusal(file, step(group_by=f"[{name}]")) == told + NOTHING


NEEDS = '`trigger: cron` needs one, such as {cron: "30 18 * * *", time_zone: America/Santiago}.'
FIELDS = "5 fields make one (minute, hour, day of the month, month, day of the week), such as `30 18 * * *`."


def takes(values: str, most: int) -> str:
    return f"of a cron expression: it takes `*`, {values}, ranges `a-b`, steps `*/n` of 1 to {most}, and lists `a,b`."


MINUTE = f"minute {takes('0 to 59', 60)}"
HOUR = f"hour {takes('0 to 23', 24)}"
DAY = f"day of the month {takes('1 to 31, `L`, `LW`', 31)}"
MONTH = f"month {takes('1 to 12, `JAN` to `DEC`', 12)}"
WEEKDAY = f"day of the week {takes('0 to 7, `SUN` to `SAT`, `5L`, `MON#2`', 7)}"
PLACE = "Name the place whose clocks are meant, such as `America/Santiago`, or `UTC`."


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("trigger: crn", "pipelines[0].trigger: input should be 'continuous', 'cron' or 'manual'."),
        ("trigger: crn, trigger_config: {}", "pipelines[0].trigger: input should be 'continuous', 'cron' or 'manual'."),
        ("trigger: cron", f"{CONFIG}: {NEEDS}"),
        ("trigger: cron, trigger_config: {}", f"{CONFIG}: {NEEDS}"),
        ("trigger: cron, trigger_config: daily", f"{CONFIG}: it must be a mapping."),
        ("trigger: cron, trigger_config: 0", f"{CONFIG}: it must be a mapping."),
        ("trigger: cron, trigger_config: {time_zone: UTC}", f"{CONFIG}.cron: it is missing."),
        ("trigger: cron, trigger_config: {cron: 5}", f"{CONFIG}.cron: 5 is a number here; write it in quotes."),
        (
            "trigger: cron, trigger_config: {cron: 30 18 * * *, timezone: UTC}",
            f"{CONFIG}: unknown key `timezone`. Did you mean `time_zone`?",
        ),
        *(
            (
                f"trigger: cron, trigger_config: {{cron: '{said}'}}",
                f"{CONFIG}.cron: `{said}` is no cron expression: {FIELDS}",
            )
            for said in ("", " ", "@daily", "daily", "30 18 * *", "0 30 18 * * *", "30 18", "30,18,*,*,*")
        ),
        *(
            (f"trigger: cron, trigger_config: {{cron: '{said} * * * *'}}", f"{CONFIG}.cron: `{said}` is no {MINUTE}")
            for said in (
                "60",
                "-1",
                "5-1",
                "*/0",
                "*/61",
                "*/100",
                "5/100",
                "0,*/100",
                "*/-5",
                "*/",
                "1,",
                "?",
                "a",
                "1.5",
            )
        ),
        *(
            (f"trigger: cron, trigger_config: {{cron: '30 {said} * * *'}}", f"{CONFIG}.cron: `{said}` is no {HOUR}")
            for said in ("24", "25", "20-4", "*/0", "*/25", "18:30")
        ),
        *(
            (f"trigger: cron, trigger_config: {{cron: '30 18 {said} * *'}}", f"{CONFIG}.cron: `{said}` is no {DAY}")
            for said in ("0", "32", "*/32", "L/2", "lw/2", "1,L/2", "L-3", "5#1")
        ),
        *(
            (f"trigger: cron, trigger_config: {{cron: '30 18 * {said} *'}}", f"{CONFIG}.cron: `{said}` is no {MONTH}")
            for said in ("0", "13", "*/13", "Januar", "MON")
        ),
        *(
            (f"trigger: cron, trigger_config: {{cron: '30 18 * * {said}'}}", f"{CONFIG}.cron: `{said}` is no {WEEKDAY}")
            for said in ("8", "*/8", "1-5/9", "MO", "monday", "JAN", "L", "MONL", "5#6", "5#1/2", "FRI-MON")
        ),
        (
            "trigger: cron, trigger_config: {cron: 30 18 * Sept *, time_zone: Europe/Berln}",
            (
                f"{CONFIG}.cron: `Sept` is no {MONTH} "
                f"{CONFIG}.time_zone: there is no time zone `Europe/Berln`. Did you mean `Europe/Berlin`?"
            ),
        ),
        ("trigger: cron, trigger_config: {cron: [30 18 * * *]}", f"{CONFIG}.cron: it must be text, not a list."),
        *(
            (
                f"trigger: cron, trigger_config: {{cron: 30 18 * * *, time_zone: '{said}'}}",
                f"{CONFIG}.time_zone: there is no time zone `{said}`. {hint}",
            )
            for said, hint in (
                *(
                    (said, PLACE)
                    for said in ("", "CEST", "GMT+1", "+02:00", "../..", "/etc/passwd", "localtime", "qqq")
                ),
                ("utc", "Did you mean `UTC`?"),
                ("europe/berlin", "Did you mean `Europe/Berlin`?"),
                ("Berlin", "Did you mean `Europe/Berlin`?"),
            )
        ),
        (
            "trigger: cron, trigger_config: {cron: 30 18 * * *, time_zone: 1}",
            f"{CONFIG}.time_zone: 1 is a number here; write it in quotes.",
        ),
        (
            "trigger: cron, trigger_config: {cron: 0 0 30 2 *, time_zone: America/Santiago}",
            f"{CONFIG}: `0 0 30 2 *` never comes true on the clocks of America/Santiago.",
        ),
        (
            "trigger: cron, trigger_config: {cron: 30 18 * * *, time_zone: america/santigo}",
            f"{CONFIG}.time_zone: there is no time zone `america/santigo`. Did you mean `America/Santiago`?",
        ),
        (
            "trigger: manual, trigger_config: {cron: 30 18 * * *}",
            f"{CONFIG}: `trigger: manual` takes none; leave it out, or write `trigger: cron`.",
        ),
        (
            "trigger_config: {cron: 30 18 * * *}",
            f"{CONFIG}: `trigger: continuous` takes none; leave it out, or write `trigger: cron`.",
        ),
    ],
)
def test_a_trigger_and_its_schedule_are_refused_with_their_place(file: Path, keys: str, message: str) -> None:
    assert refusal(file, step().replace("grouping: all", f"grouping: all, {keys}")) == f"error: {message}{NOTHING}"


NO_TEXT = "it is no text in UTF-8; save it as such."


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (b"\xff\xfe\x00", f", line 1: {NO_TEXT}"),
        ("configs: []".encode("utf-16"), f", line 1: {NO_TEXT}"),
        ("configs: []\n# Universität zu Köln\n".encode("latin-1"), f", line 2: {NO_TEXT}"),
        (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3", f", line 2: {NO_TEXT}"),
        *(
            (
                b"configs: []\n# \xc3\xa4\n" + bytes([byte]),
                (
                    f", line 3: not valid YAML: control character {byte:#x} is not allowed, "
                    "write an escape in double quotes."
                ),
            )
            for byte in (0, 7, 27)
        ),
    ],
)
def test_a_file_that_is_no_text_is_refused_with_its_line(file: Path, written: bytes, message: str) -> None:
    file.write_bytes(written)
    result = CliRunner().invoke(app, ["apply", "-f", str(file)])
    assert (result.exit_code, result.stderr) == (1, f"error: {file}{message}{NOTHING}")


def test_a_program_gets_the_same_as_json(file: Path) -> None:
    file.write_text("piplines: []")
    result = CliRunner().invoke(app, ["apply", "-f", str(file), "--json"])
    assert result.exit_code == 1
    assert result.stderr == (
        '{"code": "invalid_definition", "message": '
        '"file: unknown key `piplines`. Did you mean `pipelines`? Nothing was applied."}\n'
    )


def test_the_process_ends_with_one_line(file: Path) -> None:
    file.write_text(step(cooldown_secs=5))
    command = [sys.executable, "-m", "ccat", "apply", "-f", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=file.parent)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: pipelines[0].steps[0]: unknown key `cooldown_secs`.")
    assert ended.stderr.count("\n") == 1


def test_without_a_database_the_setting_is_named(file: Path) -> None:
    assert refusal(file, "").startswith("error: CCAT_OPS_DB_URL: no operations database is named")


WINDOW = "pipelines[0].limits.redo_between"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{lives: 3}", "pipelines[0].limits: unknown key `lives`. Did you mean `live`?"),
        ("{live: 0}", "pipelines[0].limits.live: input should be greater than or equal to 1."),
        ("{redo_live: -1}", "pipelines[0].limits.redo_live: input should be greater than or equal to 1."),
        (
            "{created_per_minute: 1.5}",
            ("pipelines[0].limits.created_per_minute: it must be a whole number, without quotes."),
        ),
        (
            "{live: 2, redo_live: 3}",
            "pipelines[0].limits: `redo_live` is more than `live`, of which it is a part; leave it out, or lower it.",
        ),
        *(
            (f"{{{key}: {value}}}", f"pipelines[0].limits.{key}: it must be a whole number, without quotes.")
            for key in ("live", "redo_live", "created_per_minute")
            for value in ("yes", "'5'", "1.0", "five", "[1]")
        ),
        *(
            (f"{{{key}: {10**9 + 1}}}", f"pipelines[0].limits.{key}: input should be less than or equal to {10**9}.")
            for key in ("live", "redo_live", "created_per_minute")
        ),
        ("{live: 99999999999999999999}", f"pipelines[0].limits.live: input should be less than or equal to {10**9}."),
        ("3", "pipelines[0].limits: it must be a mapping."),
        (
            '{redo_between: {from: "1\N{ARABIC-INDIC DIGIT THREE}:00", to: "09:00"}}',
            f'{WINDOW}.from: `1\N{ARABIC-INDIC DIGIT THREE}:00` is no time of the day: "00:00" to "23:59".',
        ),
        (
            '{redo_between: {from: 99999, to: "09:00"}}',
            f'{WINDOW}.from: 99999 is no time of the day; write it with minutes and in quotes, such as "22:00".',
        ),
        (
            '{redo_between: {from: 9, to: "10:00"}}',
            f'{WINDOW}.from: 9 is no time of the day; write it with minutes and in quotes, such as "09:00".',
        ),
        ('{redo_between: {from: true, to: "09:00"}}', f"{WINDOW}.from: {TRUE}"),
        ('{redo_between: {from: "08:00"}}', f"{WINDOW}.to: it is missing."),
        (
            '{redo_between: {frm: "08:00", to: "09:00"}}',
            f"{WINDOW}.from: it is missing. {WINDOW}: unknown key `frm`. Did you mean `from`?",
        ),
        (
            '{redo_between: {from: "8:00", to: "09:00"}}',
            f'{WINDOW}.from: `8:00` is no time of the day: "00:00" to "23:59".',
        ),
        (
            '{redo_between: {from: "08:00", to: "24:00"}}',
            f'{WINDOW}.to: `24:00` is no time of the day: "00:00" to "23:59".',
        ),
        (
            '{redo_between: {from: "08:00", to: "08:00"}}',
            f"{WINDOW}: `from` and `to` are the same; leave the window out where any time will do.",
        ),
        (
            '{redo_between: {from: "08:00", to: "18:00", time_zone: America/Santjago}}',
            f"{WINDOW}.time_zone: there is no time zone `America/Santjago`. Did you mean `America/Santiago`?",
        ),
    ],
)
def test_limits_that_cannot_be_meant(file: Path, text: str, message: str) -> None:
    assert " ".join(refusal(file, limits(text)).split()) == f"error: {message}{NOTHING.rstrip()}"


@pytest.mark.parametrize(
    ("text", "place", "least", "most"),
    [
        (
            lambda value: step().replace("grouping: all", f"grouping: all, priority: {value}"),
            "priority",
            -(10**9),
            10**9,
        ),
        (lambda value: step(retention_days=value), "steps[0].retention_days", 0, 36_600),
        (lambda value: step(max_retries=value), "steps[0].max_retries", 0, 1_000),
        (lambda value: step(resources=f"{{cpu: {value}}}"), "steps[0].resources.cpu", 1, 10**9),
        (lambda value: step(cooldown_seconds=value), "steps[0].cooldown_seconds", 0, 366 * 86_400),
    ],
)
def test_numbers_that_count_are_whole_and_of_a_size_that_can_be_kept(
    file: Path, text: Callable[[object], str], place: str, least: int, most: int
) -> None:
    for value in ("yes", "'5'", "1.0"):
        told = f"error: pipelines[0].{place}: it must be a whole number, without quotes."
        assert refusal(file, text(value)) == told + NOTHING
    for number, side in ((least - 1, f"greater than or equal to {least}"), (most + 1, f"less than or equal to {most}")):
        assert refusal(file, text(number)) == f"error: pipelines[0].{place}: input should be {side}.{NOTHING}"


@pytest.mark.parametrize(
    ("products", "told"),
    [
        ("intermediate", "says `products: intermediate`, and only final products are archived; take `archive` away"),
        (None, "is depended on by other steps, and only final products are archived; say `products: final` too, or"),
    ],
)
def test_only_what_is_final_is_archived(file: Path, products: str | None, told: str) -> None:
    said = {"archive": "true"} | ({"products": products} if products else {})
    follows = ", {key: combine, group_by: [source], software: gridder, depends_on: [grid]}]}]"
    text = step(**said).removesuffix("]}]") + follows
    refused = refusal(file, text)
    assert f"pipelines[0].steps: step `grid` says `archive: true`, but {told}" in refused


def test_archive_is_a_switch(file: Path) -> None:
    assert "steps[0].archive: " in refusal(file, step(archive="'yes'"))


@pytest.mark.parametrize(
    ("products", "follows", "told"),
    [
        (None, False, "no step depends on it that would have its products made again"),
        ("intermediate", False, "no step depends on it that would have its products made again"),
        ("final", True, "its products are final: they are kept for people, and go only as `retention_days` says"),
    ],
)
def test_only_what_is_intermediate_and_taken_is_made_again(
    file: Path, products: str | None, told: str, *, follows: bool
) -> None:
    text = step(recompute="true", **({"products": products} if products else {}))
    if follows:
        text = text.removesuffix("]}]") + ", {key: combine, group_by: [], software: gridder, depends_on: [grid]}]}]"
    refused = refusal(file, text)
    assert refused == (
        f"error: pipelines[0].steps: step `grid` says `recompute: true`, but {told}; take `recompute` away.{NOTHING}"
    )


def test_recompute_is_a_switch(file: Path) -> None:
    assert "steps[0].recompute: " in refusal(file, step(recompute="'yes'"))
