"""A `ccat` command that a document or a message names has to exist."""

import re
from pathlib import Path

import pytest
import typer

from ccat.cli import app

ROOT = Path(__file__).parents[2]
TEXTS = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.py")))
NAMED = re.compile(r"`ccat ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")
COMMANDS = typer.main.get_command(app)


def exists(first: str, second: str) -> bool:
    command = COMMANDS.commands.get(first)  # type: ignore[attr-defined]  # the command of an app is a group
    groups = getattr(command, "commands", None)
    return command is not None and (groups is None or not second or second in groups)


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_a_text_names_exist(text: Path) -> None:
    missing = [words for words in NAMED.findall(text.read_text()) if not exists(*words)]
    assert missing == []


def test_a_command_that_is_missing_would_be_found() -> None:
    assert not exists("packages-of-nobody", "")
    assert not exists("package", "forget")
    assert exists("package", "retry")
