from pathlib import Path

import pytest

from tools import check_moves

MODULE = Path("src/ccat_workflow_manager/verbs/claim.py")


def lines(source: str) -> list[int]:
    return [finding.line for finding in check_moves.written_statuses(MODULE, source)]


@pytest.mark.parametrize(
    "write",
    [
        "run.status = RunStatus.FAILED",
        "run.state: PackageState = PackageState.ARCHIVED",
        "run.status, run.because = RunStatus.FAILED, why",
        "self.run.status = RunStatus.FAILED",
        'setattr(run, "status", RunStatus.FAILED)',
        "session.execute(update(Run).where(Run.id == 1).values(status=RunStatus.FAILED))",
        "session.execute(sa.update(Run).values({Run.status: RunStatus.FAILED}))",
        'session.execute(sa.update(Run).values({"state": "failed"}))',
        "statement = statement.values(status=RunStatus.FAILED)",
        "session.query(Run).update({Run.status: RunStatus.FAILED})",
        'insert(Run).values(id=1).on_conflict_do_update(set_={"status": "failed"})',
        "session.execute(text(\"UPDATE run SET attempts = 1, status = 'failed' WHERE id = 1\"))",
    ],
)
def test_a_status_written_behind_the_back_of_advance_is_found(write: str) -> None:
    assert lines(f"x = 1\n{write}\n") == [2]


@pytest.mark.parametrize(
    "free",
    [
        "run = Run(status=RunStatus.PENDING)",
        "session.execute(insert(Run).values(status=RunStatus.PENDING))",
        "session.execute(pg_insert(Run).values([{'status': RunStatus.PENDING}]).on_conflict_do_nothing())",
        "seen.update({'status': 'failed'})",
        "where = Run.status == RunStatus.FAILED",
        "status = run.status",
        "names = states.values()",
        'explanation = "an update of the set of states"',
        "class Job:\n    def __init__(self) -> None:\n        self.state = 'new'",
    ],
)
def test_reading_creating_and_other_things_called_status_are_free(free: str) -> None:
    assert lines(f"{free}\n") == []


@pytest.mark.parametrize(
    ("path", "watched"),
    [
        ("src/ccat_workflow_manager/verbs/claim.py", True),
        ("src/ccat_ops_db/claims.py", True),
        ("src/ccat_ops_db/moves.py", False),
        ("src/ccat_ops_db/migrations/versions/0001_first.py", False),
        ("tests/ops_db/test_moves.py", False),
        ("src/ccat/py.typed", False),
    ],
)
def test_all_of_src_is_watched_but_the_writer_and_the_migrations(path: str, watched: bool) -> None:  # noqa: FBT001 - pytest fills it
    assert check_moves.is_watched(Path(path)) is watched
