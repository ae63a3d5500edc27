"""Secrets never reach a log, a record or a run file: they are found by their form, and masked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

MASK = "***"

_WORDS = ("secret", "password", "passwd", "token", "private", "credential", "access_key")
_PLACES = ("_file", "_path", "_dir", "_uri", "_url", "_mode")
"""Ends of names whose values say where a secret lies, or how it is used."""

_LEAST = 8
"""Shorter values are no secrets, and would be found everywhere."""

_PARAMETERS = (
    "x-amz-signature", "x-amz-credential", "x-amz-security-token", "x-goog-signature",
    "x-goog-credential", "signature", "sig", "awsaccesskeyid", "googleaccessid", "access_token",
    "token", "api_key", "apikey", "subscription-key", "password",
)  # fmt: skip
_SIGNED = re.compile(
    rf"(?i)([?&;](?:{'|'.join(map(re.escape, _PARAMETERS))})=)(?!\*{{3}})[^&#;\s\"'<>\\]+"
)
_LOGIN = re.compile(r"(://[^/\s:@\"']*:)(?!\*{3}@)[^/\s@\"']+@")
_HEADER = re.compile(
    r"(?i)(authorization[\"']?\s*[:=]\s*[\"']?(?:bearer\s+|basic\s+|token\s+)?|\bbearer\s+)"
    r"(?!\*{3}|bearer\b|basic\b|token\b)[^\s\"',;]{8,}"
)


def mask(text: str, secrets: Sequence[str] = ()) -> str:
    """Replace what gives a right to whoever reads it.

    Args:
        text: Log line, message, or document.
        secrets: Values that are secret whatever their form; see :func:`secrets_of`.

    Returns:
        The text with signatures and tokens of links, ``Authorization`` headers, passwords of URLs
        and the named values as ``***``. Masking twice changes nothing more.
    """
    for secret in secrets:
        for form in (secret, json.dumps(secret)[1:-1]):
            text = text.replace(form, MASK)
    text = _SIGNED.sub(rf"\g<1>{MASK}", text)
    text = _HEADER.sub(rf"\g<1>{MASK}", text)
    return _LOGIN.sub(rf"\g<1>{MASK}@", text)


def is_signed(text: str) -> bool:
    """Tell whether a link, or a document with links, carries a right with it."""
    return _SIGNED.search(text) is not None or _LOGIN.search(text) is not None


def is_secret_name(name: str) -> bool:
    """Tell whether a variable of this name holds a secret, and not the place of one."""
    low = name.lower()
    named = any(word in low for word in _WORDS) or low.endswith("_key")
    return named and not low.endswith(_PLACES)


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Values of an environment that must not be written anywhere, longest first."""
    found = {
        value.strip()
        for name, value in environment.items()
        if is_secret_name(name) and len(value.strip()) >= _LEAST
    }
    return tuple(sorted(found, key=len, reverse=True))
