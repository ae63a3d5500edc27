"""Errors of eoray, grouped by what a caller would do about them.

Every message says what is wrong with the values received, where, and how to mend it.
``kind`` is a short code that stays stable for logs, retries and exit codes.
"""

from __future__ import annotations

from typing import Any


class EorayError(Exception):
    """Base of every error that eoray raises on purpose."""

    kind = "error"


class ConfigError(EorayError, ValueError):
    """The run file or an argument is wrong: mend it and start again."""

    kind = "config"


class CatalogError(EorayError):
    """The catalogue cannot be reached, or its answer cannot be used."""

    kind = "catalog"


class ReadError(EorayError, OSError):
    """An asset could not be read: retry it, or record the hole and go on."""

    kind = "read"

    def __init__(
        self,
        message: str,
        *,
        item_id: str = "",
        asset: str = "",
        window: tuple[int, int, int, int] | None = None,
        reason: str = "other",
        detail: str = "",
        host: str = "",
        attempts: int = 1,
    ) -> None:
        """Keep the place of the failure beside the message.

        Args:
            message: What, where and how to mend it.
            item_id: STAC item that was read.
            asset: Asset key or band id within the item.
            window: (col_off, row_off, width, height) in pixels of the file, if known.
            reason: A word to count by: an HTTP status (``503``), or one of
                ``eoray.reading.reasons``.
            detail: What was said, without links.
            host: Server that was asked; "" for local files.
            attempts: How often the read was tried.
        """
        super().__init__(message)
        self.item_id = item_id
        self.asset = asset
        self.window = window
        self.reason = reason
        self.detail = detail
        self.host = host
        self.attempts = attempts

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle with the keyword arguments, so that workers can send it."""
        return _rebuild_read_error, (type(self), str(self), dict(self.__dict__))


def _rebuild_read_error(kind: type[ReadError], message: str, known: dict[str, Any]) -> ReadError:
    return kind(message, **known)


class GridError(EorayError, ValueError):
    """Two things that must share a grid do not."""

    kind = "grid"


class StoreError(EorayError, OSError):
    """The store cannot be opened, written, or holds something else than expected."""

    kind = "store"


class ConflictError(EorayError):
    """Somebody else writes this store: wait for that run, or take over, then plan again."""

    kind = "conflict"


class ClusterError(EorayError):
    """Ray or Kubernetes refused, vanished, or is too old."""

    kind = "cluster"


class ModelError(EorayError, ValueError):
    """A model does not fit the data that it is asked to read."""

    kind = "model"


class DataError(EorayError, ValueError):
    """Labels, samples or reference data cannot be used as they are."""

    kind = "data"
