from pathlib import Path

import pytest

from tools import check_clock

PYPROJECT = """
[[tool.importlinter.contracts]]
id = "layers"
source_modules = ["ccat_service"]

[[tool.importlinter.contracts]]
id = "pure"
source_modules = ["ccat_ops_db.states", "**.plan"]
"""


@pytest.mark.parametrize(
    "look", ["datetime.now(UTC)", "dt.datetime.now(tz=dt.UTC)", "date.today()", "datetime.utcnow()"]
)
def test_a_pure_module_that_looks_at_the_clock_is_found(look: str) -> None:
    (finding,) = check_clock.looks_at_the_clock(Path("src/ccat_data_transfer/plan.py"), f"x = 1\nmoment = {look}\n")
    assert finding.line == 2
    assert finding.message.endswith("() in a pure module: take the moment as a parameter")


def test_a_moment_that_is_passed_in_is_fine() -> None:
    source = "def is_due(at: datetime, now: datetime) -> bool:\n    return at <= now\n"
    assert list(check_clock.looks_at_the_clock(Path("src/ccat_data_transfer/plan.py"), source)) == []


@pytest.mark.parametrize(
    ("path", "pure"),
    [
        ("src/ccat_ops_db/states.py", True),
        ("src/ccat_workflow_manager/plan.py", True),
        ("src/ccat_workflow_manager/plan/__init__.py", True),
        ("src/ccat_workflow_manager/plan/gap.py", True),
        ("src/ccat_ops_db/claims.py", False),
        ("src/ccat_workflow_manager/planner.py", False),
    ],
)
def test_the_import_contract_says_which_modules_are_pure(path: str, pure: bool) -> None:  # noqa: FBT001 - pytest fills it
    assert check_clock.is_part_of(Path(path), check_clock.pure_modules(PYPROJECT)) is pure
