import logging
import os
import sys
from types import TracebackType
from typing import IO, Final, Self

import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.typing import Processor

from ccat_service.settings import SettingsError

_FORMATS: Final = ("json", "console")
_CHATTERERS: Final = ("alembic", "celery", "kombu", "sqlalchemy")
"""Libraries that are heard from WARNING on: what they tell at INFO, our own events say better."""


class StructuredLogger:
    """Logger of events: a constant sentence that can be counted, and what is particular about it as facts.

    `log.warning("step failed", run=7, exit_code=65)`. May be made at import: nothing is configured or written by it.
    """

    def __init__(self, name: str, **context: object) -> None:
        self._logger: BoundLogger = structlog.stdlib.get_logger(name, **context)

    def bind(self, **context: object) -> Self:
        """A logger that adds these facts to each of its events."""
        bound = object.__new__(type(self))
        bound._logger = self._logger.bind(**context)
        return bound

    def debug(self, event: str, **facts: object) -> None:
        """Something for whoever looks for a fault."""
        self._logger.debug(event, **facts)

    def info(self, event: str, **facts: object) -> None:
        """Something that happened as it should."""
        self._logger.info(event, **facts)

    def warning(self, event: str, **facts: object) -> None:
        """Something that mends itself, or that somebody should look at some day."""
        self._logger.warning(event, **facts)

    def error(self, event: str, **facts: object) -> None:
        """Something that does not mend itself."""
        self._logger.error(event, **facts)

    def exception(self, event: str, error: BaseException, **facts: object) -> None:
        """An unexpected error with its traceback, as one event."""
        self._logger.error(event, exc_info=error, **facts)


def configure_logging(*, level: str = "INFO", stream: IO[str] | None = None) -> None:
    """Send every event of this process, those of libraries too, to `stream` (standard error).

    One JSON object per line, or coloured text where `stream` is a terminal; CCAT_LOG=json or console overrides.
    Called once, by the composition root.
    """
    stream = stream or sys.stderr
    structlog.configure(
        processors=[*_common(), ProcessorFormatter.wrap_for_formatter],
        wrapper_class=BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ProcessorFormatter(foreign_pre_chain=_common(), processors=_rendering(stream)))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in _CHATTERERS:
        logging.getLogger(name).setLevel("WARNING")
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught


def _format(stream: IO[str]) -> str:
    chosen = os.environ.get("CCAT_LOG") or ("console" if stream.isatty() else "json")
    if chosen not in _FORMATS:
        raise SettingsError("CCAT_LOG", f"must be one of {', '.join(_FORMATS)}")
    return chosen


def _common() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _rendering(stream: IO[str]) -> list[Processor]:
    # Neither renderer shows local variables: they may hold a password.
    if _format(stream) == "console":
        plain = structlog.dev.plain_traceback
        console = structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)
        return [ProcessorFormatter.remove_processors_meta, console]
    transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        ProcessorFormatter.remove_processors_meta,
        structlog.processors.ExceptionRenderer(transformer),
        structlog.processors.JSONRenderer(default=str),
    ]


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        StructuredLogger("ccat").exception("the process dies of an unexpected error", error)
