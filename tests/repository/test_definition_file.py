"""The file that images of the reductions are built from."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "pipelines/apptainer.def").read_text()


def section(name: str) -> str:
    return re.split(r"^%\w+\n", TEXT.partition(f"%{name}\n")[2], flags=re.MULTILINE)[0]


def test_all_that_it_copies_is_there() -> None:
    copied = [line.split() for line in section("files").splitlines() if line.strip()]
    assert len(copied) >= 5
    assert [source for source, _ in copied if not (ROOT / source).exists()] == []


def test_what_it_tests_is_what_is_installed() -> None:
    modules = re.findall(r"ccat_pipelines(?:\.\w+)+", section("test"))
    assert modules
    for module in modules:
        assert (ROOT / "pipelines/src" / module.replace(".", "/")).with_suffix(".py").exists(), module
    programs = re.findall(r"^ +(\w+) --version", section("test"), re.MULTILINE)
    assert programs
    pyproject = (ROOT / "pipelines/pyproject.toml").read_text()
    assert all(re.search(rf"^{program} = ", pyproject, re.MULTILINE) for program in programs)
