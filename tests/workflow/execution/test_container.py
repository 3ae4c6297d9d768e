import csv
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccat_ops_db.states import FailureClass
from ccat_workflow_manager.execution.command import Execution, job, software_environment
from ccat_workflow_manager.execution.container import Container, container_command, container_trouble, linked_roots
from ccat_workflow_manager.execution.layout import AttemptLayout

CONTAINER = Container(sif=Path("/cache/0bad.sif"), roots=(Path("/data/ramses"),), options=("--userns", "--nv"))


def of_image(execution: Execution) -> Execution:
    return replace(execution, environment_prefix=None, container=CONTAINER)


def mounts_of(command: tuple[str, ...]) -> list[list[str]]:
    return [next(csv.reader([value])) for option, value in pairwise(command) if option == "--mount"]


def test_software_in_an_image_finds_its_attempt_at_workflow_and_the_path_of_its_image(execution: Execution) -> None:
    inner = software_environment(of_image(execution))
    assert "PATH" not in inner
    assert "HOME" not in inner
    assert inner["WORKFLOW_INPUT_DIR"] == "/workflow/input"
    assert inner["WORKFLOW_WORKSPACE_DIR"] == "/workflow/workspace"
    assert inner["WORKFLOW_OUTPUT_DIR"] == "/workflow/output"
    assert inner["WORKFLOW_CONFIG_DIR"] == "/workflow/config"
    assert inner["WORKFLOW_LOG_DIR"] == "/workflow/logs"
    assert inner["WORKFLOW_MANIFEST"] == "/workflow/config/manifest.json"
    assert inner["TMPDIR"] == "/workflow/workspace/.tmp"
    assert inner["WORKFLOW_RUN_ID"] == "42"
    intermediate = replace(of_image(execution), is_final=False)
    assert software_environment(intermediate)["WORKFLOW_OUTPUT_DIR"] == "/workflow/workspace/grid"


def test_a_job_in_an_image_gives_apptainer_nothing_but_what_it_needs_itself(execution: Execution) -> None:
    made = job(of_image(execution), name="ccat-0badcafe-42-1", memory_gb=4, time_limit=timedelta(hours=1))
    attempt = execution.layout.directory
    own = {name: value for name, value in made.environment.items() if not name.startswith("APPTAINERENV_")}
    assert own == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": f"{attempt}/workspace/.home",
        "TMPDIR": f"{attempt}/workspace/.tmp",
        "LANG": "C.UTF-8",
    }
    assert made.environment["APPTAINERENV_MODE"] == "hot cold"
    assert made.environment["APPTAINERENV_WORKFLOW_RUN_ID"] == "42"
    assert made.marks == {"CCAT_JOB_DIRECTORY": str(attempt), "APPTAINERENV_CCAT_JOB_DIRECTORY": str(attempt)}
    assert (made.stdout, made.working_directory) == (execution.layout.stdout, execution.layout.workspace)


def test_only_its_own_directories_can_be_written(execution: Execution) -> None:
    command = container_command(CONTAINER, execution.layout, execution.command, is_final=True)
    attempt, mounts = execution.layout.directory, mounts_of(command)
    writable = {fields[2].removeprefix("destination="): fields[1] for fields in mounts if "ro" not in fields}
    assert writable == {
        "/tmp": f"source={attempt}/workspace/.tmp",  # noqa: S108 the attempt's own
        "/var/tmp": f"source={attempt}/workspace/.tmp",  # noqa: S108 as well
        "/workflow/workspace": f"source={attempt}/workspace",
        "/workflow/output": f"source={attempt}/output",
        "/workflow/logs": f"source={attempt}/logs",
    }
    read_only = {fields[2].removeprefix("destination="): fields[1] for fields in mounts if "ro" in fields}
    assert read_only == {
        "/data/ramses": "source=/data/ramses",
        "/workflow/input": f"source={attempt}/input",
        "/workflow/config": f"source={attempt}/config",
    }
    intermediate = container_command(CONTAINER, execution.layout, execution.command, is_final=False)
    assert not any("output" in field for fields in mounts_of(intermediate) for field in fields)
    assert command[-3:] == ("/cache/0bad.sif", "chai-grid", "--quick")
    assert "--containall" in command
    assert command.index("--userns") < command.index("/cache/0bad.sif")


@given(st.text(st.characters(exclude_characters="\0/\n\r", exclude_categories=["Cs"]), min_size=1))
def test_any_directory_name_survives_in_a_mount(name: str) -> None:
    layout = AttemptLayout(Path("/data") / name / "attempt-1")
    sources = [fields[1] for fields in mounts_of(container_command(CONTAINER, layout, ("true",), is_final=True))]
    assert f"source={layout.output}" in sources


CONFIGURATION, INFRASTRUCTURE = FailureClass.CONFIGURATION, FailureClass.INFRASTRUCTURE
OPEN = "While checking container encryption: could not open image"


@pytest.mark.parametrize(
    ("code", "log", "kind", "cause"),
    [
        (
            255,
            'FATAL:   "chai": executable file not found in $PATH\n',
            CONFIGURATION,
            '"chai": executable file not found',
        ),
        (255, "FATAL:   stat /opt/chai: no such file or directory\n", CONFIGURATION, "stat /opt/chai: no such file"),
        (255, "FATAL:   permission denied\n", CONFIGURATION, "permission denied; mend the version's `command`"),
        (255, "FATAL:   exec /a failed: fork/exec /a: no such file or directory\n", CONFIGURATION, "exec /a failed"),
        (
            255,
            f"FATAL:   {OPEN} /c a/0.sif: failed to retrieve path: lstat /c a/0.sif: no such file or directory",
            INFRASTRUCTURE,
            "its image /c a/0.sif cannot be opened where the job ran: no such file or directory; the cache of images",
        ),
        (
            127,
            "timeout: failed to run command \u2018apptainer\u2019: No such file or directory\n",
            CONFIGURATION,
            "Apptainer cannot be run where the job ran: No such file or directory; install it on every host",
        ),
        (1, 'Usage:\n\nError for command "exec": unknown flag: --bogus\n', CONFIGURATION, "unknown flag: --bogus"),
        (
            255,
            "WARNING: skipping mount of /data: no such file\nFATAL:   container creation failed: mount hook failure\n",
            INFRASTRUCTURE,
            "Apptainer could not start the software: container creation failed: mount hook",
        ),
        (
            255,
            f"FATAL:   {OPEN} /c/0.sif: the image's architecture (arm64) could not run on the host's (amd64)",
            CONFIGURATION,
            "its image cannot be used where the job ran: the image's architecture (arm64) could not run on the host's",
        ),
        (255, f"FATAL:   {OPEN} /c/0.sif: image format not recognized", CONFIGURATION, "image format not recognized"),
        (255, f"FATAL:   {OPEN} /c/0.sif: stale NFS file handle", INFRASTRUCTURE, "stale NFS file handle; the cache"),
        (
            1,
            "\x1b[91mERROR  : Requesting capability set 0x1 while permitted capability set is 0x0\n\x1b[0m",
            INFRASTRUCTURE,
            "Apptainer could not start the software: Requesting capability set",
        ),
    ],
)
def test_what_apptainer_says_when_it_cannot_start_the_software_is_told_in_one_line(
    code: int, log: str, kind: FailureClass, cause: str
) -> None:
    found = container_trouble(code, log)
    assert found is not None
    assert found[0] is kind
    assert cause in found[1]
    assert "\n" not in found[1]


@pytest.mark.parametrize(
    ("code", "log"),
    [
        (255, "reading scan 1\nFATAL:   opacity is negative\n"),
        (255, "ssh: connect to host: refused\n"),
        (2, 'FATAL:   "chai": executable file not found in $PATH\n'),
        (0, "FATAL:   permission denied\n"),
        (None, "FATAL:   permission denied\n"),
        (1, "INFO: reading scan 1\nERROR: opacity is negative\n"),
        (1, "ERROR   opacity is negative\n"),
        (1, 'Error for command "exec": unknown flag: --bogus\nand more\n'),
        (1, "Error for command chai: no such scan\n"),
        (255, ""),
        (255, "WARNING: it is late\n"),
    ],
)
def test_what_the_software_said_itself_is_its_own(code: int | None, log: str) -> None:
    assert container_trouble(code, log) is None


def test_where_inputs_lie_elsewhere_by_a_link_that_place_is_seen_too(tmp_path: Path) -> None:
    root, other = tmp_path / "ramses", tmp_path / "disk2/ccat"
    for directory in (root / "staging/1", other / "staging/2", other / "staging/3"):
        directory.mkdir(parents=True)
    (root / "more").symlink_to(other)
    assert linked_roots(root, [root / "staging/1"]) == (root,)
    inputs = [root / "staging/1", root / "more/staging/2", root / "more/staging/3", root / "more/staging/gone"]
    assert linked_roots(root, inputs) == (root, other)
    (tmp_path / "link").symlink_to(root)
    assert linked_roots(tmp_path / "link", [tmp_path / "link/staging/1"]) == (tmp_path / "link",)
    (root / "one").symlink_to(other / "staging/2")
    assert linked_roots(root, [root / "one"]) == (root, other / "staging/2")
