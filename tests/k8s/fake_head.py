"""A Ray cluster that stays, as far as it is looked at: its objects, versions, and Jobs API."""

from __future__ import annotations

import base64
import json
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import yaml

from tests.k8s.fake_api import FakeApi

TOKEN = "0123456789abcdef" * 4
HEAD = "eoray-head-x"


@dataclass
class Dashboard:
    """What it asks for and answers."""

    token: str | None = TOKEN
    """None: it is open."""
    ray: str = version("ray")
    python: str = platform.python_version()
    port: int = 0
    jobs: dict[str, list[str]] = field(default_factory=dict)
    """Submission id -> its words, one for each question; the last one stays."""
    stopped: dict[str, list[str]] = field(default_factory=dict)
    """The same from the request to stop on."""
    requests: list[str] = field(default_factory=list)
    """``METHOD path`` of all requests."""

    def answer(self, method: str, path: str) -> tuple[int, object]:
        """Status and JSON for a request with the right token."""
        if path == "/api/v0/cluster_metadata":
            return 200, {"data": {"rayVersion": self.ray, "pythonVersion": self.python}}
        job, _, verb = path.removeprefix("/api/jobs/").partition("/")
        if job not in self.jobs:
            return 404, None
        if (method, verb) == ("POST", "stop"):
            self.jobs[job] = self.stopped.get(job, ["STOPPED"])
            return 200, {"stopped": True}
        words = self.jobs[job]
        return 200, {"submission_id": job, "status": words.pop(0) if words[1:] else words[0]}


@contextmanager
def serve_dashboard() -> Iterator[Dashboard]:
    """Serve on a free port of loopback."""
    told = Dashboard()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            told.requests.append(f"{self.command} {self.path}")
            wanted = None if told.token is None else f"Bearer {told.token}"
            right = self.headers.get("Authorization") == wanted
            status, body = told.answer(self.command, self.path) if right else (403, None)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            """Say nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def put_cluster(api: FakeApi, ports: dict[int, int], image: str = "r/eoray", **auth: str) -> None:
    """A RayCluster ``eoray`` whose head runs, with its token; ports of the head lead to ours."""
    head = {"template": {"spec": {"containers": [{"image": image}]}}}
    spec = {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token", **auth},
        "headGroupSpec": head,
    }
    api.put("rayclusters", {"metadata": {"name": "eoray"}, "spec": spec})
    labels = {"ray.io/cluster": "eoray", "ray.io/node-type": "head"}
    api.put("pods", {"metadata": {"name": HEAD, "labels": labels}, "status": {"phase": "Running"}})
    data = {"auth_token": base64.b64encode(TOKEN.encode()).decode()}
    api.put("secrets", {"metadata": {"name": auth.get("secretName", "eoray")}, "data": data})
    for port, local in ports.items():
        api.forwards.ports[HEAD, port] = local


def write_kubeconfig(path: Path, url: str) -> Path:
    """A kubeconfig for the fake server, in namespace ``maps``."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "maps"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(config))
    return path
