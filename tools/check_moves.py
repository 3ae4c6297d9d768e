"""Only `advance()` writes a status: no other code of `src/` assigns one or updates such a column.

Creating a row with its first status is no move and is free: a constructor argument, or `insert(…).values(status=…)`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.findings import Finding, functions, project_files, report

COLUMNS = {"status", "state"}
THE_WRITER = Path("src/ccat_ops_db/moves.py")
SQL_UPDATE = re.compile(r"\bupdate\b.+\bset\b[^;]*\b(?:status|state)\s*=", re.IGNORECASE | re.DOTALL)


def constructed(tree: ast.AST) -> set[ast.AST]:
    """What `__init__` gives its own object: `self.state = …`."""
    constructors = [function for function in functions(tree) if function.name == "__init__"]
    stores = [node for function in constructors for node in ast.walk(function) if isinstance(node, ast.Attribute)]
    return {node for node in stores if isinstance(node.value, ast.Name) and node.value.id == "self"}


def assigned_attributes(tree: ast.AST) -> Iterator[ast.AST]:
    """`run.status = …`, in any of its forms."""
    return (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in COLUMNS
    )


def names_in_chain(node: ast.expr) -> Iterator[str]:
    """`values`, `where`, `update` for `update(Run).where(…).values`."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            yield node.attr
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return
    yield node.id


def names_a_column(key: ast.expr | None) -> bool:
    """Whether a key of a dictionary is `"status"` or `Run.status`."""
    return (isinstance(key, ast.Constant) and key.value in COLUMNS) or is_column(key)


def is_column(key: ast.expr | None) -> bool:
    """Whether a key of a dictionary is `Run.status`."""
    return isinstance(key, ast.Attribute) and key.attr in COLUMNS


def holds_a_column(argument: ast.expr) -> bool:
    """Whether a literal dictionary, or one in a list, has a status among its keys."""
    return any(names_a_column(key) for node in ast.walk(argument) if isinstance(node, ast.Dict) for key in node.keys)


def updates_a_column(call: ast.Call) -> bool:
    """Whether a call is a Core or ORM update of a status, or `setattr` of one."""
    chain = list(names_in_chain(call.func))
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    match chain[:1]:
        case ["values"]:
            written = keywords.keys() & COLUMNS or any(holds_a_column(argument) for argument in call.args)
            return bool(written) and not any(name.endswith("insert") for name in chain)
        case ["on_conflict_do_update"]:
            return "set_" in keywords and holds_a_column(keywords["set_"])
        case ["update"]:
            return any(
                is_column(key) for argument in call.args if isinstance(argument, ast.Dict) for key in argument.keys
            )
        case ["setattr"]:
            return any(names_a_column(argument) for argument in call.args[1:2])
    return False


def writes_in_sql(node: ast.AST) -> bool:
    """Whether a string is an UPDATE statement that sets a status."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(SQL_UPDATE.search(node.value))


def written_statuses(path: Path, source: str) -> Iterator[Finding]:
    """Places of one module that write a status behind `advance()`'s back."""
    tree = ast.parse(source)
    writes = set(assigned_attributes(tree)) - constructed(tree)
    writes |= {node for node in ast.walk(tree) if isinstance(node, ast.Call) and updates_a_column(node)}
    writes |= {node for node in ast.walk(tree) if writes_in_sql(node)}
    for line in {getattr(node, "lineno", 1) for node in writes}:
        yield Finding(path, line, "writes a status: only advance() does, which checks the move and keeps its history")


def is_watched(path: Path) -> bool:
    """All of `src/`, but for the writer itself and the migrations, which know tables and no moves."""
    return path.suffix == ".py" and path.parts[0] == "src" and path != THE_WRITER and "versions" not in path.parts


def main(root: Path) -> int:
    """Check every module of `src/`."""
    watched = [path for path in project_files(root) if is_watched(path)]
    findings = [finding for path in watched for finding in written_statuses(path, (root / path).read_text())]
    return report("moves", findings)


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
