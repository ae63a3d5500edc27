"""A server of files in this process: it refuses, pauses and asks for rights as a test says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

Refusal = tuple[int, dict[str, str]]
"""Status and headers of an answer that is no file."""


@dataclass(frozen=True)
class Asked:
    """One GET, as it was answered."""

    path: str
    first: int
    n_bytes: int
    status: int


@dataclass
class FileServer:
    """What it serves, refuses, and was asked."""

    folder: Path
    url: str = ""
    refuse: Callable[[int, str], Refusal | None] = lambda number, path: None
    """Called with the number of a GET of a file, from 1, and its path."""
    delay_s: float = 0.0
    """Before each answer."""
    together: int = 1
    """Answers wait until so many requests are in flight, or a moment has passed."""
    life_s: float = 0.0
    """Files need a token, which is good for so long; 0: for all to read."""
    asked: list[Asked] = field(default_factory=list)
    n_tokens: int = 0
    revoked: set[str] = field(default_factory=set)
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    crowd: threading.Condition = field(default_factory=threading.Condition)
    in_flight: int = 0

    @property
    def tokens(self) -> str:
        """Where tokens are given out, as a provider's row or the run file says it."""
        return f"{self.url}/token/{{account}}/{{container}}"

    @property
    def statuses(self) -> list[int]:
        """Of all answers for files, in order."""
        return [one.status for one in self.asked]

    def give_token(self) -> bytes:
        """A new one, which names its own end, as signatures of Azure do."""
        with self.lock:
            self.n_tokens += 1
            end = datetime.now(UTC) + timedelta(seconds=self.life_s)
            signature = f"secret/{self.n_tokens}+signature="
            token = urlencode({"se": end.isoformat(), "sig": signature})
        return json.dumps({"msft:expiry": end.isoformat(), "token": token}).encode()

    def is_right(self, query: str) -> bool:
        """Whether a query gives the right to read now."""
        if not self.life_s:
            return True
        said = {name: values[0] for name, values in parse_qs(query).items()}
        signature = said.get("sig", "")
        if not signature.startswith("secret/") or signature in self.revoked:
            return False
        return datetime.now(UTC) < datetime.fromisoformat(said["se"])

    def revoke(self) -> None:
        """Refuse all tokens that were given out."""
        self.revoked |= {f"secret/{number + 1}+signature=" for number in range(self.n_tokens)}


@contextmanager
def serve_files(folder: Path) -> Iterator[FileServer]:
    """Serve a folder on a free port of loopback."""
    state = FileServer(folder)
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: FileServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        state, parts = self.state, urlsplit(self.path)
        path = unquote(parts.path).lstrip("/")
        if path.startswith("token/"):
            self._send(200, {}, state.give_token())
            return
        self._arrive()
        try:
            self._answer(path, parts.query)
        finally:
            with state.crowd:
                state.in_flight -= 1

    def _arrive(self) -> None:
        state = self.state
        with state.crowd:
            state.in_flight += 1
            state.most_in_flight = max(state.most_in_flight, state.in_flight)
            state.crowd.notify_all()
            state.crowd.wait_for(lambda: state.most_in_flight >= state.together, timeout=5)
        time.sleep(state.delay_s)

    def _answer(self, path: str, query: str) -> None:
        state = self.state
        with state.lock:
            refused = state.refuse(len(state.asked) + 1, path)
            if refused is None and not state.is_right(query):
                refused = 403, {}
            place = (state.folder / path).resolve()
            if refused is None and not place.is_file():
                refused = 404, {}
            first, last = self._span(place.stat().st_size if refused is None else 0)
            size = last + 1 - first if refused is None else 0
            state.asked.append(Asked(path, first, size, refused[0] if refused else 206))
        if refused is not None:
            self._send(refused[0], refused[1], b"")
            return
        with place.open("rb") as stream:
            stream.seek(first)
            body = stream.read(size)
        self._send(206, {"Content-Range": f"bytes {first}-{last}/{place.stat().st_size}"}, body)

    def _span(self, size: int) -> tuple[int, int]:
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        return int(first), min(int(last), size - 1) if last else size - 1

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
