"""A folder behind nginx on loopback: one port answers at once, one after a while; both count."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_MODULES = Path("/usr/lib/nginx/modules")
_CONFIG = """\
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
worker_processes 1; daemon off; user root; pid {folder}/pid; error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  sendfile on; tcp_nopush on; keepalive_timeout 65; keepalive_requests 1000000; access_log off;
  types {{ application/json json; image/tiff tif; }}
  client_body_temp_path {folder}/body;
  log_format counted '$request_method $status $body_bytes_sent $uri $http_range';
  server {{
    listen 127.0.0.1:{port}; root {root}; access_log {folder}/access.log counted;
  }}
  server {{
    listen 127.0.0.1:{slow_port}; root {root}; access_log {folder}/access.log counted;
    access_by_lua_block {{ ngx.sleep({seconds}) }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    ports: dict[int, int]
    """Latency in ms -> port."""
    log: Path

    def url(self, latency_ms: int) -> str:
        """Root of what answers after that time."""
        return f"http://127.0.0.1:{self.ports[latency_ms]}"


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a server was asked."""

    requests: int
    heads: int
    mb: float


def forget_traffic(log: Path) -> None:
    """Begin to count."""
    with log.open("w"):
        pass


def read_traffic(log: Path) -> Traffic:
    """What was answered since."""
    time.sleep(0.1)  # the line is written behind the answer
    lines = [line.split() for line in log.read_text().splitlines()]
    files = [line for line in lines if ".json" not in line[3]]
    heads = sum(line[0] == "HEAD" for line in files)
    return Traffic(len(files), heads, round(sum(int(line[2]) for line in files) / 1e6, 1))


@contextmanager
def serve(root: Path, folder: Path, latency_ms: int = 30) -> Iterator[Server]:
    """Serve a folder while the block runs.

    Args:
        root: What is served.
        folder: For the server's own files.
        latency_ms: Silence before the first byte of each answer of the second port.
    """
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None or not (_MODULES / "ngx_http_lua_module.so").exists():
        sys.exit(
            "nginx with its Lua module is needed: apt-get install --no-install-recommends "
            "nginx-light libnginx-mod-http-lua"
        )
    folder.mkdir(parents=True, exist_ok=True)
    port, slow_port = _free_ports()
    config = folder / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            modules=_MODULES,
            folder=folder,
            root=root,
            port=port,
            slow_port=slow_port,
            seconds=latency_ms / 1000,
        )
    )
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(config)])
    try:
        _await(port)
        yield Server({0: port, latency_ms: slow_port}, folder / "access.log")
    finally:
        process.terminate()
        process.wait(10)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _await(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit("nginx did not start; its error.log tells why")
