"""Rights to read, fetched when and where they are needed; never written anywhere."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from eoray.reading.requests import (
    AnswerError,
    Patience,
    UnreachableError,
    ask_for,
    ask_plainly,
)

_MARGIN_S = 60.0
"""A right is renewed so long before its end, or at nine tenths of a short life."""

_TIMEOUT_S = 20.0

_KEY_VARIABLE = "PC_SDK_SUBSCRIPTION_KEY"
"""Planetary Computer's name for a key that grants more requests; it is not needed."""


@dataclass(frozen=True, slots=True)
class _Right:
    query: str
    renew_at: float
    """Seconds since 1970."""


_rights: dict[str, _Right] = {}
_lock = threading.Lock()


def signature(token_url: str, patience: Patience) -> str:
    """The query that gives the right to read, fetched or kept from before.

    Args:
        token_url: As ``catalog.signing.token_url`` gives it.
        patience: Of the file that is to be read.

    Raises:
        UnreachableError: The service does not answer, or refuses.
        AnswerError: It answers something else.
    """
    with _lock:  # whoever waits finds what the first one fetched
        right = _rights.get(token_url)
        if right is None or time.time() >= right.renew_at:
            right = _rights[token_url] = _fetch(token_url, patience)
        return right.query


def forget_signature(token_url: str, query: str) -> None:
    """Fetch another one next time, since this one was refused."""
    with _lock:
        right = _rights.get(token_url)
        if right is not None and right.query == query:
            del _rights[token_url]


def _fetch(token_url: str, patience: Patience) -> _Right:
    key = os.environ.get(_KEY_VARIABLE, "")
    headers = {"Ocp-Apim-Subscription-Key": key} if key else {}
    server = f"tokens of {urlsplit(token_url).netloc}"
    try:
        (data,) = ask_for(
            [(0, 0)],
            lambda _ranges, _careful: [ask_plainly(token_url, None, _TIMEOUT_S, headers)],
            server,
            patience,
        )
    except UnreachableError as error:
        raise UnreachableError(
            f"{token_url!r} gives no right to read it: {error}",
            status=error.status,
            attempts=error.attempts,
        ) from error
    try:
        answer = json.loads(bytes(data))
        query, end = str(answer["token"]), datetime.fromisoformat(str(answer["msft:expiry"]))
    except (ValueError, TypeError, KeyError) as error:
        # the answer may hold a token, so nothing of it is repeated
        raise AnswerError(
            200, f"from {token_url!r} is no token with its expiry ({type(error).__name__})"
        ) from None
    if end.tzinfo is None:
        end = end.replace(tzinfo=UTC)
    life_s = end.timestamp() - time.time()
    return _Right(query.lstrip("?"), time.time() + life_s - min(_MARGIN_S, max(0.0, life_s / 10)))
