from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccat.cli import app
from ccat.demo.directory import DemoRunning, NotADemosDirectory, clear, demo_directory


def test_a_directory_that_no_demo_made_is_refused_and_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "stack" / "thesis.tex"
    precious.parent.mkdir()
    precious.touch()
    with pytest.raises(NotADemosDirectory, match="no demo made"), demo_directory(tmp_path):
        pass
    assert precious.exists()


def test_an_empty_directory_and_one_of_an_earlier_demo_are_taken(tmp_path: Path) -> None:
    for _ in range(2):
        with demo_directory(tmp_path / "new") as directory:
            directory.cache.mkdir(exist_ok=True)
            directory.stack.root.mkdir()
            clear(directory)
    assert directory.cache.exists()
    assert not directory.stack.root.exists()


def test_two_demos_at_once_in_one_directory_are_refused(tmp_path: Path) -> None:
    running = demo_directory(tmp_path / "new")
    with running, pytest.raises(DemoRunning, match="A demo is running"), demo_directory(tmp_path / "new"):
        pass


@pytest.mark.parametrize(
    ("option", "told"),
    [("--data-dir", "holds something that no demo made"), ("--pipelines-env", "bin/chai is missing.")],
)
def test_the_command_says_what_it_cannot_use(tmp_path: Path, option: str, told: str) -> None:
    (tmp_path / "thesis.tex").touch()
    result = CliRunner().invoke(app, ["demo", "--data-dir", str(tmp_path / "demo"), option, str(tmp_path)])
    assert result.exit_code == 1
    assert told in result.stderr
    assert (tmp_path / "thesis.tex").exists()
