"""The page for operators says what there is; its commands work, and its scripts tell people."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from ccat_ops_db.states import AlertKind
from ccat_workflow_manager.hpc.kubernetes.settings import KubernetesSettings
from ccat_workflow_manager.hpc.settings import ContainerSettings, LocalSettings, PlaceSettings, SlurmSettings
from ccat_workflow_manager.settings import WorkflowManagerSettings
from tests.workflow.verbs.conftest import Say

PAGE = (Path(__file__).parents[3] / "docs" / "operating.md").read_text()
COMMANDS = re.findall(r"^ccat (.+)$", PAGE, re.MULTILINE)
SCRIPTS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
TEXT = "CCAT data center: 1 new\nbacklog: 3 raw files not in the archive yet"
STUB = '#!/bin/sh\n{ printf "%s\\n" "$0" "$@"; cat; } >"$HEARD"\n'


def test_every_command_works(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert COMMANDS
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cologne/lta/lost+found").mkdir(parents=True)
    for line in COMMANDS:
        made = next(Path("backups").glob("ccat-*"), Path("none")).name
        done = say(*shlex.split(line.replace("ccat-20260405T120000Z", made)))
        assert done.exit_code == 0, f"{line}: {done.output}"


@pytest.mark.parametrize("script", SCRIPTS, ids=["chat", "mail"])
def test_a_script_tells_people(script: str, tmp_path: Path) -> None:
    for name, text in (("hook", script), ("curl", STUB), ("mail", STUB)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    heard = tmp_path / "heard"
    variables = {"CCAT_ALERT_TEXT": TEXT, "CCAT_ALERT_SLACK": "https://chat.example.org/x", "HEARD": str(heard)}
    environment = {**os.environ, **variables, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(
        [tmp_path / "hook"], input=json.dumps({"text": TEXT, "alerts": []}).encode(), env=environment, check=True
    )
    said = heard.read_text()
    assert "https://chat.example.org/x" in said or "operators@example.org" in said
    assert json.dumps(TEXT) in said or "CCAT data center: 1 new\n" in said


def test_every_kind_of_alert_and_every_setting_is_explained() -> None:
    told = {f"CCAT_WORKFLOW_MANAGER_{name.upper()}" for name in WorkflowManagerSettings.model_fields if "alert" in name}
    assert explained("Who is told without asking") == {*AlertKind, *told}
    of_images = ContainerSettings.model_fields.keys() - PlaceSettings.model_fields.keys()
    assert explained("Software in images") == {*of_images, "CCAT_WORKFLOW_MANAGER_SIF_CACHE_GB"}
    assert explained("Locations and their disks") == LocalSettings.model_fields.keys() - of_images
    common = {*PlaceSettings.model_fields, "poll_seconds", "grace_seconds"}
    assert explained("A Kubernetes cluster") >= KubernetesSettings.model_fields.keys() - common
    assert explained("A Slurm cluster") == SlurmSettings.model_fields.keys() - ContainerSettings.model_fields.keys()


def explained(title: str) -> set[str]:
    """Words that begin the rows of tables of a section."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}
