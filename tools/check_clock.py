"""Pure modules are told the time; they do not look at the clock.

Which modules are pure is said once, by the import contract `pure` in `pyproject.toml`. That contract sees imports;
`datetime` has to be importable for its types, so its clock is looked for here.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from tools.findings import Finding, project_files, report

CLOCKS = {"now", "utcnow", "today"}


def pure_modules(pyproject: str) -> list[str]:
    """The dotted names, with their wildcards, that the contract `pure` lists."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    return [name for contract in contracts if contract["id"] == "pure" for name in contract["source_modules"]]


def is_part_of(path: Path, modules: list[str]) -> bool:
    """Whether a file is one of the modules, or lies within one that is a package."""
    dotted = ".".join(path.with_suffix("").parts[1:]).removesuffix(".__init__")
    return path.suffix == ".py" and any(
        fnmatchcase(dotted, name) or fnmatchcase(dotted, f"{name}.*") for name in modules
    )


def looks_at_the_clock(path: Path, source: str) -> Iterator[Finding]:
    """Calls such as `datetime.now(UTC)`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
            yield Finding(path, node.lineno, f"{node.func.attr}() in a pure module: take the moment as a parameter")


def main(root: Path) -> int:
    """Check every module that the contract lists."""
    modules = pure_modules((root / "pyproject.toml").read_text())
    pure = [path for path in project_files(root) if is_part_of(path, modules)]
    return report("clock", [f for path in pure for f in looks_at_the_clock(path, (root / path).read_text())])


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
