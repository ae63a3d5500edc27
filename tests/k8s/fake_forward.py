"""The kubelet's side of a port-forward: WebSocket frames on one end, a TCP port on the other."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from io import BufferedIOBase

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY, _CLOSE = 2, 8


@dataclass
class Forwards:
    """Where ports of pods lead, and the connections that go on."""

    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    """(pod, port) -> port of loopback."""
    dialled: int = 0
    live: set[socket.socket] = field(default_factory=set)

    def cut(self) -> None:
        """Lose all connections at once, without a word of farewell."""
        for end in tuple(self.live):
            with suppress(OSError):
                # zero linger sends a reset
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)


def accept_key(key: str) -> str:
    """What a server answers to a client's key (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def carry(
    forwards: Forwards, end: socket.socket, reader: BufferedIOBase, pod: str, port: int
) -> None:
    """Speak the protocol until one side ends; channel 0 is data, channel 1 says what is wrong."""
    for channel in (0, 1):
        _send(end, bytes([channel]) + struct.pack("<H", port))
    forwards.dialled += 1
    try:
        there = socket.create_connection(("127.0.0.1", forwards.ports.get((pod, port), 1)))
    except OSError:
        _send(end, b"\x01" + f"connection refused: nothing listens at {port}".encode())
        return
    forwards.live.add(end)
    back = threading.Thread(target=_from_pod, args=(there, end), daemon=True)
    back.start()
    with suppress(OSError), there:
        while (frame := _read(reader)) is not None:
            there.sendall(frame[1:])
        there.shutdown(socket.SHUT_RDWR)
    back.join()
    forwards.live.discard(end)


def _from_pod(there: socket.socket, end: socket.socket) -> None:
    with suppress(OSError):
        while piece := there.recv(1 << 16):
            _send(end, b"\x00" + piece)
        _send(end, b"", _CLOSE)
        end.shutdown(socket.SHUT_RD)


def _send(end: socket.socket, data: bytes, opcode: int = _BINARY) -> None:
    size = len(data)
    head = bytes([0x80 | opcode])
    if size < 126:
        head += bytes([size])
    elif size < 1 << 16:
        head += b"\x7e" + struct.pack(">H", size)
    else:
        head += b"\x7f" + struct.pack(">Q", size)
    end.sendall(head + data)


def _read(reader: BufferedIOBase) -> bytes | None:
    """The next frame of the client, which masks what it sends; None at the end."""
    head = reader.read(2)
    if len(head) < 2 or head[0] & 0x0F == _CLOSE:
        return None
    size = head[1] & 0x7F
    if size == 126:
        (size,) = struct.unpack(">H", reader.read(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", reader.read(8))
    mask = reader.read(4)
    data = reader.read(size)
    if len(data) < size:
        return None
    keys = int.from_bytes((mask * (size // 4 + 1))[:size])
    return (int.from_bytes(data) ^ keys).to_bytes(size)
