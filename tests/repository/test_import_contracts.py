"""The import contracts of `pyproject.toml`, on a small tree with one forbidden import each."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tools.check_clock import is_part_of

ROOT = Path(__file__).parents[2]
TOOL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
PACKAGES = TOOL["importlinter"]["root_packages"]
CONTRACTS = {contract["id"]: contract for contract in TOOL["importlinter"]["contracts"]}

FORBIDDEN = {
    "layers: up": ({"ccat_ops_db/claims.py": "import ccat_service"}, "layers"),
    "layers: sideways": ({"ccat_data_transfer/verbs.py": "import ccat_workflow_manager"}, "layers"),
    "pure: session": ({"ccat_ops_db/states.py": "import sqlalchemy"}, "pure"),
    "pure: clock": ({"ccat_workflow_manager/plan.py": "import time"}, "pure"),
    "pure: by a detour": (
        {"ccat_data_transfer/plan.py": "import ccat_ops_db.claims", "ccat_ops_db/claims.py": "import sqlalchemy"},
        "pure",
    ),
    "pure: part of a package": ({"ccat_workflow_manager/plan/gap.py": "import socket"}, "pure"),
    "pure: parsing": ({"ccat_ops_db/grouping/rules.py": "from sqlalchemy.orm import Session"}, "pure"),
    "celery": ({"ccat_workflow_manager/managers.py": "import celery"}, "celery"),
    "fastapi": ({"ccat/app.py": "import fastapi"}, "fastapi"),
    "outside: process": ({"ccat_service/loop.py": "import subprocess"}, "outside"),
    "outside: object store": ({"ccat_data_transfer/verbs.py": "import boto3"}, "outside"),
    "acyclic": (
        {"ccat_ops_db/claims.py": "import ccat_ops_db.session", "ccat_ops_db/session.py": "import ccat_ops_db.claims"},
        "acyclic",
    ),
}
ALLOWED = {
    "ccat/wiring.py": "import ccat_workflow_manager, ccat_service, ccat_ops_db",
    "ccat_data_transfer/tasks.py": "from celery import shared_task",
    "ccat_service/tasks.py": "import celery",
    "ccat_workflow_manager/hpc/local.py": "import subprocess",
    "ccat_data_transfer/backends/s3.py": "import boto3",
    "ccat_workflow_manager/plan.py": "from datetime import datetime",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Empty packages, and the one pure module that the contract names without a wildcard."""
    for package in PACKAGES:
        write(tmp_path, f"{package}/__init__.py", "")
    write(tmp_path, "ccat_ops_db/states.py", "")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return tmp_path


def write(tree: Path, path: str, line: str) -> None:
    module = tree / path
    module.parent.mkdir(exist_ok=True)
    (module.parent / "__init__.py").touch()
    module.write_text(f"{line}\n")


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "200"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", FORBIDDEN)
def test_a_forbidden_import_breaks_its_contract_and_no_other(case: str, tree: Path) -> None:
    modules, expected = FORBIDDEN[case]
    for path, line in modules.items():
        write(tree, path, line)
    answer = lint_imports(tree)
    broken = {key for key, contract in CONTRACTS.items() if f"{contract['name']} BROKEN" in answer.stdout}
    assert (answer.returncode, broken) == (1, {expected}), answer.stdout


def test_what_the_architecture_allows_keeps_every_contract(tree: Path) -> None:
    for path, line in ALLOWED.items():
        write(tree, path, line)
    answer = lint_imports(tree)
    assert answer.returncode == 0, answer.stdout


def test_every_package_is_shipped_and_has_its_layer() -> None:
    packages = {path.parent.name for path in (ROOT / "src").glob("*/__init__.py")}
    layers = {name for layer in CONTRACTS["layers"]["layers"] for name in layer.replace("|", " ").split()}
    shipped = {Path(path).name for path in TOOL["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert packages == set(PACKAGES) == layers == shipped


@pytest.mark.parametrize("name", CONTRACTS["pure"]["source_modules"])
def test_every_pure_name_stands_for_a_module_that_exists(name: str) -> None:
    modules = [path.relative_to(ROOT) for path in (ROOT / "src").rglob("*.py")]
    assert [path for path in modules if is_part_of(path, [name])]
