import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from ccat_service.logging import StructuredLogger, configure_logging
from ccat_service.settings import SettingsError


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hook = root.handlers[:], root.level, sys.excepthook
    root.handlers = []  # else configuring would close those of pytest
    yield
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    root.handlers, sys.excepthook = handlers, hook
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_object_with_its_context_and_the_time_in_utc() -> None:
    stream = io.StringIO()
    log = StructuredLogger("ccat.test", component="tests")  # made before logging is configured
    configure_logging(stream=stream)
    log.bind(run=7).warning("step failed", exit_code=65)
    (event,) = events(stream)
    age = datetime.now(UTC) - datetime.fromisoformat(event.pop("timestamp"))
    assert timedelta() <= age < timedelta(minutes=1)
    assert event == {
        "event": "step failed",
        "logger": "ccat.test",
        "level": "warning",
        "component": "tests",
        "run": 7,
        "exit_code": 65,
    }


def test_an_exception_is_one_event_that_shows_the_traceback_but_no_local_variable() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    password, _local = "x", "hidden"
    try:
        int(password)
    except ValueError as error:
        StructuredLogger("ccat.test").exception("round failed", error)
    (event,) = events(stream)
    assert event["exception"][0]["exc_type"] == "ValueError"
    assert event["exception"][0]["frames"][0]["name"].startswith("test_an_exception_is_one_event")
    assert "hidden" not in stream.getvalue()


def test_libraries_speak_through_the_same_door() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    logging.getLogger("alembic.env").warning("odd revision %s", "0001")
    logging.getLogger("celery.worker").info("chatter")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(capture=True)
        warnings.warn("old", UserWarning, stacklevel=1)
    revision, warning = events(stream)
    assert (revision["event"], revision["logger"], revision["level"]) == ("odd revision 0001", "alembic.env", "warning")
    assert "UserWarning: old" in warning["event"]


def test_an_uncaught_error_is_an_event_too() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    error = RuntimeError("broken")
    sys.excepthook(RuntimeError, error, None)
    (event,) = events(stream)
    assert event["exception"][0]["exc_value"] == "broken"


def test_a_terminal_gets_text_unless_json_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    configure_logging(stream=terminal)
    StructuredLogger("ccat.test").info("manager started", manager="trigger")
    assert "manager started" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
    monkeypatch.setenv("CCAT_LOG", "json")
    configure_logging(stream=(asked := Terminal()))
    StructuredLogger("ccat.test").info("manager started")
    assert events(asked)[0]["event"] == "manager started"


def test_an_unknown_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCAT_LOG", "xml")
    with pytest.raises(SettingsError, match=r"^CCAT_LOG: must be one of json, console$"):
        configure_logging()
