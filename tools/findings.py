"""What the checks of this folder share: which files to read, and how to say what was found."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class Finding:
    """One place that breaks a rule; prints as `path:line: message`, which editors can open."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def project_files(root: Path) -> list[Path]:
    """Every file that is, or could be, committed, relative to `root`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return sorted({Path(name) for name in listing.split("\0") if name and (root / name).is_file()})


def functions(tree: ast.AST) -> Iterator[AnyFunction]:
    """Every function of a module, methods and nested ones included."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def report(check: str, findings: Iterable[Finding], *, note: str = "") -> int:
    """Print the findings, or that there are none; the return value is the exit status."""
    found = sorted(findings)
    for finding in found:
        print(finding, file=sys.stderr)
    print(f"{check}: {f'{len(found)} to mend' if found else 'in order'}{f' ({note})' if note else ''}")
    return 1 if found else 0
