"""An S3 of our own on loopback: whole objects in a dict, conditional puts, refusals by method.

It checks no signature: who may do what is what a test says.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest


@dataclass
class FakeS3:
    """What the server holds and refuses."""

    objects: dict[str, bytes] = field(default_factory=dict)
    """``bucket/key`` -> content."""
    buckets: set[str] = field(default_factory=lambda: {"maps"})
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Method -> (status, code of S3) that it is answered with."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(method, ``bucket/key``) of all requests."""
    url: str = ""

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
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
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


class _Handler(BaseHTTPRequestHandler):
    fake: FakeS3
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing on stderr."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = unquote(urlsplit(self.path).path).strip("/")
        self.fake.requests.append((self.command, key))
        if self.command in self.fake.refuse:
            self._error(*self.fake.refuse[self.command])
        elif key.partition("/")[0] not in self.fake.buckets:
            self._error(404, "NoSuchBucket")
        elif "list-type" in urlsplit(self.path).query:
            self._list(key)
        elif self.command == "PUT":
            self._put(key, body)
        elif self.command == "POST":
            self._delete(key, body)
        elif key not in self.fake.objects:
            self._error(404, "NoSuchKey")
        else:
            self._give(self.fake.objects[key])

    def _list(self, bucket: str) -> None:
        """Keys below a prefix, in one page; with a delimiter, folders for what is in them."""
        query = parse_qs(urlsplit(self.path).query)
        prefix = query.get("prefix", [""])[0]
        found = {
            key.partition("/")[2]: content
            for key, content in sorted(self.fake.objects.items())
            if key.startswith(f"{bucket}/{prefix}")
        }
        folders = set()
        if "delimiter" in query:
            folders = {key[: key.find("/", len(prefix)) + 1] for key in found} - {""}
            found = {k: v for k, v in found.items() if "/" not in k[len(prefix) :]}
        rows = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(content)}</Size><ETag>{_tag(content)}</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, content in found.items()
        )
        rows += "".join(
            f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
            for folder in sorted(folders)
        )
        head = f"<Name>{bucket}</Name><Prefix>{prefix}</Prefix><IsTruncated>false</IsTruncated>"
        self._answer(200, f"<ListBucketResult>{head}{rows}</ListBucketResult>".encode())

    def _put(self, key: str, body: bytes) -> None:
        found = self.fake.objects.get(key)
        wanted = self.headers.get("If-Match")
        if self.headers.get("If-None-Match") == "*" and found is not None:
            return self._error(412, "PreconditionFailed")
        if wanted is not None and (found is None or wanted.strip('"') != _tag(found)):
            return self._error(412, "PreconditionFailed")
        self.fake.objects[key] = body
        return self._answer(200, b"", tag=_tag(body))

    def _delete(self, bucket: str, body: bytes) -> None:
        """Delete several objects, as clients do for one too."""
        keys = re.findall(r"<Key>([^<]*)</Key>", body.decode())
        for key in keys:
            self.fake.objects.pop(f"{bucket}/{key}", None)
        done = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{done}</DeleteResult>".encode())

    def _give(self, content: bytes) -> None:
        span = self.headers.get("Range", "")
        if not span:
            return self._answer(200, content, tag=_tag(content))
        first, _, last = span.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1]
        where = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        return self._answer(206, part, tag=_tag(content), where=where)

    def _error(self, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>as the test says</Message></Error>"
        self._answer(status, text.encode())

    def _answer(self, status: int, data: bytes, *, tag: str = "", where: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        # Icechunk compares it with the clock
        self.send_header("Last-Modified", self.date_time_string())
        if tag:
            self.send_header("ETag", f'"{tag}"')
        if where:
            self.send_header("Content-Range", where)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _tag(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
