"""An object store that speaks S3, for tests: objects in memory, conditions kept, no signatures.

It answers what obstore, Icechunk, GDAL and fsspec ask for: ranges, lists, copies, uploads in parts,
and puts on condition, on which leases and commits rest. Credentials are taken and not looked at.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from eoray.errors import StoreError

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server."""

    url: str
    """Endpoint, without a slash at the end."""

    @property
    def environment(self) -> dict[str, str]:
        """What libraries read to use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }


_BOOT = """
import json, sys
order = json.loads(sys.stdin.readline())
sys.path[:] = order["path"]
from eoray.testing.s3 import serve
serve(order["host"])
"""


@contextmanager
def s3_server(host: str = "127.0.0.1") -> Iterator[S3Server]:
    """Serve an empty store at a free port for as long as the block lasts, as its own process.

    Args:
        host: Address of this machine to listen on.

    Raises:
        StoreError: The server does not start.
    """
    process = subprocess.Popen(  # noqa: S603 - our own interpreter on our own code
        [sys.executable, "-c", _BOOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        if process.stdin is None or process.stdout is None:
            raise StoreError("the object store of tests has no pipes; free some file handles")
        process.stdin.write(json.dumps({"path": sys.path, "host": host}) + "\n")
        process.stdin.flush()
        port = process.stdout.readline().strip()
        if not port:
            raise StoreError(
                f"the object store of tests did not start on {host!r}; its complaint stands on "
                "stderr"
            )
        yield S3Server(f"http://{host}:{port}")
    finally:
        # the end of its input ends the server
        process.communicate()


def serve(host: str) -> None:
    """Run as the server's process: print the port, serve until standard input ends."""
    handler = type("_BoundHandler", (S3Handler,), {"store": S3Store()})
    server = ThreadingHTTPServer((host, 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.shutdown()


@dataclass(frozen=True, slots=True)
class S3Object:
    """What is stored under a key."""

    data: bytes
    tag: str
    """In quotes, as headers carry it."""
    headers: dict[str, str]
    """Content type and the user's own metadata."""
    changed: float

    @classmethod
    def of(cls, data: bytes, headers: Mapping[str, str]) -> S3Object:
        """Make one of some bytes, changed now."""
        tag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return cls(data, f'"{tag}"', dict(headers), time.time())

    def is_tagged(self, wanted: str | None) -> bool:
        """Whether a condition holds for it; clients write tags with quotes or without."""
        return wanted in (None, "*") or f'"{wanted.strip(chr(34))}"' == self.tag


@dataclass(slots=True)
class S3Store:
    """Objects by ``bucket/key``. Any bucket is there."""

    objects: dict[str, S3Object] = field(default_factory=dict)
    uploads: dict[str, tuple[dict[int, bytes], dict[str, str]]] = field(default_factory=dict)
    """Parts by number, and headers of the whole."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class RefusalError(Exception):
    """An answer, raised where it is found."""

    def __init__(self, status: HTTPStatus, code: str) -> None:
        self.status, self.code = status, code


class S3Handler(BaseHTTPRequestHandler):
    """Answers requests; a class of its own, with a store, for each server."""

    store: S3Store
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def handle_one_request(self) -> None:
        """Answer one; a client that is gone is no error."""
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):  # a client that was killed
            self.close_connection = True

    def do_GET(self) -> None:
        """Answer a GET."""
        self._answer(self._get)

    def do_HEAD(self) -> None:
        """Answer a HEAD."""
        self._answer(self._get)

    def do_PUT(self) -> None:
        """Answer a PUT."""
        self._answer(self._put)

    def do_POST(self) -> None:
        """Answer a POST."""
        self._answer(self._post)

    def do_DELETE(self) -> None:
        """Answer a DELETE."""
        self._answer(self._delete)

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def admit(self) -> None:
        """Look at a request before it is carried out; all are welcome.

        Raises:
            RefusalError: It is not.
        """

    def write_body(self, data: bytes) -> None:
        """Send what the headers promised."""
        self.wfile.write(data)

    def _answer(self, act: object) -> None:
        self.body = self._read_body()
        split = urlsplit(self.path)
        self.name = unquote(split.path).lstrip("/")
        self.query = dict(parse_qsl(split.query, keep_blank_values=True))
        try:
            self.admit()
            act()  # type: ignore[operator]
        except RefusalError as refusal:
            self._send_xml(f"<Error><Code>{refusal.code}</Code></Error>", refusal.status)

    def _get(self) -> None:
        bucket, _, key = self.name.partition("/")
        if not key:
            self._send_xml("<x/>") if self.command == "HEAD" else self._list(bucket)
            return
        found = self._find()
        if not found.is_tagged(self.headers.get("If-Match")):
            raise RefusalError(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
        unwanted = self.headers.get("If-None-Match")
        if unwanted is not None and found.is_tagged(unwanted):
            self._send(b"", HTTPStatus.NOT_MODIFIED, found)
            return
        span = _RANGE.fullmatch(self.headers.get("Range") or "")
        if span is None:
            self._send(found.data, HTTPStatus.OK, found)
            return
        size = len(found.data)
        first = int(span[1]) if span[1] else max(0, size - int(span[2]))
        last = min(size - 1, int(span[2])) if span[1] and span[2] else size - 1
        if first >= size or first > last:
            raise RefusalError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "InvalidRange")
        place = {"Content-Range": f"bytes {first}-{last}/{size}"}
        self._send(found.data[first : last + 1], HTTPStatus.PARTIAL_CONTENT, found, place)

    def _put(self) -> None:
        if "/" not in self.name.rstrip("/"):  # a bucket
            self._send(b"")
            return
        if "partNumber" in self.query:
            self._part()
            return
        source = self.headers.get("x-amz-copy-source")
        if source is not None:
            there = self._find(unquote(source).lstrip("/"))
            if not there.is_tagged(self.headers.get("x-amz-copy-source-if-match")):
                raise RefusalError(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
            made = self._set(S3Object.of(there.data, there.headers))
            self._send_xml(f"<CopyObjectResult><ETag>{escape(made.tag)}</ETag></CopyObjectResult>")
            return
        self._send(b"", found=self._set(S3Object.of(self.body, self._kept())), of_object=False)

    def _post(self) -> None:
        if "delete" in self.query:
            self._delete_many()
        elif "uploads" in self.query:
            upload = uuid.uuid4().hex
            self.store.uploads[upload] = ({}, self._kept())
            self._send_xml(
                f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId>"
                "</InitiateMultipartUploadResult>"
            )
        else:
            self._complete()

    def _delete(self) -> None:
        if "uploadId" in self.query:
            self.store.uploads.pop(self.query["uploadId"], None)
        else:
            self.store.objects.pop(self.name, None)
        self._send(b"", HTTPStatus.NO_CONTENT)

    def _kept(self) -> dict[str, str]:
        kept = ("content-type", "x-amz-meta-")
        return {n: v for n, v in self.headers.items() if n.lower().startswith(kept)}

    def _find(self, name: str | None = None) -> S3Object:
        found = self.store.objects.get(name or self.name)
        if found is None:
            raise RefusalError(HTTPStatus.NOT_FOUND, "NoSuchKey")
        return found

    def _set(self, made: S3Object) -> S3Object:
        """Store it if the request's conditions hold; looking and storing are one step."""
        with self.store.lock:
            there = self.store.objects.get(self.name)
            wanted = self.headers.get("If-Match")
            if self.headers.get("If-None-Match") == "*" and there is not None:
                raise RefusalError(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
            if wanted is not None and there is None:
                raise RefusalError(HTTPStatus.NOT_FOUND, "NoSuchKey")
            if there is not None and not there.is_tagged(wanted):
                raise RefusalError(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
            self.store.objects[self.name] = made
        return made

    def _part(self) -> None:
        upload = self.store.uploads.get(self.query["uploadId"])
        if upload is None:
            raise RefusalError(HTTPStatus.NOT_FOUND, "NoSuchUpload")
        upload[0][int(self.query["partNumber"])] = self.body
        self._send(b"", found=S3Object.of(self.body, {}), of_object=False)

    def _complete(self) -> None:
        upload = self.store.uploads.pop(self.query.get("uploadId", ""), None)
        if upload is None:
            raise RefusalError(HTTPStatus.NOT_FOUND, "NoSuchUpload")
        parts, headers = upload
        made = self._set(S3Object.of(b"".join(parts[n] for n in sorted(parts)), headers))
        self._send_xml(
            f"<CompleteMultipartUploadResult><Key>{escape(self.name)}</Key>"
            f"<ETag>{escape(made.tag)}</ETag></CompleteMultipartUploadResult>"
        )

    def _delete_many(self) -> None:
        bucket = self.name.split("/")[0]
        root = ET.fromstring(self.body)  # noqa: S314 - from a client of our own tests
        keys = [element.text or "" for element in root.iter() if element.tag.endswith("Key")]
        for key in keys:
            self.store.objects.pop(f"{bucket}/{key}", None)
        gone = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self._send_xml(f"<DeleteResult>{gone}</DeleteResult>")

    def _list(self, bucket: str) -> None:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        after = self.query.get("continuation-token") or self.query.get("start-after", "")
        limit = int(self.query.get("max-keys", _PAGE))
        with self.store.lock:
            names = sorted(self.store.objects)
        keys = [name.partition("/")[2] for name in names if name.startswith(f"{bucket}/")]
        entries: dict[str, str | None] = {}
        for key in keys:
            if not key.startswith(prefix):
                continue
            folder, found, _ = key[len(prefix) :].partition(delimiter or "\0")
            entries.setdefault(f"{prefix}{folder}{delimiter}" if found else key,
                               None if found else key)  # fmt: skip
        listed = [(entry, key) for entry, key in entries.items() if entry > after]
        page = listed[:limit]
        lines = [self._entry(bucket, entry, key) for entry, key in page]
        more = len(listed) > len(page)
        token = (
            f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more else ""
        )
        self._send_xml(
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(page)}</KeyCount><MaxKeys>{limit}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}"
            f"{''.join(lines)}</ListBucketResult>"
        )

    def _entry(self, bucket: str, entry: str, key: str | None) -> str:
        found = None if key is None else self.store.objects.get(f"{bucket}/{key}")
        if found is None:
            return f"<CommonPrefixes><Prefix>{escape(entry)}</Prefix></CommonPrefixes>"
        moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(found.changed))
        return (
            f"<Contents><Key>{escape(entry)}</Key><LastModified>{moment}</LastModified>"
            f"<ETag>{escape(found.tag)}</ETag><Size>{len(found.data)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = self._read_chunks(self.rfile.readline, self.rfile.read)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            import io

            signed = io.BytesIO(body)
            body = self._read_chunks(signed.readline, signed.read)
        return body

    @staticmethod
    def _read_chunks(read_line: object, read: object) -> bytes:
        """Join chunks of HTTP, or of S3, which adds a signature to each; trailers are left out."""
        parts: list[bytes] = []
        while size := int(read_line().split(b";")[0].strip() or b"0", 16):  # type: ignore[operator]
            parts.append(read(size))  # type: ignore[operator]
            read_line()  # type: ignore[operator]
        while read_line().strip():  # type: ignore[operator]
            continue
        return b"".join(parts)

    def _send_xml(self, text: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        data = f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
        self._send(data, status, more={"Content-Type": "application/xml"})

    def _send(
        self,
        data: bytes,
        status: HTTPStatus = HTTPStatus.OK,
        found: S3Object | None = None,
        more: dict[str, str] | None = None,
        *,
        of_object: bool = True,
    ) -> None:
        self.send_response(status)
        headers = {"Content-Length": str(len(data)), **(more or {})}
        if found is not None:
            headers["ETag"] = found.tag
        if found is not None and of_object:
            headers["Last-Modified"] = formatdate(found.changed, usegmt=True)
            headers |= {"Accept-Ranges": "bytes", **found.headers}
        if status == HTTPStatus.NOT_MODIFIED:
            del headers["Content-Length"]
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.write_body(data)
        self.wfile.flush()
