"""Log events: one JSON line each on stderr, or a readable line on a terminal.

eoray logs through the standard logger ``eoray``. As a library it configures nothing, so that
warnings reach stderr and the rest stays silent until the caller says otherwise; the command line
calls :func:`configure_logging`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TextIO, cast

import structlog

from eoray.masking import mask

Style = Literal["auto", "json", "console"]

LOGGER_NAME = "eoray"

_BEFORE_RENDERING: tuple[structlog.typing.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
)


def get_logger(**bound: Any) -> structlog.stdlib.BoundLogger:
    """Return eoray's logger: ``get_logger().info("wave committed", tiles=12)``.

    Args:
        **bound: Values that every event of this logger carries.
    """
    logger = structlog.wrap_logger(
        logging.getLogger(LOGGER_NAME),
        processors=[
            structlog.stdlib.filter_by_level,
            *_BEFORE_RENDERING,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return cast("structlog.stdlib.BoundLogger", logger.bind(**bound))


@contextmanager
def bind_context(**values: Any) -> Iterator[None]:
    """Add ``run``, ``tile``, ``worker`` or the like to all events within the block.

    Args:
        **values: What to add; values bound further out come back at the end.
    """
    with structlog.contextvars.bound_contextvars(**values):
        yield


def configure_logging(
    *,
    level: str = "INFO",
    style: Style = "auto",
    stream: TextIO | None = None,
    copy: str | None = None,
    secrets: Sequence[str] = (),
) -> None:
    """Send eoray's events to a stream; a second call replaces the first.

    Args:
        level: Least level that is written, by its standard name.
        style: ``json``, ``console``, or ``auto``: console where the stream is a terminal.
        stream: Where to write; None takes stderr.
        copy: File that gets every event as a line of JSON too, such as a container's output.
        secrets: Values that are masked wherever they occur; links and headers are in any case.
    """
    target = sys.stderr if stream is None else stream
    readable = style == "console" or (style == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        _formatter(secrets, readable=readable, colors=readable and target.isatty())
    )
    logger = logging.getLogger(LOGGER_NAME)
    logger.handlers = [handler]
    if copy is not None:
        second = logging.FileHandler(copy, mode="a", delay=True)
        second.setFormatter(json_formatter(secrets))
        logger.addHandler(second)
    logger.setLevel(level)
    logger.propagate = False


def json_formatter(secrets: Sequence[str] = ()) -> logging.Formatter:
    """Write events as lines of JSON, without what must stay secret."""
    return _formatter(secrets, readable=False, colors=False)


class _MaskingFormatter(structlog.stdlib.ProcessorFormatter):
    """Masks whatever was rendered, tracebacks too."""

    secrets: Sequence[str] = ()

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record), self.secrets)


def _formatter(secrets: Sequence[str], *, readable: bool, colors: bool) -> logging.Formatter:
    renderers: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0)]
        if readable
        else [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    )
    stamp = structlog.processors.TimeStamper(
        fmt="%H:%M:%S" if readable else "iso", utc=not readable
    )
    formatter = _MaskingFormatter(
        # Events of plain `logging` calls below the same name get the same fields.
        foreign_pre_chain=_BEFORE_RENDERING,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, stamp, *renderers],
    )
    formatter.secrets = secrets
    return formatter
