"""What the documents at the top of the tree name has to exist."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))

CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
MAKE = re.compile(r"^\s*make ([a-z][a-z-]*)\b", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
SOURCE = re.compile(r"^(?:src|tests|tools|docs|pipelines|requirements)/[\w./-]*$")


def code_of(document: Path) -> list[str]:
    return [block or span for block, span in CODE.findall((ROOT / document).read_text())]


def make_targets() -> set[str]:
    listing = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True, env=plain()).stdout
    return {line.split()[1] for line in listing.splitlines() if line.startswith("  make ")}


def plain() -> dict[str, str]:
    """The environment without what an outer make hands down."""
    return {
        name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_make_targets_that_a_document_names_exist(document: Path) -> None:
    named = {target for code in code_of(document) for target in MAKE.findall(code)}
    assert named <= make_targets()


def test_the_readme_names_the_two_commands() -> None:
    assert {"demo", "test"} <= {target for code in code_of(Path("README.md")) for target in MAKE.findall(code)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_within_the_tree_lead_somewhere(document: Path) -> None:
    links = [link for link in LINK.findall((ROOT / document).read_text()) if "://" not in link]
    assert [link for link in links if not (ROOT / document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_files_that_a_document_names_exist(document: Path) -> None:
    named = [code for code in code_of(document) if SOURCE.match(code)]
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_decision_is_in_the_list() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    pages = [path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")]
    assert [name for name in pages if f"({name})" not in index] == []
