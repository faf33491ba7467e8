"""Logs to stderr: one line an event, for people (console) or machines (json)."""

from __future__ import annotations

import logging
import re
import sys

import structlog
from structlog.typing import Processor

from soundhash_server.settings import Settings, SettingsError

FORMATS = ("console", "json")
LEVELS = ("debug", "info", "warning", "error")
_URL_SECRET = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/@:]*:)[^\s@/]*@", re.IGNORECASE)
# Libraries that tell at "info" what our own lines tell already.
_QUIET = ("arq", "grpc", "asyncio", "aiohttp", "numba", "urllib3", "libav")


def set_up_logging(settings: Settings) -> None:
    """Sends our log lines and those of libraries to stderr, as the settings ask.

    Passwords within URLs are never written. Raises SettingsError for an unknown format or level.
    """
    if settings.log_format not in FORMATS:
        raise SettingsError(f"SOUNDHASH_LOG_FORMAT must be one of {', '.join(FORMATS)}.")
    if settings.log_level not in LEVELS:
        raise SettingsError(f"SOUNDHASH_LOG_LEVEL must be one of {', '.join(LEVELS)}.")
    level = getattr(logging, settings.log_level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if settings.log_format == "json":
        last += [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=repr),
        ]
    else:
        last += [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_RedactingFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class _RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    """Takes secrets out at the very end: also of tracebacks and of values within values."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def without_secrets(text: str) -> str:
    """The text with the passwords of URLs in it replaced by ``***``."""
    return _URL_SECRET.sub(r"\1***@", text)
