"""Small reductions, real processes: what each of them does is seen and told."""

import os
import stat
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from ccat_workflow_manager.contract.inputs import InputNotCopied
from ccat_workflow_manager.contract.values import Given, Point, Trial, Verdict
from tests.chai_image import ENVIRONMENT
from tests.workflow.contract.conftest import CHECK, GOOD, READ, WRITE, Examine, found, require_reductions

SCAN = '"$(readlink -f "$WORKFLOW_INPUT_DIR"/raw/package-1)/scan.txt"'


def test_a_reduction_that_keeps_the_contract_keeps_it_in_every_point(examined: Examine, strace: str) -> None:
    report = examined(f"{GOOD}sleep 0.3", strace=strace)
    assert {one.point: one.said for one in report.findings if one.verdict is not Verdict.KEPT} == {}
    assert [one.point for one in report.findings] == list(Point)
    assert list(report.case.seen) == list(Trial)


BREAKS: dict[str, tuple[str, Point, str]] = {
    "writes into its input": (f"{GOOD}chmod u+w {SCAN}; echo x >>{SCAN}", Point.INPUTS_UNCHANGED, "scan.txt has chan"),
    "deletes an input": (f"{GOOD}rm -f {SCAN}", Point.INPUTS_UNCHANGED, "scan.txt is gone"),
    "touches an input": (f"{GOOD}touch -d 2020-01-01 {SCAN}", Point.INPUTS_UNCHANGED, "scan.txt has changed"),
    "writes into its config": (f'{GOOD}echo x >"$WORKFLOW_CONFIG_DIR/mine"', Point.INPUTS_UNCHANGED, "mine is new"),
    "takes permissions from an input": (f"{GOOD}chmod 0 {SCAN}", Point.INPUTS_UNCHANGED, "scan.txt has changed"),
    "forbids to look into its inputs": (
        f'{GOOD}chmod 0 "$(readlink -f "$WORKFLOW_INPUT_DIR"/raw/package-1)"',
        Point.INPUTS_UNCHANGED,
        "package-1 has changed",
    ),
    "describes through a pipe": (
        f'{GOOD}mkfifo "$WORKFLOW_OUTPUT_DIR/products.json"',
        Point.ANNOTATIONS,
        "products.json that the software wrote is invalid: it is no regular file",
    ),
    "leaves a process": (f"{GOOD}sleep 60 &", Point.PROCESSES, "it left sleep behind"),
    "links out of its output": (f'{GOOD}ln -s /etc/passwd "$WORKFLOW_OUTPUT_DIR/p"', Point.PRODUCTS, "links to /etc/"),
    "writes a pipe": (f'{GOOD}mkfifo "$WORKFLOW_OUTPUT_DIR/p"', Point.PRODUCTS, "neither a file nor a directory"),
    "measures in words": (
        f"""{GOOD}mkdir "$WORKFLOW_OUTPUT_DIR/qa"; echo '{{"rms": "low"}}' >"$WORKFLOW_OUTPUT_DIR/qa/metrics.json" """,
        Point.ANNOTATIONS,
        "qa/metrics.json that the software wrote is invalid at rms",
    ),
    "describes what is not there": (
        f"""{GOOD}echo '{{"map.fits": {{}}}}' >"$WORKFLOW_OUTPUT_DIR/products.json" """,
        Point.ANNOTATIONS,
        "there is no such product",
    ),
    "writes nothing": (f"{READ}{CHECK}", Point.REQUIRED_OUTPUTS, "did not write any product"),
    "writes where it stands": (
        f"{READ}{CHECK}echo x >map.txt",
        Point.REQUIRED_OUTPUTS,
        "in the workspace it left map.txt: write into WORKFLOW_OUTPUT_DIR",
    ),
    "removes its output": (f'{GOOD}rm -r "$WORKFLOW_OUTPUT_DIR"', Point.REQUIRED_OUTPUTS, "may not be removed"),
    "ignores damage": (READ + WRITE, Point.DAMAGED_INPUT, "though bytes in scan.bin were turned over"),
    "needs no manifest": (
        f"fail() {{ exit 65; }}{CHECK.replace('|| fail', '|| :')}{WRITE}",
        Point.MISSING_MANIFEST,
        "read the file that WORKFLOW_MANIFEST names",
    ),
    "dies": (f"{GOOD}kill -SEGV $$", Point.EXIT_CODE, "killed by SIGSEGV"),
    "ends with a code of its own": ("echo tired >&2; exit 42", Point.EXIT_CODE, "exit code 42"),
    "fails without a word": ("exit 65", Point.CAUSE, "in `run` it failed without a word"),
    "says why to standard output only": ("echo no lines; exit 65", Point.CAUSE, "failed without a word"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_reduction_breaks_the_contract_that(name: str, examined: Examine) -> None:
    script, point, said = BREAKS[name]
    finding = found(examined(script))[point]
    assert finding.verdict is Verdict.BROKEN, finding
    assert said in finding.said


def test_an_output_that_leads_elsewhere_is_refused_and_nothing_there_is_touched(
    examined: Examine, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (mine := tmp_path / "mine/map.fits").touch(mode=0o600)
    script = f'{GOOD}rm -r "$WORKFLOW_OUTPUT_DIR"; ln -s "$MINE" "$WORKFLOW_OUTPUT_DIR"'
    finding = found(examined(script, variables={"MINE": str(mine.parent)}))[Point.PRODUCTS]
    assert (finding.verdict, "it was replaced by a link to" in finding.said) == (Verdict.BROKEN, True)
    assert stat.S_IMODE(mine.stat().st_mode) == 0o600


def test_a_process_that_hides_is_found_and_ended(examined: Examine) -> None:
    finding = found(examined(f"{GOOD}env -i setsid sleep 62.5 >/dev/null 2>&1 &"))[Point.PROCESSES]
    assert (finding.verdict, "it left sleep behind" in finding.said) == (Verdict.BROKEN, True)
    assert [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "62.5"]] == []


REGRETS: dict[str, tuple[str, Point, str]] = {
    "ignores unknown parameters": (
        f"{READ.replace('! grep', 'true || grep')}{WRITE}",
        Point.UNKNOWN_PARAMETER,
        "refuse",
    ),
    "writes the time of day": (f'{GOOD}date +%N >"$WORKFLOW_OUTPUT_DIR/now"', Point.SAME_BYTES, "now differs"),
    "writes its run id": (f'{GOOD}echo $WORKFLOW_RUN_ID >"$WORKFLOW_OUTPUT_DIR/id"', Point.SAME_BYTES, "id differs"),
    "calls damaged data its own fault": (
        GOOD.replace("fail 65", "fail 1"),
        Point.DAMAGED_INPUT,
        "exit code 1 where 65",
    ),
    "calls a missing manifest its own fault": (GOOD.replace("fail 78", "fail 1"), Point.MISSING_MANIFEST, "where 78"),
    "fails with 1 on what is no data": ("echo 'no FITS file' >&2; exit 1", Point.EXIT_CODE, "no FITS file"),
}


@pytest.mark.parametrize("name", REGRETS)
def test_a_reduction_is_warned_that(name: str, examined: Examine) -> None:
    script, point, said = REGRETS[name]
    finding = found(examined(script))[point]
    assert finding.verdict is Verdict.WARNED, finding
    assert said in finding.said


def test_products_of_a_final_step_lie_where_people_look_for_them(examined: Examine) -> None:
    assert found(examined(GOOD, is_final=True))[Point.SORTING].said.startswith("copy.txt would be called intermediate")


def test_products_that_a_final_step_sorts_are_as_they_should_be(examined: Examine) -> None:
    script = f"{READ}{CHECK}{WRITE.replace('copy', 'statistics/copy')}"
    assert found(examined(script, is_final=True))[Point.SORTING].verdict is Verdict.KEPT


def test_required_outputs_are_those_of_the_step(examined: Examine) -> None:
    finding = found(examined(GOOD, required_outputs=["*.fits"]))[Point.REQUIRED_OUTPUTS]
    assert (finding.verdict, "*.fits; it wrote copy.txt" in finding.said) == (Verdict.BROKEN, True)


def test_a_command_that_is_not_there_never_started(examined: Examine, tmp_path: Path) -> None:
    report = examined("no-such-program", "--quick", environment_prefix=tmp_path)
    assert [one.point for one in report.broken] == [Point.STARTS]
    assert "looked for in the bin of --environment" in report.broken[0].said
    assert list(report.case.seen) == [Trial.RUN]


def test_memory_is_measured_and_held_to_what_is_asked_for(examined: Examine) -> None:
    report = examined("dd if=/dev/zero of=/dev/null bs=300M count=1000", memory_gb=0.1)
    assert "out of memory" in found(report)[Point.MEMORY].said
    assert {Point.MEMORY, Point.EXIT_CODE} <= {one.point for one in report.broken}


def test_time_is_held_to_what_is_asked_for(examined: Examine) -> None:
    report = examined("exec sleep 60", time_limit=timedelta(seconds=0.3))
    assert found(report)[Point.TIME].said.startswith("it was killed after 0.3 s")


def test_a_reduction_that_does_not_end_when_it_is_told_to_is_killed(examined: Examine) -> None:
    began = time.monotonic()
    finding = found(examined(f"trap '' TERM\n{GOOD}sleep 0.6; sleep 0.6; sleep 0.6"))[Point.TERMINATION]
    assert (finding.verdict, finding.said[:20]) == (Verdict.BROKEN, "it went on for 0.5 s")
    assert time.monotonic() - began < 30


ELSEWHERE: dict[str, tuple[str, Point, str]] = {
    "reads what is no input": ('cat "$MINE"', Point.READS, "/calibration.txt"),
    "reads its home": ("cat ../../../mine/calibration.txt", Point.READS, "/calibration.txt"),
    "writes beside its workspace": ("echo x >../beside.txt", Point.WRITES, "/attempt-1/beside.txt"),
    "makes a directory elsewhere": ('mkdir "$WORKFLOW_INPUT_DIR/mine"', Point.WRITES, "/input/mine"),
    "removes a file elsewhere": ('rm "$MINE"', Point.WRITES, "/calibration.txt"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_it_is_seen_where_a_reduction(name: str, examined: Examine, strace: str, tmp_path: Path) -> None:
    script, point, said = ELSEWHERE[name]
    (tmp_path / "test/mine").mkdir(parents=True)
    (mine := tmp_path / "test/mine/calibration.txt").write_text("1\n")
    again = 'case "$PWD" in */again/*) ;; *) exit 0; esac\n'
    report = examined(f"{GOOD}{again}{script}", strace=strace, variables={"MINE": str(mine)})
    finding = found(report)[point]
    assert finding.verdict is Verdict.BROKEN, finding
    assert said in finding.said


def test_temporary_files_and_calls_are_warned_of(examined: Examine, strace: str) -> None:
    call = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.7', 9))"
    script = f'{GOOD}f=$(TMPDIR=/var/tmp mktemp); rm "$f"; "{sys.executable}" -c "{call}"'
    findings = found(examined(script, strace=strace))
    assert [findings[one].verdict for one in (Point.WRITES, Point.NETWORK)] == [Verdict.WARNED, Verdict.WARNED]
    assert "where all jobs of a host do: use TMPDIR" in findings[Point.WRITES].said
    assert "192.0.2.7, port 9" in findings[Point.NETWORK].said


def test_without_strace_nobody_pretends_to_have_seen_what_is_opened(examined: Examine) -> None:
    findings = found(examined(GOOD))
    assert {findings[one].verdict for one in (Point.READS, Point.WRITES, Point.NETWORK)} == {Verdict.NOT_JUDGED}
    assert "install strace" in findings[Point.READS].said


def test_the_input_that_is_damaged_is_one_that_is_read(examined: Examine, strace: str, tmp_path: Path) -> None:
    for name, size in {"raw/log.bin": 9000, "raw/scan.txt": 9, "raw/notes.txt": 10}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"a" * size)
    given, script = Given(raw=[tmp_path / "raw"]), GOOD.replace("/raw/*/*;", "/raw/*/*.txt;")
    finding = found(examined(script, strace=strace, given=given))[Point.DAMAGED_INPUT]
    assert (finding.verdict, "notes.txt is not what was" in finding.said) == (Verdict.KEPT, True)


def test_where_it_is_not_seen_what_is_read_a_damage_may_not_concern_it(examined: Examine) -> None:
    script = GOOD.replace("/raw/*/*;", "/raw/*/*.txt;")
    assert "if it does not read that file, test it without" in found(examined(script))[Point.DAMAGED_INPUT].said


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda raw: (raw / "link").symlink_to("nowhere"), "raw/link cannot be copied: .*No such file"),
        (lambda raw: os.mkfifo(raw / "pipe"), "raw/pipe cannot be copied: .* is a named pipe"),
        (lambda raw: (raw / os.fsdecode(b"a\xff")).touch(), r"a\\udcff cannot be copied: its name is not UTF-8"),
        (lambda raw: (raw.parent / "test").symlink_to(raw), "raw cannot be copied: the copies would lie inside"),
    ],
)
def test_what_no_input_can_be_is_told(
    spoil: Callable[[Path], object], said: str, examined: Examine, tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    spoil(tmp_path / "raw")
    with pytest.raises(InputNotCopied, match=said):
        examined(GOOD, given=Given(raw=[tmp_path / "raw"]))


def test_inputs_of_a_team_are_copied_and_told_by_role(examined: Examine, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for name in ("raw/on.fits", "gain.fits", "flat.fits"):
        (tmp_path / name).write_text(name)
    given = Given(
        raw=[tmp_path / "raw"],
        upstream=[("calibrate", tmp_path / "gain.fits")],
        auxiliary=[("f", tmp_path / "flat.fits")],
    )
    show = 'cd -P "$WORKFLOW_INPUT_DIR"; find -L . -type f | sort >"$WORKFLOW_OUTPUT_DIR/seen"; rm -f -- raw/*/*'
    report = examined(show, given=given)
    [seen] = (tmp_path / "test").glob("run/*/workspace/step/seen")
    assert seen.read_text().split() == [
        *("./auxiliary/f/group-3/flat.fits", "./raw/package-1/on.fits", "./upstream/calibrate/group-1/gain.fits"),
    ]
    assert (tmp_path / "raw/on.fits").read_text() == "raw/on.fits"
    assert found(report)[Point.INPUTS_UNCHANGED].verdict is Verdict.BROKEN
    told = (tmp_path / "test/run/attempt-1/config/manifest.json").read_text()
    assert '"path": "upstream/calibrate/group-1/gain.fits"' in told


def test_a_failure_on_inputs_of_the_team_is_no_refusal(examined: Examine, tmp_path: Path) -> None:
    (tmp_path / "on.fits").write_text("x")
    finding = found(examined("echo 'no lines' >&2; exit 65", given=Given(raw=[tmp_path / "on.fits"])))[Point.EXIT_CODE]
    assert (finding.verdict, finding.said) == (Verdict.BROKEN, "it calls the inputs bad, with exit code 65: no lines")


def test_the_reference_reduction_keeps_the_contract(examined: Examine, strace: str, raw_scan: Path) -> None:
    given: dict[str, Any] = {"given": Given(raw=[raw_scan]), "environment_prefix": ENVIRONMENT}
    report = examined("chai", "calibrate", strace=strace, required_outputs=["calibrated.fits"], **given)
    assert {one.point: one.said for one in report.findings if one.verdict is not Verdict.KEPT} == {}


def test_the_reference_reduction_refuses_what_was_made_up(examined: Examine, strace: str) -> None:
    require_reductions()
    report = examined("chai", "calibrate", strace=strace, environment_prefix=ENVIRONMENT)
    assert report.broken == []
    assert "it refuses inputs that were made up" in found(report)[Point.EXIT_CODE].said
    assert found(report)[Point.PRODUCTS].verdict is Verdict.NOT_JUDGED
