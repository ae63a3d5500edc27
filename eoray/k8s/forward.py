"""A port of loopback whose connections end at a pod: each is dialled anew, so a drop costs one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING, Any

from eoray.errors import ClusterError
from eoray.log import get_logger

if TYPE_CHECKING:
    from eoray.k8s.stream import PodStream

_POLL_S = 0.1
"""How soon the listener notices that it is to end."""

_PIECE = 1 << 16


@dataclass(slots=True)
class Forward:
    """A listening port and what went wrong behind it."""

    port: int
    """Of this machine, on 127.0.0.1."""
    error: str = ""
    """Why the last connection failed; "" where none did."""
    ends: set[Any] = field(default_factory=set)
    """Sockets of the connections that go on."""


@contextmanager
def forward_port(dial: Callable[[], PodStream], remote_port: int) -> Iterator[Forward]:
    """Listen on a free port of loopback and hand each connection on to a pod.

    Args:
        dial: Opens a connection to the pod.
        remote_port: The pod's port, as ``dial`` opened it.

    Yields:
        The port. It goes on listening when a connection, or the pod, is lost.
    """
    handler = type("Handler", (_Handler,), {"dial": staticmethod(dial), "remote": remote_port})
    with _Server(("127.0.0.1", 0), handler) as server:
        server.forward = Forward(int(server.server_address[1]))
        thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,), daemon=True)
        thread.start()
        try:
            yield server.forward
        finally:
            server.shutdown()
            thread.join()
            for end in tuple(server.forward.ends):
                _end(end)


class _Server(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    forward: Forward


class _Handler(BaseRequestHandler):
    dial: Callable[[], PodStream]
    remote: int
    server: _Server

    def handle(self) -> None:
        forward = self.server.forward
        try:
            stream = self.dial()
        except ClusterError as error:
            forward.error = str(error)
            get_logger().debug("forward refused", port=self.remote, reason=str(error))
            return
        there = stream.socket(self.remote)

        def note() -> None:
            # the kubelet says here that nothing listens in the pod
            forward.error = " ".join((stream.error(self.remote) or "").split())

        with _kept(forward, self.request), _kept(forward, there):
            _join(self.request, there, note)


@contextmanager
def _kept(forward: Forward, end: Any) -> Iterator[None]:
    """Let a connection be ended with the forward that it belongs to."""
    forward.ends.add(end)
    try:
        yield
    finally:
        forward.ends.discard(end)
        with suppress(OSError):
            end.close()


def _join(here: Any, there: Any, note: Callable[[], None]) -> None:
    """Copy both ways until one side ends; then note why, before the other side hears of it."""
    back = threading.Thread(target=_copy, args=(there, here, note), daemon=True)
    back.start()
    _copy(here, there, note)
    back.join()


def _copy(source: Any, target: Any, note: Callable[[], None]) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    note()
    _end(source)
    _end(target)


def _end(end: Any) -> None:
    """Wake whoever waits for the other end of a connection."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
