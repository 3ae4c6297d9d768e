"""Several processing locations: each has its own run directories and settings, and what cannot be is refused early."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ccat.wiring import served_locations
from ccat_ops_db import models
from ccat_ops_db.states import BackendName, RunStatus
from ccat_ops_db.verbs.cautions import cautions
from ccat_service.settings import SettingsError
from ccat_workflow_manager.hpc.kubernetes.settings import KubernetesSettings
from ccat_workflow_manager.hpc.settings import LocalSettings, SlurmSettings
from ccat_workflow_manager.places import ServedLocation
from ccat_workflow_manager.settings import WorkflowManagerSettings
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import Works

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
GRID = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}


@pytest.fixture
def second(works: Works) -> int:
    """Another processing location of the same site; its id."""
    return works.add_location("second")


def serve(works: Works, *numbers: int, base: Path | None = None) -> list[ServedLocation]:
    values: dict[str, Any] = {"pipeline_base_dir": base} if base else {}
    return served_locations(works.database, WorkflowManagerSettings(processing_location_id=numbers, **values))


def give(works: Works, number: int, **settings: Any) -> None:
    location = models.DataLocation
    works.execute(sa.update(location).where(location.id == number).values(backend_settings=settings))


def test_each_location_has_run_directories_and_settings_of_its_own(works: Works, second: int) -> None:
    give(works, second, pipeline_base_dir="runs/here", cpus=2, memory_gb=3.5)
    default = works.root / "cologne/ramses/elsewhere"
    first, other = serve(works, works.location_id, second, base=default)
    here = works.root / "cologne/second/runs/here"
    assert (first.base, first.backend) == (default, LocalSettings())
    assert (other.base, other.backend) == (
        here,
        LocalSettings(pipeline_base_dir=Path("runs/here"), cpus=2, memory_gb=3.5),
    )
    assert serve(works, second)[0].base == works.root / "cologne/second/runs/here"


def test_a_location_that_names_no_run_directories_has_them_in_pipelines(works: Works, second: int) -> None:
    bases = [one.base for one in serve(works, works.location_id, second)]
    assert bases == [works.root / "cologne/ramses/pipelines", works.root / "cologne/second/pipelines"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cpu": 4}, "location cologne/second, backend_settings.cpu: no such setting. Did you mean `cpus`?"),
        ({"cpus": 0}, "location cologne/second, backend_settings.cpus: Input should be greater than 0"),
        ({"memory_gb": "much"}, "location cologne/second, backend_settings.memory_gb: Input should be a valid number"),
        ({"pipeline_base_dir": "/scratch"}, "location cologne/second, backend_settings.pipeline_base_dir: /scratch is"),
        ({"pipeline_base_dir": "../x"}, "location cologne/second, backend_settings.pipeline_base_dir: ../x is outside"),
    ],
)
def test_what_a_location_says_wrong_is_refused_in_one_line(
    works: Works, second: int, settings: dict[str, Any], said: str
) -> None:
    give(works, second, **settings)
    with pytest.raises(SettingsError) as refused:
        serve(works, works.location_id, second)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_locations_that_cannot_be_served_are_named(works: Works, second: int) -> None:
    with pytest.raises(SettingsError, match="PROCESSING_LOCATION_ID: 99 is no location of this database"):
        serve(works, 99)
    [archive] = works.session(lambda session: session.scalars(sa.select(models.DataLocation.id).filter_by(name="lta")))
    with pytest.raises(SettingsError, match="location cologne/lta: its type is long_term_archive: nothing is proc"):
        serve(works, archive)
    with pytest.raises(SettingsError, match=r"PIPELINE_BASE_DIR: /scratch is outside of .*/cologne/second \(cologne/s"):
        serve(works, second, base=Path("/scratch"))
    location = models.DataLocation
    works.execute(sa.update(location).where(location.id == second).values(backend=BackendName.KUBERNETES))
    with pytest.raises(SettingsError, match=r"location cologne/second, backend_settings\.image: Field required"):
        serve(works, second)
    give(works, second, image="runner:1")
    with pytest.raises(SettingsError, match="location cologne/second, backend_settings: name either a `claim` or a"):
        serve(works, second)
    give(works, second, image="runner:1", claim="scratch")
    assert serve(works, second)[0].backend == KubernetesSettings(image="runner:1", claim="scratch")
    works.execute(sa.update(location).where(location.id == second).values(backend=BackendName.SLURM))
    give(works, second, array_size=1, qos="long")
    assert serve(works, second)[0].backend == SlurmSettings(array_size=1, qos="long")


def test_two_locations_cannot_have_the_same_run_directories(works: Works, second: int) -> None:
    inner = works.root / "cologne/ramses/pipelines"
    works.session(lambda session: setattr(session.get_one(models.DiskDataLocation, second), "path", str(inner.parent)))
    with pytest.raises(SettingsError, match=r"cologne/second: its run directories .* are those of cologne/ramses too"):
        serve(works, works.location_id, second)


@pytest.mark.usefixtures("second")
def test_who_moves_a_pipeline_is_told_of_products_that_stay_behind(works: Works) -> None:
    works.observe("one")
    works.define(CALIBRATE)
    works.settle()
    assert works.run().status is RunStatus.COMPLETED
    changes = works.define(CALIBRATE, GRID, location="cologne/second")
    [told] = works.session(lambda session: cautions(session, changes, now=datetime.now(UTC)))
    assert "its steps take products of toy/calibrate, and those of 1 of its sub-groups lie at cologne/ramses" in told
    assert "`ccat trigger toy --step calibrate --force`" in told


def test_a_log_is_found_in_the_run_directories_of_its_own_location(
    works: Works, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCAT_WORKFLOW_MANAGER_PROCESSING_LOCATION_ID", str(works.location_id))
    monkeypatch.setenv("CCAT_WORKFLOW_MANAGER_PIPELINE_BASE_DIR", str(works.base))
    give(works, works.location_id, pipeline_base_dir="runs/here")
    works.archived("one")
    works.define(CALIBRATE)
    works.create()
    works.start()
    run_id = works.run().id
    followed = say("run", "logs", run_id, "--follow")
    assert (followed.exit_code, "so its log cannot be followed" in followed.stderr) == (1, True)
    directory = works.root / "cologne/ramses/runs/here" / works.run().attempts[0].directory
    for name, text in (("stdout.log", "begun\n"), ("stderr.log", "")):
        (directory / "logs").mkdir(parents=True, exist_ok=True)
        (directory / "logs" / name).write_text(text)
    assert say("run", "logs", run_id).stdout == "begun\n"
    monkeypatch.delenv("CCAT_WORKFLOW_MANAGER_PROCESSING_LOCATION_ID")
    assert say("run", "logs", run_id).stdout == "begun\n"


def test_a_location_is_added_and_changed_by_command_and_what_nobody_could_serve_is_refused(
    works: Works, say: Say
) -> None:
    added = say("location", "add", "cologne/third", "--path", works.root / "third", "--set", "cpus=2", "--json")
    number = json.loads(added.stdout)["id"]
    assert serve(works, number)[0].backend == LocalSettings(cpus=2)
    assert say("location", "set", "cologne/third", "--reserve", "1.5", "--set", "cpus=", "--set", "memory_gb=3").stdout
    [third] = [one for one in json.loads(say("locations", "--json").stdout) if one["id"] == number]
    assert third["reserve_bytes"] == 1_500_000_000
    assert serve(works, number)[0].backend == LocalSettings(memory_gb=3)
    refused = say("location", "set", "cologne/third", "--set", "cpu=4")
    assert refused.exit_code == 1
    assert "backend_settings.cpu: no such setting. Did you mean `cpus`?" in refused.stderr
    assert serve(works, number)[0].backend == LocalSettings(memory_gb=3)
    assert say("location", "set", "cologne/third").exit_code == 2
    nameless = say("location", "add", "cologne", "--path", works.root / "fifth")
    assert (nameless.exit_code, "cologne/NAME" in nameless.stderr) == (2, True)
    again = say("location", "add", "cologne/third", "--path", works.root / "fifth")
    assert "There is a location cologne/third already: " in again.stderr
    same = say("location", "add", "cologne/fifth", "--path", works.root / "third")
    assert f"{works.root / 'third'} is the directory of cologne/third already: " in same.stderr
    assert "There is no location `cologne/forth`" in say("location", "set", "cologne/forth", "--reserve", 1).stderr
