"""What was under way when a backup was made, and what is defined, in the installation that is made of it."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from ccat.cli import app
from ccat_ops_db import models
from ccat_ops_db.cancelling import ask_to_cancel
from ccat_ops_db.moves import advance
from ccat_ops_db.session import transaction
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import PackageState, RunReason, RunStatus, Status, TriggerType, VersionState
from ccat_service.database import DatabaseConnection
from ccat_workflow_manager.hpc.base import job_name
from ccat_workflow_manager.verbs.requesting import Wish, open_wish
from ccat_workflow_manager.verbs.workplace import Workplace
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import LOCATION_NAME, Works

SCAN = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
NOW = datetime(2026, 4, 6, tzinfo=UTC)
WAYS = {
    "pending": [],
    "staging": [RunStatus.STAGING_DATA],
    "submitted": [RunStatus.STAGING_DATA, RunStatus.SUBMITTED],
    "running": [RunStatus.STAGING_DATA, RunStatus.SUBMITTED, RunStatus.RUNNING],
    "unwanted": [RunStatus.STAGING_DATA, RunStatus.SUBMITTED, RunStatus.RUNNING],
    "collecting": [RunStatus.STAGING_DATA, RunStatus.SUBMITTED, RunStatus.COLLECTING_RESULTS],
    "retried": [RunStatus.STAGING_DATA, RunStatus.FAILED],
    "given up": [RunStatus.STAGING_DATA, RunStatus.FAILED],
    "completed": [RunStatus.STAGING_DATA, RunStatus.SUBMITTED, RunStatus.COLLECTING_RESULTS, RunStatus.COMPLETED],
}


def say_to(works: Works, *words: object) -> Result:
    url = works.engine.url.render_as_string(hide_password=False)
    return CliRunner().invoke(app, [*map(str, words)], env={"CCAT_OPS_DB_URL": url})


@contextmanager
def copy_of(works: Works, backup: Path) -> Iterator[tuple[Works, dict[str, Any]]]:
    """Another installation, made of a backup, with the same disks; and what was said when it was made."""
    name = f"copy_{uuid.uuid4().hex[:12]}"
    administrator = sa.create_engine(works.engine.url, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE template0"))
        url = works.engine.url.set(database=name).render_as_string(hide_password=False)
        database = DatabaseConnection(url, "tests")
        other = works.workplace
        workplace = Workplace(database, other.backends, other.bases, "worker")
        copy = Works(works.root, database=database, workplace=workplace, location_id=works.location_id)
        restored = say_to(copy, "restore", backup, "--json")
        assert restored.exit_code == 0, restored.output
        yield copy, json.loads(restored.stdout)
        database.close()
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    administrator.dispose()


def bring(works: Works, run: models.ExecutedReductionStep, way: list[RunStatus]) -> None:
    """Let a run have come this way, with an attempt that was prepared."""
    with transaction(works.engine) as session:
        installation = session.scalars(sa.select(models.Installation.installation_id)).one()
        for status in way:
            values: dict[str, Any] = {"claimed_by": "somebody", "lease_until": datetime.now(UTC) + timedelta(hours=1)}
            if status is RunStatus.STAGING_DATA:
                values["inputs_frozen_at"] = NOW
                name = job_name(installation, run_id=run.id, attempt=1)
                kept = {"directory": f"a/{run.id}", "job_name": name, "prepared_at": NOW}
                session.add(models.RunAttempt(run_id=run.id, number=1, **kept))
            noun = models.ExecutedReductionStep
            assert advance(session, noun, [run.id], to=status, because="a test", by="a test", values=values)


@pytest.fixture
def under_way(works: Works) -> dict[str, int]:
    """Runs on every way, by name."""
    works.define(SCAN)
    works.archived(*WAYS)
    works.create()
    runs = dict(zip(WAYS, works.runs(), strict=True))
    for name, way in WAYS.items():
        bring(works, runs[name], way)
    ids = {name: run.id for name, run in runs.items()}
    run, attempt = models.ExecutedReductionStep, models.RunAttempt
    works.execute(sa.update(run).where(run.id == ids["retried"]).values(retry_at=NOW))
    works.execute(sa.update(attempt).where(attempt.run_id == ids["given up"]).values(ended_at=NOW, abandoned_at=NOW))
    works.execute(sa.update(attempt).where(attempt.run_id == ids["completed"]).values(ended_at=NOW))
    with transaction(works.engine) as session:
        ask_to_cancel(session, [ids["unwanted"]], because="wrong", by="ann", now=NOW)
        together = is_among(attempt.run_id, [ids["submitted"], ids["running"]])
        session.add(models.JobBundle(id=1, data_location_id=works.location_id, size=2))
        session.flush()
        session.execute(sa.update(attempt).where(together).values(job_bundle_id=1))
        session.add(models.SeenService(key="health:x", name="x", host="h", beat_at=NOW, seen_at=NOW))
    return ids


def test_nothing_of_the_old_installation_is_adopted_and_what_is_still_wanted_is_made_by_other_runs(
    works: Works, say: Say, under_way: dict[str, int], tmp_path: Path
) -> None:
    path = json.loads(say("backup", tmp_path / "kept", "--json").stdout)["path"]
    before = {run.id: run.status for run in works.runs()}
    with copy_of(works, Path(path)) as (copy, said):
        runs = {run.id: run for run in copy.runs()}
        now = {name: (runs[number].status, runs[number].not_needed) for name, number in under_way.items()}
        dropped, failed = (RunStatus.CANCELLED, True), (RunStatus.FAILED, True)
        assert now == {
            **dict.fromkeys(("pending", "staging", "submitted", "running"), dropped),
            "unwanted": (RunStatus.CANCELLED, False),
            "collecting": failed,
            "retried": failed,
            "given up": (RunStatus.FAILED, False),
            "completed": (RunStatus.COMPLETED, False),
        }
        assert {run.retry_at for run in runs.values()} == {None}
        assert runs[under_way["unwanted"]].cancel_answer == "cancelled"
        attempts = [attempt for run in runs.values() for attempt in run.attempts]
        assert all(one.ended_at and not one.abandoned_at for one in attempts)
        assert (said["ended"]["runs"], said["ended"]["trials"]) == (7, 0)
        names = {name: runs[number].attempts[0].job_name for name, number in under_way.items() if name != "pending"}
        may_run = ("staging", "unwanted", "collecting", "retried", "given up")
        prefix = f"ccat-{said['manifest']['installation_id'][:8]}-"
        assert set(said["ended"]["jobs"]) == {f"{prefix}bundle-1", *(names[one] for one in may_run)}
        assert all(name.startswith(prefix) for name in names.values())
        assert copy.all(models.SeenService) == []
        assert copy.follow() == 0
        assert copy.create() == 0, "everything is paused"
        assert say_to(copy, "resume", "--all").exit_code == 0
        copy.create()
        made = [run for run in copy.runs() if run.id not in runs]
        again = ("pending", "staging", "submitted", "running", "collecting", "retried")
        assert {one.sub_group_key for one in made} == {runs[under_way[name]].sub_group_key for name in again}
        assert min(run.id for run in made) == 2_000_000
    assert {run.id: run.status for run in works.runs()} == before


def test_a_wish_and_a_transfer_that_were_under_way_go_on(works: Works, say: Say, tmp_path: Path) -> None:
    works.define(SCAN, trigger=TriggerType.MANUAL)
    [package] = works.archived("one")
    works.gap()
    with transaction(works.engine) as session:
        open_wish(session, Wish("toy", "please"), now=datetime.now(UTC), by="ann")
        job = models.StagingJob(raw_data_package_id=package, data_location_id=works.location_id)
        session.add(job)
        session.flush()
        lease = {"claimed_by": "gone", "lease_until": datetime.now(UTC) + timedelta(hours=1)}
        for status in (Status.SCHEDULED, Status.IN_PROGRESS):
            advance(session, models.StagingJob, [job.id], to=status, values=lease, because="a test", by="a test")
    works.create()
    bring(works, works.run(), WAYS["collecting"])
    path = json.loads(say("backup", tmp_path / "kept", "--json").stdout)["path"]
    with copy_of(works, Path(path)) as (copy, _):
        [staging] = copy.all(models.StagingJob)
        assert staging.lease_until is not None
        assert staging.lease_until <= datetime.now(UTC)
        say_to(copy, "resume", "--all")
        copy.create()
        [_, again] = copy.runs()
        assert again.status is RunStatus.PENDING
        assert again.trigger_id is not None
        assert again.reason is RunReason.MISSING


def test_what_a_backup_says_of_definitions_is_what_is_defined(works: Works, say: Say, tmp_path: Path) -> None:
    versions = [works.version(), works.version(version="1.1", state="withdrawn"), works.version(version="1.2")]
    image = {"runtime": "apptainer", "image": "docker://registry/x:1", "image_digest": f"sha256:{'a' * 64}"}
    in_image = {"version": "2026.1", "series": "1e5", "command": ["run", "yes", "0x1F", ": #"], **image}
    scan = {**SCAN, "software": "toy", "config": "odd", "version_policy": "exact", "version": "1.0"}
    rest = {"key": "map", "group_by": ["source"], "software": "boxed", "depends_on": ["calibrate"]}
    flat = {"name": "flat", "from": "night/calibrate", "same": ["instrument_module"], "max_age": "7d"}
    parameters = {"n": None, "e": 1e-7, "text": "5:30\nñ 😀\t'\"", "list": [1, [2.0, "1e5", "~"]], "no": "no"}
    twice = {"any": [{"table": "Source", "column": "name", "operator": "in", "value": ["M17", "007"]}]}
    works.apply(
        {
            "sources": [{"name": "M 17", "ra_deg": 275.1, "dec_deg": -16.0}],
            "observing_programs": [
                {"short_name": "1e5", "observations": [{"name": "-x", "source": "M 17", "obs_mode": "OTF"}]}
            ],
            "software": [
                {"name": "toy", "description": "- no: list", "versions": versions},
                {"name": "boxed", "versions": [in_image]},
            ],
            "configs": [{"name": "odd", "parameters": parameters, "environment": {"LEVEL": "1_000"}}],
            "groupings": [{"name": "all", "rules": []}, {"name": "some", "rules": [twice, twice]}],
            "pipelines": [
                {
                    "name": "night",
                    "grouping": "all",
                    "location": LOCATION_NAME,
                    "trigger": "cron",
                    "trigger_config": {"cron": "30 18 * * *", "time_zone": "America/Santiago"},
                    "owner": "ann",
                    "priority": 3,
                    "limits": {"live": 3, "redo_between": {"from": "22:00", "to": "06:00"}},
                    "steps": [scan, rest],
                },
                {
                    "name": "day",
                    "grouping": "some",
                    "location": LOCATION_NAME,
                    "enabled": False,
                    "steps": [{**rest, "key": "m", "depends_on": [], "software": "toy", "auxiliary": [flat]}],
                },
            ],
        }
    )
    assert VersionState.WITHDRAWN in {one.state for one in works.all(models.ReductionSoftwareVersion)}
    path = Path(json.loads(say("backup", tmp_path / "kept", "--json").stdout)["path"])
    done = say("apply", "-f", path / "definitions.yaml", "--json")
    assert done.exit_code == 0, done.output
    changes = json.loads(done.stdout)["changes"]
    assert {(one["kind"], one["name"]) for one in changes if one["action"] != "unchanged"} == set()
    assert {one["kind"] for one in changes} == {
        "source",
        "observing program",
        "observation",
        "software",
        "version",
        "config",
        "grouping",
        "pipeline",
    }


def test_a_pipeline_keeps_its_owner_when_what_it_uses_is_changed_in_another_file(works: Works) -> None:
    works.define(SCAN, owner="ann")
    state = {"table": "RawDataPackage", "column": "state", "operator": "eq", "value": PackageState.ARCHIVED}
    works.apply({"groupings": [{"name": "toy-grouping", "rules": [state]}]})
    [pipeline] = works.all(models.Pipeline)
    assert len(works.all(models.PipelineRevision)) == 2
    assert pipeline.created_by_user_id is not None
