"""Bytes of local files and of objects over HTTP: ranges asked for together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, unquote, urlsplit

from eoray.buckets import Bucket, bucket_of
from eoray.catalog.signing import token_url
from eoray.reading.requests import (
    Patience,
    Range,
    ask_for,
    ask_plainly,
    status_of,
)
from eoray.reading.rights import NO_RIGHT, Right, forget_right, right_to_read
from eoray.reading.usage import READS, ReadUsage
from eoray.storage import is_local, local_path, object_store

if TYPE_CHECKING:
    from collections.abc import Buffer

    from obstore.store import ObjectStore

MERGE_GAP = 65_536
"""Ranges nearer to each other than this are one request: reading on is cheaper than asking."""

_LARGEST_REQUEST = 8 * 2**20
"""Ranges are not merged beyond this: what fails is asked for again."""

_TIMEOUT_S = 60.0
"""Of one request, its bytes included."""


class UnsupportedFileError(Exception):
    """A file of another kind; GDAL may know it."""


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


def open_ranges(href: str, patience: Patience | None = None) -> RangeReader:
    """Open a local path, ``file://``, ``http(s)://``, ``s3://``, ``gs://`` or ``az://``.

    Args:
        href: With a signature or without; see ``catalog.signing`` for those that get one here.
        patience: How long a server may be asked for the file.

    Raises:
        UnsupportedFileError: Nothing of this.
        OSError: There is no such file.
    """
    if is_local(href):
        return _LocalRanges(str(local_path(href)))
    parts = urlsplit(href)
    if "//" in parts.path or parts.scheme not in ("http", "https", "s3", "gs", "az"):
        raise UnsupportedFileError("a path or scheme that GDAL alone knows")
    return _ObjectRanges(href, patience or Patience())


class _LocalRanges:
    def __init__(self, path: str) -> None:
        self._path = path
        state = os.stat(path)  # noqa: PTH116 - a path is built 2000 times a second here
        self.stamp = (state.st_mtime_ns, state.st_size)

    def head(self, size: int) -> bytes:
        with open(self._path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
            data = file.read(size)
        READS.add(ReadUsage(requests=1, bytes=len(data)))
        return data

    def get(self, spans: Sequence[Range]) -> list[bytes]:
        with open(self._path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
            found = [os.pread(file.fileno(), length, offset) for offset, length in spans]
        READS.add(ReadUsage(requests=len(found), bytes=sum(map(len, found))))
        _check_lengths(found, spans)
        return found


class _ObjectRanges:
    stamp = None

    def __init__(self, href: str, patience: Patience) -> None:
        parts = urlsplit(href)
        self._server = f"{parts.scheme}://{parts.netloc}"
        self._path = unquote(parts.path[1:])
        self._href = href
        self._given = Right(query="" if token_url(href) else parts.query)
        self._patience = patience

    def head(self, size: int) -> bytes:
        (data,) = ask_for([(0, size)], self._ask, self._server, self._patience)
        return bytes(data)

    def get(self, spans: Sequence[Range]) -> Sequence[Buffer]:
        if not spans:
            return []
        requests = merge_ranges(spans)
        wanted = [(offset, length) for offset, length, _ in requests]
        answers = ask_for(wanted, self._ask, self._server, self._patience)
        found: list[Buffer] = [b""] * len(spans)
        for (start, _, members), data in zip(requests, answers, strict=True):
            view = memoryview(data)
            for number in members:
                offset, length = spans[number]
                found[number] = view[offset - start : offset - start + length]
        _check_lengths(found, spans)
        return found

    def _ask(self, ranges: Sequence[Range], careful: bool) -> Sequence[Buffer]:  # noqa: FBT001 - ask_for's
        """Send requests side by side; with a new right where one was refused."""
        right = right_to_read(self._href, self._patience)
        if right == NO_RIGHT:
            return self._send(ranges, self._given, careful=careful)
        try:
            return self._send(ranges, right, careful=careful)
        except OSError as error:
            if status_of(error) not in (401, 403):
                raise
        forget_right(self._href, right)
        READS.add(ReadUsage(requests=len(ranges), retries=len(ranges)))
        right = right_to_read(self._href, self._patience)
        return self._send(ranges, right, careful=careful)

    def _send(self, ranges: Sequence[Range], right: Right, *, careful: bool) -> Sequence[Buffer]:
        import obstore
        from obstore.exceptions import BaseError

        timeout_s = min(_TIMEOUT_S, self._patience.seconds)
        if careful and self._server.startswith("http"):
            address = f"{self._server}/{quote(self._path)}"
            if right.query:
                address += f"?{right.query}"
            return [ask_plainly(address, ranges[0], timeout_s, right.headers)]
        store = _store(self._server, right, bucket_of(self._server), timeout_s)
        try:
            if len(ranges) == 1:
                ((start, length),) = ranges
                return [obstore.get_range(store, self._path, start=start, length=length)]
            starts, lengths = zip(*ranges, strict=True)
            return obstore.get_ranges(store, self._path, starts=starts, lengths=lengths, coalesce=0)
        except BaseError as error:
            # the first line tells; those below repeat it with the query
            text = str(error).partition("\n")[0]
            timed_out = " timed out" if "TimedOut" in str(error) else ""
            raise OSError(f"{type(error).__name__}: {text}{timed_out}") from error


def merge_ranges(spans: Sequence[Range]) -> list[tuple[int, int, list[int]]]:
    """(offset, length, numbers of the spans inside) of the requests that bring all spans."""
    merged: list[tuple[int, int, list[int]]] = []
    for number in sorted(range(len(spans)), key=lambda n: spans[n]):
        offset, length = spans[number]
        if merged:
            start, size, members = merged[-1]
            end = max(start + size, offset + length)
            if offset - (start + size) <= MERGE_GAP and end - start <= _LARGEST_REQUEST:
                merged[-1] = (start, end - start, [*members, number])
                continue
        merged.append((offset, length, [number]))
    return merged


def _check_lengths(found: Sequence[Buffer], spans: Sequence[Range]) -> None:
    for data, (offset, length) in zip(found, spans, strict=True):
        if memoryview(data).nbytes < length:
            raise TruncatedError(f"the file ends before byte {offset + length}")


@lru_cache(maxsize=256)
def _store(server: str, right: Right, bucket: Bucket, timeout_s: float) -> ObjectStore:  # noqa: ARG001 - told apart by it
    """One client per server, right and bucket, which keeps its connections."""
    if not server.startswith("http"):
        return object_store(server, max_retries=0, timeout_s=timeout_s)
    from obstore.store import HTTPStore

    return HTTPStore.from_url(
        f"{server}/?{right.query}" if right.query else server,
        client_options={
            "allow_http": True,
            "timeout": timedelta(seconds=timeout_s),
            "default_headers": right.headers,
        },
        # further attempts are ours: they go through the server's gate
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=timeout_s)},
    )
