"""The right to read a file, of whatever kind its server wants: a signed link, or a login."""

from __future__ import annotations

from dataclasses import dataclass, field

from eoray.catalog.signing import login_url, token_url
from eoray.reading.login import bearer, forget_bearer
from eoray.reading.requests import Patience
from eoray.reading.sign import forget_signature, signature


@dataclass(frozen=True, slots=True)
class Right:
    """What a request carries so that a server answers it."""

    query: str = field(repr=False, default="")
    """Signature of a link."""
    header: str = field(repr=False, default="")
    """Value of ``Authorization``."""

    @property
    def headers(self) -> dict[str, str]:
        """The header, by its name."""
        return {"Authorization": self.header} if self.header else {}


NO_RIGHT = Right()


def right_to_read(href: str, patience: Patience) -> Right:
    """The right to read a file, fetched or kept from before; none where it needs none.

    Args:
        href: Its link, unsigned.
        patience: Of the file.

    Raises:
        UnreachableError: Nobody gives it.
        AnswerError: Whoever should give it answers something else.
    """
    if place := token_url(href):
        return Right(query=signature(place, patience))
    if place := login_url(href):
        return Right(header=bearer(place, patience))
    return NO_RIGHT


def forget_right(href: str, right: Right) -> None:
    """Fetch another one next time, since this one was refused."""
    if right.query:
        forget_signature(token_url(href), right.query)
    if right.header:
        forget_bearer(login_url(href), right.header)
