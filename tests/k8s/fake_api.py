"""An API server of our own: objects in a dict, and faults by count.

It knows what the client relies on (names, labels, owners, dry runs, merge patches, field
selectors, Status objects), and none of the operator's work: tests set the status themselves.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.k8s.fake_forward import Forwards, accept_key, carry

Key = tuple[str, str, str]
"""(plural, namespace, name)."""


@dataclass
class FakeApi:
    """What the server holds and how it misbehaves."""

    objects: dict[Key, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    """Pod -> its log with times."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(method, path with query) of all requests."""
    faults: list[tuple[int, str]] = field(default_factory=list)
    """(status, message) for the next requests, before anything is looked at; 0 cuts the line."""
    refuse: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    """(method, plural) -> (status, message)."""
    plain: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Path -> answer, for what is no object of a namespace."""
    absent: dict[str, str] = field(default_factory=dict)
    """Path -> what a server says that does not know the object."""
    denied: set[tuple[str, str]] = field(default_factory=set)
    """(verb, resource) that the caller has no right to."""
    served: tuple[str, ...] = (
        "rayjobs", "rayclusters", "configmaps", "pods", "events", "secrets", "cronjobs", "jobs",
        "poddisruptionbudgets",
    )  # fmt: skip
    forwards: Forwards = field(default_factory=Forwards)
    url: str = ""

    def put(self, plural: str, body: dict[str, Any], namespace: str = "maps") -> dict[str, Any]:
        """Store an object as a server does."""
        metadata = body.setdefault("metadata", {})
        metadata.setdefault("uid", f"uid-{len(self.objects)}")
        metadata.setdefault("creationTimestamp", f"2026-01-01T00:00:{len(self.objects):02d}Z")
        metadata.setdefault("namespace", namespace)
        self.objects[plural, namespace, metadata["name"]] = body
        return body

    def set_status(self, name: str, **status: str) -> None:
        """Play the operator: set a RayJob's status."""
        self.objects["rayjobs", "maps", name]["status"] = status

    def names(self, plural: str) -> list[str]:
        """Names of all objects of a kind."""
        return sorted(name for p, _, name in self.objects if p == plural)

    def written(self) -> list[str]:
        """Paths of requests that changed something."""
        changes = [(m, p) for m, p in self.requests if m != "GET" and "dryRun" not in p]
        return [f"{method} {urlsplit(path).path.rsplit('/', 1)[-1]}" for method, path in changes]


@contextmanager
def serve(api: FakeApi) -> Iterator[FakeApi]:
    """Serve on a free port of loopback."""
    handler = type("Handler", (_Handler,), {"api": api})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    api: FakeApi
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    """One packet for an answer: two would wait 40 ms for an acknowledgement."""

    def do_GET(self) -> None:
        self._handle(self._get)

    def do_POST(self) -> None:
        self._handle(self._create)

    def do_PATCH(self) -> None:
        self._handle(self._patch)

    def do_DELETE(self) -> None:
        self._handle(self._delete)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing on stderr."""

    def _handle(self, act: Any) -> None:
        self.api.requests.append((self.command, self.path))
        length = int(self.headers.get("Content-Length", 0))
        self.body = json.loads(self.rfile.read(length)) if length else {}
        parsed = urlsplit(self.path)
        self.query = {k: v[0] for k, v in parse_qs(parsed.query).items()}
        parts = parsed.path.strip("/").split("/")
        if parsed.path in self.api.plain:
            self._json(200, self.api.plain[parsed.path])
        elif parsed.path in self.api.absent:
            self._status(404, self.api.absent[parsed.path], "NotFound")
        elif parts[-1] == "selfsubjectaccessreviews":
            self._review()
        elif parts[-1] in ("nodes", "version", "v1") or parts[-2] == "namespaces":
            self._status(403, f"{parts[-1]} is forbidden")
        elif "namespaces" not in parts:
            self._answer(404, b"404 page not found\n", "text/plain")
        else:
            self._handle_namespaced(parts, act)

    def _handle_namespaced(self, parts: list[str], act: Any) -> None:
        at = parts.index("namespaces")
        self.namespace, self.plural = parts[at + 1], parts[at + 2]
        self.name = parts[at + 3] if len(parts) > at + 3 else ""
        self.sub = parts[at + 4] if len(parts) > at + 4 else ""
        if self.api.faults:
            status, message = self.api.faults.pop(0)
            if status == 0:
                self.close_connection = True
            else:
                self._status(status, message)
            return
        if (self.command, self.plural) in self.api.refuse:
            self._status(*self.api.refuse[self.command, self.plural])
        elif self.plural not in self.api.served:
            self._answer(404, b"404 page not found\n", "text/plain")
        else:
            act()

    def _get(self) -> None:
        if self.sub == "portforward":
            return self._forward()
        if self.sub == "log":
            text = self.api.logs.get(self.name)
            if text is None:
                return self._status(404, f'pods "{self.name}" not found', "NotFound")
            return self._answer(200, text.encode(), "text/plain")
        if self.name:
            found = self.api.objects.get((self.plural, self.namespace, self.name))
            return self._missing() if found is None else self._json(200, found)
        kept = [
            body
            for (plural, namespace, _), body in self.api.objects.items()
            if (plural, namespace) == (self.plural, self.namespace) and self._selected(body)
        ]
        return self._json(200, {"kind": "List", "metadata": {}, "items": kept})

    def _forward(self) -> None:
        if ("pods", self.namespace, self.name) not in self.api.objects:
            return self._missing()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept_key(self.headers["Sec-WebSocket-Key"]))
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        self.wfile.flush()
        port = int(self.query["ports"])
        carry(self.api.forwards, self.connection, self.rfile, self.name, port)
        self.close_connection = True
        return None

    def _selected(self, body: dict[str, Any]) -> bool:
        labels = body["metadata"].get("labels", {})
        wanted = [
            pair.split("=") for pair in self.query.get("labelSelector", "").split(",") if pair
        ]
        fields = [
            pair.split("=") for pair in self.query.get("fieldSelector", "").split(",") if pair
        ]
        return all(labels.get(k) == v for k, v in wanted) and all(
            _at(body, path) == value for path, value in fields
        )

    def _create(self) -> None:
        name = self.body["metadata"].get("name") or f"{self.body['metadata']['generateName']}x7k2p"
        self.body["metadata"]["name"] = name
        if (self.plural, self.namespace, name) in self.api.objects:
            return self._status(409, f'{self.plural} "{name}" already exists', "AlreadyExists")
        body = copy.deepcopy(self.body)
        if "dryRun" not in self.query:
            self.api.put(self.plural, body, self.namespace)
        return self._json(201, body)

    def _patch(self) -> None:
        found = self.api.objects.get((self.plural, self.namespace, self.name))
        if "apply" in self.headers["Content-Type"]:
            return self._apply(found)
        if found is None:
            return self._missing()
        _merge(found, self.body)
        return self._json(200, found)

    def _apply(self, found: dict[str, Any] | None) -> None:
        """Server-side apply by the only manager that there is: what it leaves out goes."""
        body = copy.deepcopy(self.body)
        kept = ("uid", "creationTimestamp")
        if found is not None:
            body["metadata"] |= {k: v for k, v in found["metadata"].items() if k in kept}
            body["status"] = found.get("status", {})
        if "dryRun" not in self.query:
            self.api.put(self.plural, body, self.namespace)
        return self._json(201 if found is None else 200, body)

    def _delete(self) -> None:
        found = self.api.objects.get((self.plural, self.namespace, self.name))
        if found is None:
            return self._missing()
        if not found["metadata"].get("finalizers"):
            del self.api.objects[self.plural, self.namespace, self.name]
        found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:59Z"
        return self._json(200, found)

    def _review(self) -> None:
        wanted = self.body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (wanted["resource"], wanted.get("subresource"))))
        allowed = (wanted["verb"], resource) not in self.api.denied
        self._json(201, {"spec": self.body["spec"], "status": {"allowed": allowed}})

    def _missing(self) -> None:
        self._status(404, f'{self.plural} "{self.name}" not found', "NotFound")

    def _status(self, code: int, message: str, reason: str = "") -> None:
        self._json(code, {"kind": "Status", "code": code, "message": message, "reason": reason})

    def _json(self, code: int, body: dict[str, Any]) -> None:
        self._answer(code, json.dumps(body).encode(), "application/json")

    def _answer(self, code: int, data: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _at(body: dict[str, Any], path: str) -> Any:
    value: Any = body
    for part in path.split("."):
        value = value.get(part, {})
    return value


def _merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value
