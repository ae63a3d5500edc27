"""Links that need a signature or a login: who gives it, and how a link looks without it.

A signature gives a right to whoever reads it and ends within hours. So links are kept without,
in plans, snapshots and logs, and are signed where and when they are read (``reading.sign``).
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit, urlunsplit

from eoray.buckets import bucket_of
from eoray.catalog.providers import login_address, token_address


def token_url(href: str) -> str:
    """Where the right to read a link is asked for; "" where it needs none.

    The run file's section ``storage`` says it for a server, else the provider that has its files
    there.

    Args:
        href: Of ``http`` or ``https``.
    """
    parts = urlsplit(href)
    if parts.scheme not in ("http", "https"):
        return ""
    server = f"{parts.scheme}://{parts.netloc}"
    template = bucket_of(server).tokens or token_address(server)
    container = parts.path.lstrip("/").partition("/")[0]
    account = (parts.hostname or "").partition(".")[0]
    return template.replace("{account}", account).replace("{container}", container)


def login_url(href: str) -> str:
    """Where a user logs in to read a link; "" where nobody needs to.

    Args:
        href: Any; only servers that a provider's row names need a login.
    """
    parts = urlsplit(href)
    return login_address(f"{parts.scheme}://{parts.netloc}")


def login_fields() -> list[dict[str, str]]:
    """What the environment says for a login at CDSE, as OpenID Connect asks for it, best first.

    ``CDSE_REFRESH_TOKEN``, and ``CDSE_USERNAME`` with ``CDSE_PASSWORD``; nothing else is looked
    at, and none is kept.
    """
    found = []
    if token := os.environ.get("CDSE_REFRESH_TOKEN"):
        found.append({"grant_type": "refresh_token", "refresh_token": token})
    user, password = os.environ.get("CDSE_USERNAME"), os.environ.get("CDSE_PASSWORD")
    if user and password:
        found.append({"grant_type": "password", "username": user, "password": password})
    return found


def without_signature(href: str) -> str:
    """The link as it is kept: without its query where eoray can sign it anew, else unchanged."""
    parts = urlsplit(href)
    if not parts.query or not token_url(href):
        return href
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
