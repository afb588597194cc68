"""Structured log lines through the standard library: ``event=run_ended run_id=r_… status=completed``.

Bound to our own loggers, below ``navi``, so that neither Jupyter's nor a kernel's structlog configuration is touched.
"""

from __future__ import annotations

import logging
from typing import Any, cast

import structlog

from .redaction import redact_log
from .text import printable

ROOT = "navi"


def get_logger(part: str) -> structlog.stdlib.BoundLogger:
    """The logger ``navi.<part>``: an event name first, then what it is about as keys."""
    logger = structlog.wrap_logger(
        logging.getLogger(f"{ROOT}.{part}"),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            redact_log,
            _printable,
            structlog.processors.LogfmtRenderer(key_order=["event"]),
        ],
    )
    return cast("structlog.stdlib.BoundLogger", logger)


def _printable(_logger: Any, _method: str, event: Any) -> Any:
    """A log line may hold words of a model or of another program, and a console does what control characters say."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}


def send_to(logger: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
    """Let our lines go where another logger's go (the server's), at its level."""
    theirs = logger.logger if isinstance(logger, logging.LoggerAdapter) else logger
    ours = logging.getLogger(ROOT)
    if theirs is ours:
        return
    ours.parent = theirs
    ours.setLevel(theirs.getEffectiveLevel())
