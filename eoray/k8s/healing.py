"""Heal a run on a cluster: which failed reads its driver tries again, as words of a command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from eoray.errors import ConfigError

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
"""What a shell on the head leaves as it is."""


@dataclass(frozen=True, slots=True)
class Healing:
    """Failed reads to try again; all where nothing is said."""

    items: tuple[str, ...] = ()
    """STAC item ids."""
    reasons: tuple[str, ...] = ()
    """Such as ``503`` or ``timeout``."""
    since: str = ""
    """First sensing day, ISO."""

    def __post_init__(self) -> None:
        """Refuse what is no day, and what a shell would read as more than a word.

        Raises:
            ConfigError: A value cannot be used.
        """
        for option, values in (("--item", self.items), ("--reason", self.reasons)):
            for value in values:
                if not _WORD.fullmatch(value):
                    raise ConfigError(
                        f"{option} {value!r} has other letters than A-Z a-z 0-9 . _ : - and would "
                        "stand in a command; leave it out, or heal it where the store is reached"
                    )
        try:
            date.fromisoformat(self.since or "2015-01-01")
        except ValueError as error:
            raise ConfigError(
                f"--since {self.since!r} is no day; write it like 2023-05-31"
            ) from error

    def words(self) -> Iterator[str]:
        """Options of ``eoray heal``; in another order they are another run."""
        for item in self.items:
            yield from ("--item", item)
        for reason in self.reasons:
            yield from ("--reason", reason)
        if self.since:
            yield from ("--since", self.since)
