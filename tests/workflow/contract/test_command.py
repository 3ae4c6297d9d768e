"""`ccat contract test` as a team uses it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from typer.testing import CliRunner, Result

from ccat.cli import app
from ccat.cli.errors import run_for_programs
from ccat_ops_db.definitions.document import SoftwareVersion
from ccat_workflow_manager.contract.values import Point, Trial
from tests.apptainer import OPTIONS
from tests.end_to_end.installation import REPOSITORY
from tests.workflow.contract.conftest import GOOD
from tests.workflow.verbs.works import eventually

README = (REPOSITORY / "pipelines/README.md").read_text()
PAGE = README.partition("## Does it keep the contract?")[2].partition("\n## ")[0]


def say(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["contract", "test", *map(str, words)])


def of_json(*words: str | Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(say("--json", *words).stdout)
    return told


def test_people_read_a_line_for_each_point_and_what_it_comes_to() -> None:
    said = say("--", "/bin/sh", "-c", GOOD)
    assert said.exit_code == 0, said.output
    title, header, *lines = said.stdout.splitlines()
    assert (title, header.split()[:2]) == ("Does it keep the contract?", ["point", "verdict"])
    rows = [line for line in lines[:-1] if not line.startswith(" ")]
    assert [line.split("  ")[0].replace(" ", "_") for line in rows] == list(Point)
    assert lines[-1].startswith("It keeps the contract in the ")
    assert lines[-1].endswith("Its inputs were made up: for a full judgement give it some by --raw.")
    assert "missing manifest … exit code 78 after 0." in said.stderr


def test_every_point_and_every_trial_is_explained() -> None:
    assert {one for one in (*Point, *Trial) if f"`{one}`" not in PAGE} == set()


def test_a_broken_point_is_named_at_the_end_and_in_the_exit_code() -> None:
    said = say("--", "/bin/sh", "-c", "exit 3")
    assert said.exit_code == 1
    assert said.stdout.splitlines()[-1] == "It breaks the contract in 2 points: exit code, cause."


def test_programs_get_everything_under_stable_names(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("opacity: 0.3\n")
    asked = ("--cpu", "2", "--memory-gb", "1.5", "--time-hours", "0.5", "--final", "--step-name", "map")
    told = of_json(
        *asked, "--parameters", tmp_path / "p.yaml", "--keep", tmp_path / "kept", "--", "/bin/sh", "-c", GOOD
    )
    assert told.keys() == {"verdict", "command", "image", "inputs", "asked", "points", "trials", "definition"}
    assert (told["verdict"], told["inputs"], told["image"]) == ("kept", "made", None)
    published = {*told, *told["asked"], *told["points"][0], *told["trials"][0]}
    assert {name for name in published if f"`{name}`" not in PAGE} == set()
    assert told["asked"] == {"cpu": 2, "memory_gb": 1.5, "time_hours": 0.5}
    assert [one["point"] for one in told["points"]] == list(Point)
    assert {tuple(one) for one in told["points"]} == {("point", "verdict", "said")}
    run = told["trials"][0]
    assert (run["trial"], run["exit_code"], run["products"]) == (Trial.RUN, 0, ["copy.txt"])
    assert run["wall_seconds"] >= 0  # it may take no tick of the clock
    kept = Path(run["directory"])
    assert (kept / "output/copy.txt").is_file()
    manifest = json.loads((kept / "config/manifest.json").read_text())
    assert manifest["config"]["parameters"] == {"opacity": 0.3}
    assert manifest["step"] == {"name": "map", "is_final": True}


def test_an_image_is_told_with_the_definition_that_releases_it(reducing_image: Path) -> None:
    options = [f"--apptainer-option={one}" for one in OPTIONS]
    said = say(*options, reducing_image, "--", "/bin/sh", "-c", GOOD)
    assert said.exit_code == 0, said.output
    text = said.stdout.partition("version and series:\n\n")[2].partition("\nIt keeps")[0]
    [version] = yaml.safe_load(text)["software"][0]["versions"]
    assert SoftwareVersion(**version).image == str(reducing_image)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.sif", "--", "chai"], "there is no file nowhere.sif"),
        (["docker://registry/chai:1.2", "--", "chai"], "may be another image tomorrow"),
        (["docker://registry/chai@sha256:" + "0" * 64], "name the command that runs in it"),
        (["--environment", "/usr", "oras://registry/chai", "--", "chai"], "an image brings its own environment"),
        (["--apptainer-option=--userns", "--", "chai"], "there is no image"),
        (["--upstream", "flat", "--", "chai"], "'flat' is not NAME=VALUE"),
        (["--auxiliary", "flat=/nowhere", "--", "chai"], "there is no /nowhere"),
        (["--step-name", "a/b", "--", "chai"], "cannot be a directory name"),
        (["--keep", "/usr", "--", "chai"], "it is not empty"),
        (["--keep", "/etc/passwd", "--", "chai"], "it is no directory"),
        (["--time-hours", "inf", "--", "chai"], "--time-hours"),
        (["--memory-gb", "inf", "--", "chai"], "--memory-gb"),
        (["--grace", "1e300", "--", "chai"], "--grace"),
        (["--variable", " =1", "--", "chai"], "is no name of an environment variable"),
        (["--", ""], "its first word is empty"),
        ([], "Missing argument"),
    ],
)
def test_nonsense_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_for_programs(app, ["contract", "test", "--json", *words])
    out, err = capsys.readouterr()
    assert out == ""
    assert said in json.loads(err)["message"]


def test_parameters_that_are_no_yaml_are_told_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("opacity: 1\nopacity: 2\n")
    said = say("--parameters", tmp_path / "p.yaml", "--", "chai")
    assert (said.exit_code, "line 2" in said.stderr) == (1, True)


def test_an_error_stands_on_a_line_of_its_own() -> None:
    said = say("--", "/bin/sh", "-c", 'rm -r "$WORKFLOW_WORKSPACE_DIR/../../../local-jobs"')
    assert said.exit_code == 1
    assert said.stderr.splitlines()[0] == "run … "
    assert said.stderr.splitlines()[1].startswith("error: ")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_interrupts_it_leaves_nothing_behind(how: signal.Signals, tmp_path: Path) -> None:
    awake = ["env", "--default-signal=INT,HUP"]  # whoever runs the tests in the background has it ignored
    command = [*awake, sys.executable, "-m", "ccat", "contract", "test", "--", "sleep", f"97.{int(how)}"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as test:
        eventually(lambda: sleeping(how), within=60)
        test.send_signal(how)
        assert test.wait(60) == 130
    assert not sleeping(how)
    assert list(tmp_path.iterdir()) == []


def sleeping(how: int) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", f"97.{int(how)}"]]
