"""Logins of OpenID Connect, for files that CDSE serves by HTTPS.

The process that reads logs in with what its environment says, and keeps nothing but in memory. A
token lasts minutes: another one is fetched before it ends, by the refresh token that came with it
as long as that is good, so that a user's sessions stay few.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from eoray.catalog.signing import login_fields
from eoray.reading.requests import (
    AnswerError,
    Patience,
    UnreachableError,
    ask_for,
    ask_plainly,
)

_CLIENT = "cdse-public"
"""The client of OpenID Connect that CDSE keeps for its users' own programs."""

_MARGIN_S = 60.0
"""A token is renewed so long before its end, or at nine tenths of a short life."""

_TIMEOUT_S = 20.0

_REFUSED = (400, 401)
"""Answers to a wrong password, or to a refresh token that has ended."""

_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class _Login:
    header: str = field(repr=False)
    renew_at: float
    """Seconds since 1970."""
    refresh_token: str = field(repr=False, default="")
    refresh_until: float = 0.0


_logins: dict[str, _Login] = {}
_refused: dict[tuple[str, int], UnreachableError] = {}
"""By address and hash of the fields: asked over and over, a wrong password locks an account."""
_lock = threading.Lock()


def bearer(login_url: str, patience: Patience) -> str:
    """Value of the header ``Authorization`` that gives the right to read, fetched or kept.

    Args:
        login_url: As ``catalog.signing.login_url`` gives it.
        patience: Of the file that is to be read.

    Raises:
        UnreachableError: The environment has no login, or the service refuses or does not answer.
        AnswerError: It answers something else.
    """
    with _lock:  # whoever waits finds what the first one fetched
        login = _logins.get(login_url)
        if login is None or time.time() >= login.renew_at:
            login = _logins[login_url] = _log_in(login_url, login, patience)
        return login.header


def forget_bearer(login_url: str, header: str) -> None:
    """Fetch another one next time, since this one was refused."""
    with _lock:
        login = _logins.get(login_url)
        if login is not None and login.header == header:
            _logins[login_url] = replace(login, renew_at=0.0)


def _log_in(login_url: str, old: _Login | None, patience: Patience) -> _Login:
    ways = login_fields()
    if old is not None and time.time() < old.refresh_until:
        ways.insert(0, {"grant_type": "refresh_token", "refresh_token": old.refresh_token})
    refusal = UnreachableError(
        f"{urlsplit(login_url).netloc} serves files to its users only; set CDSE_USERNAME and "
        "CDSE_PASSWORD, or CDSE_REFRESH_TOKEN, or the keys of its S3 service, in the environment"
    )
    for fields in ways:
        key = login_url, hash(tuple(fields.values()))
        if key in _refused:
            refusal = _refused[key]
            continue
        try:
            return _ask(login_url, fields, patience)
        except UnreachableError as error:
            if error.status not in _REFUSED:
                raise
            refusal = _refused[key] = error
    raise UnreachableError(str(refusal), status=refusal.status, attempts=refusal.attempts)


def _ask(login_url: str, fields: dict[str, str], patience: Patience) -> _Login:
    form = {"client_id": _CLIENT, **fields}
    server = urlsplit(login_url).netloc
    try:
        (data,) = ask_for(
            [(0, 0)],
            lambda _ranges, _careful: [ask_plainly(login_url, None, _TIMEOUT_S, form=form)],
            f"logins of {server}",
            patience,
        )
    except UnreachableError as error:
        raise UnreachableError(
            f"{server} refuses a login by {fields['grant_type']}: {error}; correct CDSE_USERNAME "
            "and CDSE_PASSWORD, or CDSE_REFRESH_TOKEN",
            status=error.status,
            attempts=error.attempts,
        ) from error
    try:
        return _read(json.loads(bytes(data)))
    except (ValueError, TypeError, KeyError) as error:
        # the answer may hold a token, so nothing of it is repeated
        raise AnswerError(
            200, f"from {login_url!r} is no token with its expiry ({type(error).__name__})"
        ) from None


def _read(answer: Any) -> _Login:
    token, life_s, now = str(answer["access_token"]), float(answer["expires_in"]), time.time()
    if not _TOKEN.fullmatch(token):
        raise ValueError("no token")
    refresh_s = float(answer.get("refresh_expires_in", 0.0))
    return _Login(
        f"Bearer {token}",
        now + life_s - min(_MARGIN_S, max(0.0, life_s / 10)),
        str(answer.get("refresh_token", "")),
        now + refresh_s - min(_MARGIN_S, refresh_s / 10),
    )
