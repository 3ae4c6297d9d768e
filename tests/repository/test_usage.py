"""What a program reads that uses a command wrongly, and what anybody reads when a defect is met."""

import json
import subprocess
import sys

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from ccat.cli.errors import reported


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("runs", "--status", "FOO"), "Invalid value for '--status'"),
        (("lineage", "x"), "Invalid value for 'PRODUCT'"),
        (("run", "show", "99999999999999999999"), "Invalid value for 'RUN'"),
        (("apply", "-f", "/nope"), "Invalid value for '--file'"),
        (("nosuch",), "No such command 'nosuch'"),
    ],
)
def test_wrong_usage_is_an_object_where_json_is_asked_for(words: tuple[str, ...], message: str) -> None:
    command = [sys.executable, "-m", "ccat", *words, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    told = json.loads(ended.stderr)
    assert told["code"] == "usage"
    assert told["message"].startswith(message)


def test_a_defect_is_told_in_one_line_and_shown_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "unexpected KeyError: 'x'. This is a defect, please report it; CCAT_DEBUG=1 shows where it is"
    with pytest.raises(SystemExit, match="1"), reported():
        raise KeyError("x")
    assert capsys.readouterr().err == f"error: {told}\n"
    monkeypatch.setenv("CCAT_DEBUG", "1")
    with pytest.raises(SystemExit), reported(as_json=True):
        raise KeyError("x")
    *traceback, last = capsys.readouterr().err.splitlines()
    assert traceback[0] == "Traceback (most recent call last):"
    assert json.loads(last) == {"code": "unexpected", "message": told}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device; nothing more was done"),
        (TimeoutError("the connection timed out"), "the connection timed out; nothing more was done"),
        (
            OperationalError("SELECT 1", {}, psycopg.errors.TooManyConnections("too many clients")),
            "(psycopg.errors.TooManyConnections) too many clients; try it again",
        ),
    ],
)
def test_trouble_of_the_system_is_not_called_a_defect(
    capsys: pytest.CaptureFixture[str], error: Exception, told: str
) -> None:
    with pytest.raises(SystemExit, match="1"), reported():
        raise error
    assert capsys.readouterr().err == f"error: {told}\n"


def test_of_a_process_the_log_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), reported(last_resort=False):
        raise KeyError("x")
    assert capsys.readouterr().err == ""
