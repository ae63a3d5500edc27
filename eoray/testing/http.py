"""A file server on loopback with byte ranges, counts, and faults that come by count."""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from eoray.errors import StoreError
from eoray.testing.damage import damage

Fault = Literal["503", "404", "truncate", "hang-up", "reset", "slow", "corrupt", "lie"]
"""``truncate`` promises the whole body and sends half; ``hang-up`` sends nothing, ``reset`` half
and breaks the connection, ``slow`` nothing for a long time; ``corrupt`` and ``lie`` are those of
``eoray.testing.damage``."""

SLOW_S = 30.0
"""Silence before the first byte of a slow answer, or until the client has left."""

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_TYPES = {".json": "application/json", ".geojson": "application/geo+json", ".tif": "image/tiff"}


@dataclass(frozen=True, slots=True)
class Request:
    """One GET that was answered."""

    path: str
    """Path below the server's root."""
    first: int
    """First byte asked for."""
    n_bytes: int
    """Bytes promised."""
    status: int


@dataclass(frozen=True, slots=True)
class ArchiveServer:
    """A running server: where it is, what it was asked, what it does wrong.

    It runs as a process of its own, since rasterio holds Python's lock while it opens a file
    and would wait for ever for a thread of its own process.
    """

    url: str
    """Root, without a slash at the end."""

    @property
    def requests(self) -> tuple[Request, ...]:
        """All answered GET requests, in order of their answers; a hang-up is none."""
        return tuple(Request(*entry) for entry in self._ask()["requests"])

    @property
    def n_get(self) -> int:
        """GET requests so far, faulty ones included."""
        return int(self._ask()["n_get"])

    @property
    def n_bytes(self) -> int:
        """Bytes promised so far."""
        return sum(request.n_bytes for request in self.requests)

    def set_faults(self, faults: Mapping[int, Fault]) -> None:
        """Replace the faults; their numbers go on counting from the server's first GET."""
        self._ask({"faults": dict(faults)})

    def set_broken(self, files: Mapping[str, Fault]) -> None:
        """Replace the files that go wrong whenever they are asked for.

        Args:
            files: Path below the root, with its slash: what goes wrong with each GET and, where
                it is a refusal or silence, each HEAD.
        """
        self._ask({"broken": dict(files)})

    def _ask(self, order: Mapping[str, Any] | None = None) -> dict[str, Any]:
        body = json.dumps(dict(order or {})).encode()
        host = urlsplit(self.url)
        connection = HTTPConnection(str(host.hostname), host.port, timeout=30)
        try:
            connection.request("POST", "/", body)
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()


_BOOT = """
import json, sys
order = json.loads(sys.stdin.readline())
sys.path[:] = order["path"]
from eoray.testing.http import serve
serve(order["folder"], order["faults"], order["host"])
"""


@contextmanager
def archive_server(
    folder: str | Path, *, faults: Mapping[int, Fault] | None = None, host: str = "127.0.0.1"
) -> Iterator[ArchiveServer]:
    """Serve a folder at a free port for as long as the block lasts.

    Args:
        folder: Root of what is served; nothing outside it is.
        faults: Number of a GET, counted from 1: what goes wrong with it.
        host: Address of this machine to listen on.

    Yields:
        The server's address and counts.

    Raises:
        StoreError: The server does not start.
    """
    process = subprocess.Popen(  # noqa: S603 - our own interpreter on our own code
        [sys.executable, "-c", _BOOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    order: dict[str, Any] = {"path": sys.path, "folder": str(folder), "host": host}
    order["faults"] = dict(faults or {})
    try:
        if process.stdin is None or process.stdout is None:
            raise StoreError("the file server of tests has no pipes; free some file handles")
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        port = process.stdout.readline().strip()
        if not port:
            raise StoreError(
                f"the file server of {str(folder)!r} did not start; its complaint stands on stderr"
            )
        yield ArchiveServer(f"http://{host}:{port}")
    finally:
        # the end of its input ends the server
        process.communicate()


def serve(folder: str, faults: Mapping[str, Fault], host: str) -> None:
    """Run as the server's process: print the port, serve until standard input ends."""
    state = _State(Path(folder).resolve(), {int(number): fault for number, fault in faults.items()})
    handler = type("_BoundHandler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer((host, 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.shutdown()


@dataclass(slots=True)
class _State:
    root: Path
    faults: dict[int, Fault]
    broken: dict[str, Fault] = field(default_factory=dict)
    requests: list[tuple[str, int, int, int]] = field(default_factory=list)
    n_get: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # headers and body leave in one segment each; without, Nagle and delayed ACKs cost 40 ms
    wbufsize = -1
    disable_nagle_algorithm = True
    state: _State

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent: requests are counted instead."""

    def do_HEAD(self) -> None:
        """Answer with the headers of a file; a broken file's are refused as it is."""
        path = self._file()
        with self.state.lock:
            fault = self.state.broken.get(unquote(urlsplit(self.path).path))
        if path is None or fault in ("503", "404"):
            self._refuse(503 if fault == "503" else 404)
            return
        if self._keeps_silent(fault):
            return
        self._head(200, path, path.stat().st_size, None)

    def do_POST(self) -> None:
        """Tell the counts, and take other faults: for ``ArchiveServer`` alone."""
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.state.lock:
            if "faults" in order:
                faults = order["faults"]
                self.state.faults = {int(number): fault for number, fault in faults.items()}
            self.state.broken = order.get("broken", self.state.broken)
            counts = {"requests": self.state.requests, "n_get": self.state.n_get}
            body = json.dumps(counts).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """Answer with a file or a part of it."""
        with self.state.lock:
            self.state.n_get += 1
            broken = self.state.broken.get(unquote(urlsplit(self.path).path))
            fault = self.state.faults.get(self.state.n_get, broken)
        path = self._file()
        if path is None or fault in ("503", "404"):
            self._refuse(int(fault) if fault in ("503", "404") else 404)
            return
        if self._keeps_silent(fault):
            return
        size = path.stat().st_size
        span = self._span(size)
        if span is None:
            self._refuse(416)
            return
        first, last, is_part = span
        self._count(first, last + 1 - first, 206 if is_part else 200)
        content = f"bytes {first}-{last}/{size}" if is_part else None
        self._head(206 if is_part else 200, path, last + 1 - first, content)
        with path.open("rb") as stream:
            stream.seek(first)
            body = stream.read(last + 1 - first)
        if fault in ("truncate", "reset"):
            body = body[: len(body) // 2]
            self.close_connection = True
        if fault in ("corrupt", "lie"):
            body = damage(body, first, fault)
        self.wfile.write(body)
        if fault == "reset":
            # unsent bytes are dropped, and the client's end is told that the connection broke
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _keeps_silent(self, fault: Fault | None) -> bool:
        """Leave without an answer, at once or after a long time, where the fault is that."""
        if fault == "slow":
            select.select([self.connection], [], [], SLOW_S)  # readable once the client has left
        self.close_connection = fault in ("hang-up", "slow") or self.close_connection
        return fault in ("hang-up", "slow")

    def _file(self) -> Path | None:
        path = (self.state.root / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        return path if path.is_file() and path.is_relative_to(self.state.root) else None

    def _span(self, size: int) -> tuple[int, int, bool] | None:
        """(first, last, whether a part was asked for), or nothing where it lies outside."""
        match = _RANGE.fullmatch(self.headers.get("Range", "").strip())
        if match is None or not (match[1] or match[2]):
            return 0, size - 1, False
        if not match[1]:
            return max(size - int(match[2]), 0), size - 1, True
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        return (first, last, True) if first <= last else None

    def _count(self, first: int, n_bytes: int, status: int) -> None:
        with self.state.lock:
            path = unquote(urlsplit(self.path).path)
            self.state.requests.append((path, first, n_bytes, status))

    def _refuse(self, status: int) -> None:
        self._count(0, 0, status)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _head(self, status: int, path: Path, length: int, content_range: str | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", _TYPES.get(path.suffix, "application/octet-stream"))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(length))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
