"""The sizes that this project keeps to, and a reason beside every silenced rule.

Complexity and the number of positional parameters have ceilings too; ruff guards those (C901, PLR0917).
"""

import ast
import io
import re
import statistics
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tools.findings import AnyFunction, Finding, functions, project_files, report

FUNCTION_LINES = 40
MODULE_LINES = 450
EDGE_LINES = 10
EDGES = {
    "src/ccat/cli/**/*.py": {"command", "callback"},
    "src/*/tasks.py": {"task", "shared_task", "make_celery_task"},
}
"""Where commands and queue tasks live, and the decorators that make a function one of them."""

NOT_HELD_TO_SIZES = ("**/tests/**/*.py", "**/migrations/versions/*.py")
"""Tests read best in one piece; a migration is a record, not code that anybody changes."""

DIRECTIVE = re.compile(r"(noqa|type:\s*ignore|ruff:\s*noqa)(\s*:\s*[A-Z]+\d+(\s*,\s*[A-Z]+\d+)*|\[[\w\-, ]*\])?")
A_WORD = re.compile(r"[A-Za-z]{3,}")


def docstring_lines(node: AnyFunction) -> int:
    """How many lines of a function are its docstring."""
    first = node.body[0]
    return (first.end_lineno or first.lineno) - first.lineno + 1 if ast.get_docstring(node, clean=False) else 0


def function_lines(node: AnyFunction) -> int:
    """Lines from `def` to the end, without the docstring."""
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines(node)


def body_lines(node: AnyFunction) -> int:
    """Lines from the first statement to the end, without signature and docstring."""
    statements = node.body[1:] if docstring_lines(node) else node.body
    return (node.end_lineno or node.lineno) - statements[0].lineno + 1 if statements else 0


def decorator_name(decorator: ast.expr) -> str:
    """`task` for `@app.task(queue=…)`, `@app.task` and `@task` alike."""
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")


def is_edge(path: Path, node: AnyFunction) -> bool:
    """Whether the function is a command or a queue task."""
    names = {decorator_name(decorator) for decorator in node.decorator_list}
    return any(matches(path, pattern) and names & decorators for pattern, decorators in EDGES.items())


def matches(path: Path, pattern: str) -> bool:
    """Like `Path.full_match` of Python 3.13: `**` stands for any number of folders, none included."""
    as_regex = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.fullmatch(as_regex, path.as_posix()) is not None


def is_held_to_sizes(path: Path) -> bool:
    """Whether a Python file is code that people change."""
    return not any(matches(path, pattern) for pattern in NOT_HELD_TO_SIZES)


def too_large(path: Path, source: str) -> Iterator[Finding]:
    """Functions, edges and modules past their ceilings."""
    length = source.count("\n")
    if length > MODULE_LINES:
        yield Finding(
            path, 1, f"module of {length} lines, at most {MODULE_LINES}: split it by what its parts are about"
        )
    for node in functions(ast.parse(source)):
        size = function_lines(node)
        if size > FUNCTION_LINES:
            yield Finding(path, node.lineno, f"{node.name} has {size} lines, at most {FUNCTION_LINES}: name its parts")
        elif is_edge(path, node) and body_lines(node) > EDGE_LINES:
            yield Finding(
                path,
                node.lineno,
                f"{node.name} is an edge with a body of {body_lines(node)} lines, at most {EDGE_LINES}: "
                "unpack, call one verb, pack",
            )


def silenced_without_reason(path: Path, source: str) -> Iterator[Finding]:
    """Comments that switch a rule off and do not say why on the same line."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        rest, directives = DIRECTIVE.subn("", token.string)
        if directives and not A_WORD.search(rest):
            yield Finding(
                path, token.start[0], f"`{token.string}` gives no reason: write one behind it on the same line"
            )


def summary(sizes: list[int]) -> str:
    """How far the functions are from the aims, for information."""
    if len(sizes) < 2:  # noqa: PLR2004 - a percentile needs two values
        return f"{len(sizes)} functions"
    highest = statistics.quantiles(sizes, n=20)[-1]
    return f"{len(sizes)} functions: median {statistics.median(sizes):g} lines, aim 8; 95 % ≤ {highest:.0f}, aim 25"


def main(root: Path) -> int:
    """Check every Python file of the project."""
    sources = {path: (root / path).read_text() for path in project_files(root) if path.suffix == ".py"}
    sized = {path: source for path, source in sources.items() if is_held_to_sizes(path)}
    findings = [finding for item in sized.items() for finding in too_large(*item)]
    findings += [finding for item in sources.items() for finding in silenced_without_reason(*item)]
    sizes = [function_lines(node) for source in sized.values() for node in functions(ast.parse(source))]
    return report("ceilings", findings, note=summary(sizes))


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
