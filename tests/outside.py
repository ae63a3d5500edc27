"""The world outside of a pod, on loopback: a proxy, and servers with certificates of an own CA.

Names like ``archive.example`` exist behind the proxy alone: who does not ask it reaches nothing.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Proxy:
    """A proxy of HTTP that knows a few hosts."""

    hosts: dict[str, int]
    """Name -> port of loopback."""
    asked: list[str] = field(default_factory=list)
    """``METHOD target`` of each request."""
    url: str = ""


@contextmanager
def run_proxy(hosts: dict[str, int]) -> Iterator[Proxy]:
    """Serve on a free port of loopback; other hosts are refused with 502."""
    proxy = Proxy(hosts)

    def handle(end: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (piece := end.recv(1 << 12)):
            head += piece
        method, _, rest = head.partition(b"\r\n")[0].decode().partition(" ")
        target = rest.partition(" ")[0]
        proxy.asked.append(f"{method} {target}")
        host = target.removeprefix("http://").partition("/")[0].partition(":")[0]
        if host not in proxy.hosts:
            end.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        there = socket.create_connection(("127.0.0.1", proxy.hosts[host]))
        if method == "CONNECT":
            end.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = target.removeprefix("http://").partition("/")[2]
            there.sendall(head.replace(target.encode(), f"/{path}".encode(), 1))
        _join(end, there)

    with _listen(handle) as port:
        proxy.url = f"http://127.0.0.1:{port}"
        yield proxy


@dataclass(frozen=True)
class Authority:
    """A certificate authority of one's own, and one server's certificate by it."""

    folder: Path

    @property
    def bundle(self) -> Path:
        """The authority's certificate in PEM, which clients are to trust."""
        return self.folder / "ca.crt"


def make_authority(folder: Path, names: list[str]) -> Authority:
    """Make an authority and a server's certificate for some names, by openssl."""
    (folder / "empty.cnf").write_text("[req]\ndistinguished_name = none\n[none]\n")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
        "-subj", "/CN=authority of the tests", "-addext", "basicConstraints=critical,CA:TRUE",
    )  # fmt: skip
    listed = ",".join(f"DNS:{name}" for name in names)
    _openssl(
        folder, "req", "-x509", *curve, "-keyout", "server.key", "-out", "server.crt", "-days", "2",
        "-subj", f"/CN={names[0]}", "-CA", "ca.crt", "-CAkey", "ca.key",
        "-addext", f"subjectAltName={listed}", "-addext", "basicConstraints=critical,CA:FALSE",
    )  # fmt: skip
    return Authority(folder)


@contextmanager
def serve_tls(authority: Authority, plain_port: int) -> Iterator[int]:
    """Put TLS in front of a plain server of loopback; gives the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.folder / "server.crt", authority.folder / "server.key")

    def handle(end: socket.socket) -> None:
        # who does not trust the authority says so and leaves
        with suppress(OSError), context.wrap_socket(end, server_side=True) as inner:
            _join(inner, socket.create_connection(("127.0.0.1", plain_port)))

    with _listen(handle) as port:
        yield port


@contextmanager
def _listen(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:

        def one(end: socket.socket) -> None:
            with end, suppress(OSError):
                handle(end)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    end, _ = server.accept()
                    threading.Thread(target=one, args=(end,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _join(here: socket.socket, there: socket.socket) -> None:
    """Copy both ways until one side ends."""
    with there:
        back = threading.Thread(target=_copy, args=(there, here), daemon=True)
        back.start()
        _copy(here, there)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _openssl(folder: Path, *words: str) -> None:
    command = ["openssl", *words, "-config", "empty.cnf"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
