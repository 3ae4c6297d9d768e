"""Workers that die or freeze anywhere: whatever they were at is done once, and nothing of them is left."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL, SIGSTOP
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState, PhysicalCopyStatus, Status
from tests.transfer.support import Observatory, digest, eventually

A_MOMENT = timedelta(milliseconds=20)
FILES = {"2026-04-01/a.fits": b"a" * 3_000_000, "b.fits": b"b" * 1000}
ENOUGH = 25


class Mortals:
    """Workers that signal themselves before a chosen step."""

    def __init__(self, url: str, log: Path) -> None:
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).parent / "programs/mortal.py", url],
                cwd=Path(__file__).parents[2],
                env={"PYTHONPATH": "."},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def do(self, operation: Operation, transfer_id: int, *, until_step: int, then: int) -> dict[str, Any]:
        lease = A_MOMENT.total_seconds()
        return self.ask(operation=operation, id=transfer_id, step=until_step, signal=then, lease_s=lease)

    def close(self) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture(scope="module")
def mortals(observatory_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortals]:
    log = tmp_path_factory.mktemp("mortals") / "log"
    mortals = Mortals(observatory_url, log)
    yield mortals
    mortals.close()
    assert "Traceback" not in log.read_text()


def packages_waiting_for(observatory: Observatory, operation: Operation) -> list[int]:
    """Packages that were done up to an operation, one for each step at which a worker may die."""
    packages = [observatory.observe(FILES) for _ in range(ENOUGH)]
    if operation in {Operation.ARCHIVING, Operation.STAGING}:
        observatory.do(Operation.PACKING)
    if operation is Operation.STAGING:
        observatory.do(Operation.ARCHIVING)
        observatory.request_staging(packages)
    return packages


def finish(observatory: Observatory) -> None:
    """What a manager and a healthy worker do about it."""
    eventually(lambda: not _underway(observatory) or observatory.recover() and False)
    observatory.do_all()


def _underway(observatory: Observatory) -> int:
    with transaction(observatory.engine) as session:
        nouns = (models.LongTermArchiveTransfer, models.StagingJob)
        return sum(
            session.scalars(
                sa.select(sa.func.count()).where(noun.status.in_([Status.SCHEDULED, Status.IN_PROGRESS]))
            ).one()
            for noun in nouns
        )


def check_each_once(observatory: Observatory, packages: Sequence[int], *, staged: bool) -> None:
    for package_id in packages:
        package, copies = observatory.package(package_id), observatory.copies(package_id)
        assert package.state is PackageState.ARCHIVED
        assert set(copies) == {"ccat/buffer", "cologne/lta"} | ({"cologne/ramses"} if staged else set())
        for location in ("ccat/buffer", "cologne/lta"):
            tar = observatory.directory(location) / copies[location].path
            assert copies[location].status is PhysicalCopyStatus.PRESENT
            assert digest(tar.read_bytes()) == copies[location].checksum == package.checksum
            assert tar.stat().st_ino == copies[location].inode
        if staged:
            assert copies["cologne/ramses"].status is PhysicalCopyStatus.STAGED
            directory = observatory.directory("cologne/ramses") / copies["cologne/ramses"].path
            assert {str(f.relative_to(directory)): f.read_bytes() for f in directory.rglob("*") if f.is_file()} == FILES
    assert observatory.leftovers() == []
    with transaction(observatory.engine) as session:
        change = models.StatusChange
        ends = session.execute(
            sa.select(change.noun, change.object_id).where(change.to_status.in_(["archived", "completed", "staged"]))
        )
        assert set(Counter(tuple(end) for end in ends).values()) == {1}


@pytest.mark.parametrize("operation", list(Operation))
def test_a_worker_killed_at_any_step_leaves_work_that_is_done_again_once(
    observatory: Observatory, mortals: Mortals, operation: Operation
) -> None:
    packages = packages_waiting_for(observatory, operation)
    scheduled = observatory.schedule(operation, lease=A_MOMENT)
    ends = [
        mortals.do(operation, transfer_id, until_step=step, then=SIGKILL)["ended"]
        for step, transfer_id in enumerate(scheduled, start=1)
    ]
    finish(observatory)

    assert Counter(ends)["killed"] >= 8
    assert set(ends) == {"killed", "done"}
    check_each_once(observatory, packages, staged=operation is Operation.STAGING)


@pytest.mark.parametrize("operation", list(Operation))
def test_a_worker_frozen_at_any_step_does_no_harm_when_it_wakes_up_after_another_did_its_work(
    observatory: Observatory, mortals: Mortals, operation: Operation
) -> None:
    packages = packages_waiting_for(observatory, operation)
    scheduled = observatory.schedule(operation, lease=A_MOMENT)
    frozen = [
        worker["pid"]
        for step, transfer_id in enumerate(scheduled, start=1)
        if (worker := mortals.do(operation, transfer_id, until_step=step, then=SIGSTOP))["ended"] == "stopped"
    ]
    finish(observatory)
    awake = [mortals.ask(**{"continue": pid})["ended"] for pid in frozen]
    observatory.do_all()

    assert len(frozen) >= 5
    assert set(awake) == {"done"}
    check_each_once(observatory, packages, staged=operation is Operation.STAGING)
