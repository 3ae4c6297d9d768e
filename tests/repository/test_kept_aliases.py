"""A module keeps no alias whose columns are looked up later, as threads that do so at once get other columns."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src"


def kept_aliases(source: str) -> Iterator[int]:
    """Lines on which a module makes an alias by itself, and not within a function, where each call has its own."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and "aliased" in _names(node.func):
                yield node.lineno


def _names(function: ast.expr) -> set[str | None]:
    return {getattr(function, "attr", None), getattr(function, "id", None)}


def test_modules_keep_aliases_that_are_complete() -> None:
    found = {str(path): list(kept_aliases(path.read_text())) for path in SOURCES.rglob("*.py")}
    assert {path: lines for path, lines in found.items() if lines} == {}, "use ccat_ops_db.sets.once_more"


def test_an_alias_that_is_kept_is_found() -> None:
    planted = "a, b = 1, sa.orm.aliased(X)\nc: int = aliased(Y)\ndef f():\n    return aliased(Z)\n"
    assert list(kept_aliases(planted)) == [1, 2]
