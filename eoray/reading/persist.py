"""Read a file again after what came of it was broken, and leave a busy server alone meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from eoray.reading.cog import forget_header
from eoray.reading.gdal import forget_answers
from eoray.reading.reasons import MismatchError
from eoray.reading.requests import Patience, UnreachableError, is_busy, refuse_turns

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.4, 20.0
"""Longest pause before the second attempt, four times as long before each one after it."""


class GaveUpError(Exception):
    """The end of all attempts; its cause is the last failure."""

    def __init__(self, attempts: int) -> None:
        super().__init__(f"gave up after {attempts} attempts")
        self.attempts = attempts


def persist[T](read: Callable[[Patience], T], href: str, patience: Patience) -> T:
    """Read a file, again if what came was broken; own requests have attempts of their own.

    Pauses are a random part of a time that grows, so that workers which failed together do not
    come back together. Where GDAL was told that a server is busy, nothing else is asked of it
    for a moment; GDAL does not show how long the server wanted.

    Args:
        read: Called for each attempt.
        href: The file; what is known of it is forgotten after a failure.
        patience: How often, and for how long.

    Raises:
        GaveUpError: Attempts or time ran out, or another attempt would not help.
    """
    pace = patience.pace
    for attempt in range(patience.retries + 1):
        asked_at = pace.now()
        try:
            return read(patience)
        except read_errors() as error:
            forget_header(href)  # of a file that may be another one next time
            forget_answers(href)
            if isinstance(error, (MismatchError, UnreachableError)):
                raise GaveUpError(getattr(error, "attempts", attempt + 1)) from error
            pause_s = pace.chance() * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 4**attempt)
            if is_busy(error):
                refuse_turns(href, asked_at, min(pause_s, _FIRST_PAUSE_S), patience)
            if attempt == patience.retries or pause_s > patience.left_s:
                raise GaveUpError(attempt + 1) from error
            pace.sleep(pause_s)
    raise AssertionError  # pragma: no cover - the loop returns or raises


def read_errors() -> tuple[type[BaseException], ...]:
    """What reading a file raises, by eoray itself or by GDAL."""
    from rasterio.errors import RasterioError

    return (RasterioError, OSError, MismatchError)
