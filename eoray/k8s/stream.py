"""A connection to a port of a pod, through the API server's WebSocket."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Protocol

from kubernetes.client.exceptions import ApiException
from kubernetes.stream.ws_client import PortForward, create_websocket
from urllib3.exceptions import ProtocolError
from websocket import WebSocketBadStatusException, WebSocketException


class _Stream(PortForward):
    """The client's port-forward, ended also by what the client does not expect.

    The client's thread dies of a connection that was reset, and leaves its socket open: whoever
    reads it would wait for ever. Half-closing is unknown to the protocol, so a side that has said
    its last word hears nothing more.
    """

    def _proxy(self) -> None:
        # a reset, a frame of another protocol: to the reader all of them are the end
        with suppress(OSError, RuntimeError, ValueError, WebSocketException):
            super()._proxy()  # type: ignore[no-untyped-call]
        for port in self.local_ports.values():
            port.python.close()
        with suppress(OSError, WebSocketException):
            self.websocket.shutdown()


class PodStream(Protocol):
    """What is used of a stream."""

    def socket(self, port: int) -> socket.socket:
        """The end of a port that is read and written here."""

    def error(self, port: int) -> str | None:
        """What the node says about the port's connection."""


def open_stream(configuration: Any, url: str, headers: dict[str, str], port: int) -> PodStream:
    """Ask the API server for a connection to a port of a pod.

    Args:
        configuration: The client's: certificates, proxy.
        url: Of the pod's ``portforward``, with the port in its query.
        headers: With the caller's credential.
        port: Of the pod.

    Raises:
        ApiException: The server refuses, with its status and answer.
        ProtocolError: The connection broke.
    """
    plain = {name.lower(): value for name, value in headers.items()}
    try:
        websocket = create_websocket(configuration, url.replace("http", "ws", 1), plain)
    except WebSocketBadStatusException as error:
        refusal = ApiException(status=error.status_code, reason=error.status_message)
        refusal.body = (error.resp_body or b"").decode(errors="replace")
        raise refusal from error
    except (OSError, WebSocketException) as error:
        raise ProtocolError(str(error)) from error
    stream: PodStream = _Stream(websocket, [port])  # type: ignore[no-untyped-call]
    return stream
