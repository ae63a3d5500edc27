"""The object store of tests in this process: looked into, and failing as a test says."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Literal

import pytest

from eoray.testing.s3 import RefusalError, S3Handler, S3Object, S3Store

Fault = Literal["503", "truncate", "slow"]
"""``truncate`` promises the whole body and sends half; ``slow`` is silent for a time, or until the
client has left, and hangs up."""


@dataclass
class FakeS3:
    """What the server holds and refuses."""

    store: S3Store = field(default_factory=S3Store)
    buckets: set[str] = field(default_factory=lambda: {"maps"})
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Method -> (status, code of S3) that it is answered with."""
    fail: Callable[[int], Fault | None] = lambda number: None
    """Called with the number of a GET of an object, from 1."""
    slow_s: float = 30.0
    n_get: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(method, ``bucket/key``) of all requests."""
    keys: list[str] = field(default_factory=list)
    """Access key that signed each of them, or bearer's token; "" for none."""
    only_key: str | None = None
    """The only access key that is not refused as expired."""
    url: str = ""

    @property
    def objects(self) -> dict[str, bytes]:
        """Content by ``bucket/key``."""
        return {name: found.data for name, found in self.store.objects.items()}

    def put(self, name: str, data: bytes) -> None:
        """Lay an object there, past the server."""
        self.store.objects[name] = S3Object.of(data, {})

    def environment(self) -> dict[str, str]:
        """What leads every client here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "AKIATEST0TEST0TEST00",
            "AWS_SECRET_ACCESS_KEY": "s3cret-of-the-test",
            "AWS_REGION": "eu-central-1",
        }


@contextmanager
def serve_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    """Serve on a free port, with the environment of this process set for it."""
    fake = FakeS3()
    handler = type("Handler", (_Handler,), {"fake": fake, "store": fake.store})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    for name, value in fake.environment().items():
        monkeypatch.setenv(name, value)
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(S3Handler):
    fake: FakeS3
    fault: Fault | None = None

    def admit(self) -> None:
        name = self.name.rstrip("/")
        self.fake.requests.append((self.command, name))
        self.fake.keys.append(_signer(self.headers.get("Authorization", "")))
        if self.fake.only_key not in (None, self.fake.keys[-1]):
            raise RefusalError(HTTPStatus.FORBIDDEN, "ExpiredToken")
        if self.command in self.fake.refuse:
            status, code = self.fake.refuse[self.command]
            raise RefusalError(HTTPStatus(status), code)
        if name.partition("/")[0] not in self.fake.buckets:
            raise RefusalError(HTTPStatus.NOT_FOUND, "NoSuchBucket")
        self.fault = self._next_fault() if self.command == "GET" and "/" in name else None
        if self.fault == "503":
            raise RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, "SlowDown")
        if self.fault == "slow":
            select.select(
                [self.connection], [], [], self.fake.slow_s
            )  # readable once the client has left
            raise ConnectionError

    def _next_fault(self) -> Fault | None:
        with self.fake.store.lock:
            self.fake.n_get += 1
            return self.fake.fail(self.fake.n_get)

    def write_body(self, data: bytes) -> None:
        if self.fault == "truncate":
            data = data[: len(data) // 2]
            self.close_connection = True
        self.wfile.write(data)


def _signer(authorization: str) -> str:
    if authorization.startswith("Bearer "):
        return authorization.removeprefix("Bearer ")
    return authorization.partition("Credential=")[2].partition("/")[0]
