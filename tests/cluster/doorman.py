"""A server before the API server that, when told so, knows nobody: an expired login, by count."""

from __future__ import annotations

import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.cluster.cluster import Cluster

_REFUSAL = {"kind": "Status", "code": 401, "message": "Unauthorized", "reason": "Unauthorized"}


@dataclass
class Doorman:
    """A running server: whom it lets in, and the kubeconfig that leads to it."""

    upstream: str
    context: ssl.SSLContext
    """With an administrator's certificate: who is let in may do anything."""
    kubeconfig: Path
    left: int = 0
    """Requests that are still to be refused."""
    refused: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def refuse(self, requests: int) -> None:
        """Answer the next requests with 401, then let everybody in again."""
        with self.lock:
            self.left = requests

    def lets_in(self) -> bool:
        """Tell whether a request that has come is let in, and count it."""
        with self.lock:
            refuses = self.left > 0
            self.left -= refuses
            self.refused += refuses
            return not refuses


@contextmanager
def doorman(cluster: Cluster, folder: Path) -> Iterator[Doorman]:
    """Stand before a cluster's API server, at a free port of loopback.

    Args:
        cluster: Runs.
        folder: For a kubeconfig.
    """
    state = cluster.slot.state
    context = ssl.create_default_context(cafile=str(state / "ca.crt"))
    context.load_cert_chain(state / "admin.crt", state / "admin.key")
    upstream = f"https://{cluster.slot.node_ip}:6443"
    found = Doorman(upstream, context, folder / "doorman.conf")
    handler = type("BoundHandler", (_Handler,), {"doorman": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    _write_kubeconfig(found.kubeconfig, f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    doorman: Doorman
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Refuse, or ask the API server and pass its answer on."""
        if not self.doorman.lets_in():
            self._answer(401, json.dumps(_REFUSAL).encode(), "application/json")
            return
        wanted = {"Accept": self.headers.get("Accept", "*/*")}
        request = urllib.request.Request(f"{self.doorman.upstream}{self.path}", headers=wanted)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=self.doorman.context),
        )
        try:
            with opener.open(request, timeout=30) as answer:
                self._answer(answer.status, answer.read(), answer.headers["Content-Type"])
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.read(), error.headers["Content-Type"])
        except OSError:
            self.close_connection = True  # as a server that is away does

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent: refusals are counted."""

    def _answer(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _write_kubeconfig(path: Path, server: str) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "doorman", "cluster": {"server": server}}],
        "users": [{"name": "guest", "user": {}}],
        "contexts": [{"name": "door", "context": {"cluster": "doorman", "user": "guest"}}],
        "current-context": "door",
    }
    path.write_text(json.dumps(config))
