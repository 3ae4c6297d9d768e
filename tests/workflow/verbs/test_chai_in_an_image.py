"""The steps of the CHAI-like reduction in an image make what they make without one, on this host and through Slurm."""

import hashlib
import json
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from ccat_data_transfer.verbs.planning import plan_packages
from ccat_ops_db import models
from ccat_ops_db.lookup import MODULE, find
from ccat_ops_db.session import transaction
from ccat_ops_db.states import RunStatus
from ccat_ops_db.verbs.scans import NewFile, add_files, finish_scan, start_scan
from ccat_workflow_manager.hpc.images.cache import SifCache
from ccat_workflow_manager.hpc.images.containers import Containers
from ccat_workflow_manager.hpc.slurm.backend import SlurmBackend
from tests.apptainer import OPTIONS
from tests.chai_image import ENVIRONMENT, build_chai_image
from tests.end_to_end.installation import REPOSITORY
from tests.slurm_cluster import SlurmCluster, slurm_cluster
from tests.workflow.verbs.conftest import OpenWorks, Say
from tests.workflow.verbs.works import Works, eventually

pytestmark = pytest.mark.timeout(300)
SCANS = 2
DATA = """
import hashlib, sys
from astropy.io import fits
for name in sys.argv[1:]:
    with fits.open(name) as file:
        print(hashlib.sha256(b"".join(one.data.tobytes() for one in file if one.data is not None)).hexdigest())
"""
EXAMPLE = yaml.safe_load((REPOSITORY / "pipelines/examples/chai.yaml").read_text())


@pytest.fixture(scope="module")
def chai_image(small_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert small_image.exists()
    return build_chai_image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated scans, and what is known of them."""
    folder = tmp_path_factory.mktemp("raw")
    subprocess.run(
        [ENVIRONMENT / "bin/chai", "make-raw", "--seed", "1", "--scans", str(SCANS), "--out", folder], check=True
    )
    return folder


@pytest.fixture
def works(open_works: OpenWorks, tmp_path: Path) -> Iterator[Works]:
    with open_works(tmp_path / "works") as found:
        cache = SifCache(tmp_path / "cache", most_bytes=10**9, patience=timedelta(minutes=1))
        found.workplace = replace(found.workplace, containers={found.location_id: Containers(cache, options=OPTIONS)})
        yield found


def plan(works: Works) -> None:
    """What the example says is observed."""
    works.apply({section: EXAMPLE[section] for section in ("sources", "observing_programs")})


def define(works: Works, *, image: Path | None) -> None:
    """The example's pipeline, up to the map of a night, each of its programs in the image if there is one."""
    document = deepcopy(EXAMPLE)
    for software in document["software"]:
        for version in software["versions"]:
            version.update(_place(image))
            if image is not None:
                del version["environment"], version["distribution"]
    [pipeline] = document["pipelines"]
    pipeline["steps"] = [step for step in pipeline["steps"] if step["key"] in {"calibrate", "baseline", "grid-night"}]
    for step in pipeline["steps"]:
        step.pop("cooldown_seconds", None)
    works.apply(document)


def _place(image: Path | None) -> dict[str, Any]:
    if image is None:
        return {"environment": str(ENVIRONMENT)}
    with image.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"runtime": "apptainer", "image": str(image), "image_digest": f"sha256:{digest}"}


def observe(works: Works, raw: Path) -> None:
    for scan in json.loads((raw / "scans.json").read_text())["scans"]:
        scan_id, path = uuid.UUID(scan["id"]), works.root / "ccat/chai_raw_data" / scan["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(raw / scan["file"], path)
        content = path.read_bytes()
        file = NewFile(uuid.uuid4(), path.name, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")
        with transaction(works.engine) as session:
            start_scan(session, scan_id, "demo-source-co43", started_at=datetime.fromisoformat(scan["start"]))
            add_files(session, scan_id, [file], module="CHAI/LFA", location="ccat/chai_raw_data", by="CHAI")
            finish_scan(session, scan_id, ended_at=datetime.fromisoformat(scan["end"]), expected_files=1)
            plan_packages(session, [(scan_id, find(session, MODULE, "CHAI/LFA").id)])
    works.transfer()


def made(works: Works, raw: Path, *, image: Path | None) -> dict[str, str]:
    """Checksums of what was made of the scans, by step and name."""
    plan(works)
    observe(works, raw)
    define(works, image=image)
    works.settle(within=120)
    runs = works.runs()
    assert {run.status for run in runs} == {RunStatus.COMPLETED}, [run.failure for run in runs]
    assert len(runs) == 2 * SCANS + 1
    found = {
        f"{run.reduction_step.key} {run.sub_group_path.rpartition('-')[0]} {one.relative_path}": one.checksum
        for run in runs
        for one in run.products
    }
    # The headers of maps name their sub-group by the id of its source, which each test has another of.
    maps = {name: works.root / "cologne/ramses" / path for name, path in maps_of(works).items()}
    return {**{name: checksum for name, checksum in found.items() if "science/" not in name}, **digests_of_data(maps)}


def maps_of(works: Works) -> dict[str, str]:
    """Where the maps lie, by their names."""
    copies = {one.data_product_id: one.path for one in works.all(models.DataProductPhysicalCopy)}
    products = works.all(models.DataProduct)
    return {one.relative_path: copies[one.id] for one in products if one.relative_path.startswith("science/")}


def digests_of_data(files: dict[str, Path]) -> dict[str, str]:
    """Digests of the arrays in FITS files, without their headers."""
    python, names = str(ENVIRONMENT / "bin/python"), list(files)
    words = [python, "-c", DATA, *(str(files[name]) for name in names)]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(names, told, strict=True))


@pytest.fixture(scope="module")
def expected(open_works: OpenWorks, raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the steps make without an image."""
    with open_works(tmp_path_factory.mktemp("plain")) as works:
        return made(works, raw, image=None)


def test_on_this_host(expected: dict[str, str], works: Works, raw: Path, chai_image: Path) -> None:
    assert len(expected) == 2 * SCANS + 5
    assert made(works, raw, image=chai_image) == expected
    assert all((one.peak_memory_bytes or 0) > 10**7 for one in works.all(models.RunAttempt))


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as directory, slurm_cluster(Path(directory)) as found:
        yield found


@pytest.fixture
def on_slurm(works: Works, cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Works:
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    backend = SlurmBackend(works.base, grace=timedelta(seconds=3), bundle_size=1)
    works.workplace = replace(works.workplace, backends={works.location_id: backend})
    return works


def test_through_slurm(expected: dict[str, str], on_slurm: Works, raw: Path, chai_image: Path) -> None:
    assert made(on_slurm, raw, image=chai_image) == expected


def test_software_in_an_image_is_asked_to_end_through_slurm_while_its_image_is_there(
    on_slurm: Works, small_image: Path, say: Say, cluster: SlurmCluster
) -> None:
    script = """
        trap 'cat /etc/passwd >/dev/null && echo asked >>"$WORKFLOW_LOG_DIR/asked"; exit 0' TERM
        touch "$WORKFLOW_LOG_DIR/up"
        while :; do sleep 0.05; done
    """
    step = {"key": "wait", "group_by": ["executed_obs_unit"], "software": "waiting"}
    version = {"version": "1.0", "series": "1", "command": ["/bin/sh", "-c", script], **_place(small_image)}
    on_slurm.apply(
        {
            "software": [{"name": "waiting", "versions": [version]}],
            "groupings": [{"name": "all", "rules": []}],
            "pipelines": [{"name": "toy", "grouping": "all", "location": "cologne/ramses", "steps": [step]}],
        }
    )
    on_slurm.observe("counts")
    eventually(lambda: on_slurm.round() >= 0 and list(on_slurm.base.rglob("logs/up")), within=60)
    assert say("run", "cancel", on_slurm.run().id, "--because", "clouds").exit_code == 0
    on_slurm.settle(within=60)
    assert on_slurm.run().status is RunStatus.CANCELLED
    [asked] = on_slurm.base.rglob("logs/asked")
    assert asked.read_text() == "asked\n"
    assert cluster.run("squeue", "--noheader").strip() == ""
