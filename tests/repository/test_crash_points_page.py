"""The list of crash points is that of the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ccat.crashing import VARIABLE, NoSuchCrashPoint, arm_from_environment, places, points
from tools.crash_points import FATES, PAGE, on_disk, page

ROOT = Path(__file__).parents[2]
OWN_COMMIT = re.compile(r"\.transaction\(|in_transaction|session import .*transaction|\.commit\(|\.begin\(")


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / PAGE).read_text() == page(), "write it anew: python -m tools.crash_points"


def test_every_kind_of_call_is_explained() -> None:
    assert on_disk() <= {name for name in on_disk() if "." not in name}
    assert FATES.keys() >= {"commit", "backend.submit"}


def test_every_question_to_a_backend_is_found() -> None:
    asked = {f"backend.{name}" for name in ("submit", "find", "observe", "cancel", "logs")}
    assert asked <= {place.what.partition(":")[0] for place in places()}


def test_every_telling_of_people_is_found() -> None:
    told = {place.what for place in places() if place.module == "ccat.watch.hook"}
    assert told == {"subprocess.Popen", "process.communicate", "killpg", "build_opener.open"}


def test_every_command_commits_where_the_list_says_but_those_that_only_look_or_initialize() -> None:
    others = {file.stem for file in (ROOT / "src/ccat/cli").glob("*.py") if OWN_COMMIT.search(file.read_text())}
    assert others == {"logs", "opsdb", "transfers", "waiting"}
    assert "ccat.wiring.transaction:commit" in {place.name for place in places()}


def test_data_transfer_is_not_in_the_list() -> None:
    assert [place.name for place in places() if "transfer" in place.name] == []


def test_no_two_points_have_the_same_name() -> None:
    assert len(set(points())) == len(points())


@pytest.mark.parametrize("wanted", ["managers._tell:commit", f"{points()[0]}#often"])
def test_a_point_that_does_not_exist_is_refused_with_the_nearest(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, wanted)
    with pytest.raises(NoSuchCrashPoint, match=r"^CCAT_CRASH_AT: no such crash point: .* lists them\.$"):
        arm_from_environment()


@pytest.mark.parametrize("words", ["workflow-manager", "pause --all --because clouds"])
def test_a_process_and_a_command_stop_with_one_line_where_their_point_does_not_exist(words: str) -> None:
    environment = {**os.environ, VARIABLE: "nowhere"}
    command = [sys.executable, "-m", "ccat", *words.split()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: CCAT_CRASH_AT: no such crash point: nowhere.")
