"""Why a read failed, in one word that runs count by, and ``heal`` chooses by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from eoray.reading.cog import BrokenFileError
from eoray.reading.ranges import TruncatedError
from eoray.reading.requests import UnreachableError

WORDS = ("timeout", "connection", "truncated", "broken", "mismatch", "missing", "denied", "other")
"""Reasons beside HTTP statuses: no answer in time, no connection or one that was cut, a file or
body that ends early, bytes that do not decode, a file that is not what its item says, no such
file, no right to read it."""

_STATUS = re.compile(r"(?:status code|HTTP response code|HTTP error code)\D{0,4}([45]\d\d)")
_LINK = re.compile(r"[a-z0-9]+://[^\s'\",]+|/vsi\w+/[^\s'\",]+")
_SIGNS = (
    ("503", re.compile(r"(?i)slowdown|reduce your request rate")),
    ("timeout", re.compile(r"(?i)timed ?out|\btimeout\b")),
    ("connection", re.compile(r"(?i)connection ?reset|reset by peer")),
    ("truncated", re.compile(r"(?i)response body error|unexpected end|ends before|ends within")),
    (
        "connection",
        re.compile(r"(?i)error sending request|connection|empty reply|could not resolve"),
    ),
    ("missing", re.compile(r"(?i)no such file|does not exist|not found")),
    (
        "broken",
        re.compile(r"(?i)decode|deflate|inflate|corrupt|code-stream|not recognized as|read failed"),
    ),
)


class MismatchError(Exception):
    """The file differs from its STAC item; another attempt would not help."""


_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (MismatchError, "mismatch"),
    (TruncatedError, "truncated"),
    (BrokenFileError, "broken"),
    (FileNotFoundError, "missing"),
    (PermissionError, "denied"),
    (TimeoutError, "timeout"),
)


def reason_of(error: BaseException) -> str:
    """Name the reason of a failed read.

    Args:
        error: What a reader raised, with its causes.

    Returns:
        An HTTP status such as ``503``, or one of ``WORDS``.
    """
    for cause in _chain(error):
        word = _word_of(cause)
        if word:
            return word
    return "other"


def detail_of(error: BaseException) -> str:
    """What a reader said, in one line without links, which may be signed."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(said.split()).partition(" Debug source:")[0]
    return _LINK.sub("", text)[:200].strip() or type(error).__name__


def host_of(href: str) -> str:
    """Server or bucket of a link, never its path or signature; "" for a local file."""
    parsed = urlsplit(href)
    return "" if parsed.scheme in ("", "file") else parsed.netloc.rpartition("@")[2]


def _word_of(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, UnreachableError) and error.status is not None:
        return str(error.status)
    status = None if isinstance(error, MismatchError) else _STATUS.search(text)
    if status is not None:
        return status[1]
    for kind, word in _KINDS:
        if isinstance(error, kind):
            return word
    return next((word for word, sign in _SIGNS if sign.search(text)), "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
