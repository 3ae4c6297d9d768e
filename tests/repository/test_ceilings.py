from pathlib import Path

import pytest

from tools import check_ceilings

MODULE = Path("src/ccat/example.py")


def a_function(statements: int, *, decorator: str = "", docstring: str = "") -> str:
    lines = [decorator, "def example():", docstring and f'    """{docstring}"""', *["    step()"] * statements]
    return "\n".join(line for line in lines if line) + "\n"


def messages(path: Path, source: str) -> list[str]:
    return [finding.message for finding in check_ceilings.too_large(path, source)]


def test_a_function_of_forty_lines_passes_and_one_of_forty_one_does_not() -> None:
    assert messages(MODULE, a_function(39)) == []
    assert messages(MODULE, a_function(40)) == ["example has 41 lines, at most 40: name its parts"]


def test_a_long_docstring_does_not_make_a_function_long() -> None:
    assert messages(MODULE, a_function(39, docstring="What it is for.\n" * 30)) == []


def test_a_method_and_a_nested_function_are_measured_too() -> None:
    method = "class Example:\n" + "\n".join(f"    {line}" for line in a_function(45).splitlines()) + "\n"
    assert messages(MODULE, method) == ["example has 46 lines, at most 40: name its parts"]


def test_a_module_past_its_ceiling_is_named_with_its_length() -> None:
    assert messages(MODULE, "x = 1\n" * 450) == []
    assert messages(MODULE, "x = 1\n" * 451) == [
        "module of 451 lines, at most 450: split it by what its parts are about",
    ]


@pytest.mark.parametrize(
    ("path", "decorator"),
    [
        ("src/ccat/cli/runs.py", "@app.command()"),
        ("src/ccat/cli/runs.py", '@app.command("why")'),
        ("src/ccat/cli/__init__.py", "@app.callback()"),
        ("src/ccat_data_transfer/tasks.py", '@celery.task(name="transfer.pack")'),
        ("src/ccat_workflow_manager/tasks.py", "@shared_task"),
    ],
)
def test_an_edge_with_a_long_body_is_told_to_call_one_verb(path: str, decorator: str) -> None:
    assert messages(Path(path), a_function(10, decorator=decorator, docstring="What it does.")) == []
    assert messages(Path(path), a_function(11, decorator=decorator, docstring="What it does.")) == [
        "example is an edge with a body of 11 lines, at most 10: unpack, call one verb, pack",
    ]


@pytest.mark.parametrize(
    ("path", "decorator"),
    [("src/ccat/cli/runs.py", "@cache"), ("src/ccat_ops_db/claims.py", "@app.command()"), ("src/ccat/cli/runs.py", "")],
)
def test_what_is_no_edge_may_have_a_longer_body(path: str, decorator: str) -> None:
    assert messages(Path(path), a_function(20, decorator=decorator)) == []


@pytest.mark.parametrize(
    "silenced",
    [
        "import os  # noqa",
        "import os  # noqa: F401",
        "import os  # noqa: F401, E402",
        "x = y  # type: ignore",
        "x = y  # type: ignore[no-any-return]",
        "x = y  # type: ignore[no-any-return]  # noqa: E501",
        "x = y  # type: ignore[no-any-return] # -",
    ],
)
def test_a_silenced_rule_without_a_reason_is_found(silenced: str) -> None:
    (finding,) = check_ceilings.silenced_without_reason(MODULE, f"x = 1\n{silenced}\n")
    assert finding.line == 2
    assert "gives no reason" in finding.message


@pytest.mark.parametrize(
    "silenced",
    [
        "import os  # noqa: F401 - imported for its side effect",
        "import os  # noqa: F401  # imported for its side effect",
        "x = y  # type: ignore[no-any-return]  # kombu has no types",
        "x = y  # kombu has no types  # type: ignore[no-any-return]",
        'text = "# noqa"',
        "x = y  # an ordinary comment",
    ],
)
def test_a_reason_on_the_same_line_is_enough(silenced: str) -> None:
    assert list(check_ceilings.silenced_without_reason(MODULE, f"{silenced}\n")) == []


def test_the_summary_gives_median_and_percentile() -> None:
    assert check_ceilings.summary([4] * 99 + [30]) == "100 functions: median 4 lines, aim 8; 95 % ≤ 4, aim 25"


@pytest.mark.parametrize(
    ("path", "held"),
    [
        ("src/ccat/cli/runs.py", True),
        ("pipelines/src/ccat_pipelines/chai.py", True),
        ("tests/ops_db/test_moves.py", False),
        ("pipelines/tests/test_chai.py", False),
        ("src/ccat_ops_db/migrations/versions/0001_first.py", False),
    ],
)
def test_tests_and_migrations_are_not_held_to_sizes(path: str, held: bool) -> None:  # noqa: FBT001 - pytest fills it
    assert check_ceilings.is_held_to_sizes(Path(path)) is held
