"""Bytes of local files and of objects over HTTP: ranges asked for together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlparse

from eoray.buckets import Bucket, bucket_of
from eoray.storage import is_local, local_path, object_store

if TYPE_CHECKING:
    from collections.abc import Buffer, Iterator

    from obstore.store import ObjectStore

MERGE_GAP = 65_536
"""Ranges nearer to each other than this are one request: reading on is cheaper than asking."""


class UnsupportedFileError(Exception):
    """A file of another kind; GDAL may know it."""


class UnreachableError(OSError):
    """An object that its server does not give."""


class TruncatedError(OSError):
    """A file that ends before its tables say."""


class RangeReader(Protocol):
    """Bytes of one file."""

    @property
    def stamp(self) -> Any:
        """Differs when the file was replaced, where that can be known for nothing."""

    def head(self, size: int) -> bytes:
        """The first bytes, fewer where the file is shorter."""

    def get(self, spans: Sequence[tuple[int, int]]) -> Iterable[Buffer]:
        """The bytes of each (offset, length).

        Raises:
            OSError: The file ends before, or cannot be read.
        """


def open_ranges(href: str) -> RangeReader:
    """Open a local path, ``file://``, ``http(s)://``, ``s3://``, ``gs://`` or ``az://``.

    Raises:
        UnsupportedFileError: Nothing of this, such as a signed link.
        OSError: There is no such file.
    """
    if is_local(href):
        return _LocalRanges(str(local_path(href)))
    parsed = urlparse(href)
    plain = not parsed.query and "//" not in parsed.path
    if not plain or parsed.scheme not in ("http", "https", "s3", "gs", "az"):
        raise UnsupportedFileError("a signed link or a scheme of GDAL's own")
    root = f"{parsed.scheme}://{parsed.netloc}"
    return _ObjectRanges(_store(root, bucket_of(root)), unquote(parsed.path[1:]))


class _LocalRanges:
    def __init__(self, path: str) -> None:
        self._path = path
        state = os.stat(path)  # noqa: PTH116 - a path is built 2000 times a second here
        self.stamp = (state.st_mtime_ns, state.st_size)

    def head(self, size: int) -> bytes:
        with open(self._path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
            return file.read(size)

    def get(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        with open(self._path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
            found = [os.pread(file.fileno(), length, offset) for offset, length in spans]
        _check_lengths(found, spans)
        return found


class _ObjectRanges:
    stamp = None

    def __init__(self, store: ObjectStore, path: str) -> None:
        self._store, self._path = store, path

    def head(self, size: int) -> bytes:
        import obstore

        with _plain_errors():
            return bytes(obstore.get_range(self._store, self._path, start=0, length=size))

    def get(self, spans: Sequence[tuple[int, int]]) -> Sequence[Buffer]:
        import obstore

        if not spans:
            return []
        with _plain_errors():
            found = obstore.get_ranges(
                self._store,
                self._path,
                starts=[offset for offset, _ in spans],
                lengths=[length for _, length in spans],
                coalesce=MERGE_GAP,
            )
        _check_lengths(found, spans)
        return found


def _check_lengths(found: Sequence[Buffer], spans: Sequence[tuple[int, int]]) -> None:
    for data, (offset, length) in zip(found, spans, strict=True):
        if memoryview(data).nbytes < length:
            raise TruncatedError(f"the file ends before byte {offset + length}")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn obstore's errors into one that a reader expects of files."""
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        raise UnreachableError(f"{type(error).__name__}: {error}") from error


@lru_cache(maxsize=256)
def _store(root: str, bucket: Bucket) -> ObjectStore:  # noqa: ARG001 - told apart by it
    """One client per server or bucket, which keeps its connections."""
    if not root.startswith("http"):
        return object_store(root)
    from obstore.store import HTTPStore

    return HTTPStore.from_url(
        root,
        client_options={"allow_http": True, "timeout": timedelta(seconds=60)},
        # further attempts are the reader's, which names the item
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=60)},
    )
