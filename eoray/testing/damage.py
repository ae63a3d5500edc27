"""Bytes of a TIFF that arrive whole and are wrong."""

from __future__ import annotations

import struct
from typing import Literal

_TIEPOINT = 33922
_STRIDE = 64


def damage(body: bytes, first: int, kind: Literal["corrupt", "lie"]) -> bytes:
    """Change what an answer carries.

    Args:
        body: Bytes of a little-endian TIFF, not BigTIFF.
        first: Offset of the first one in the file.
        kind: ``corrupt`` flips bits of everything but the header; ``lie`` moves the georeference
            of the header one pixel of 10 m to the east.
    """
    if kind == "lie":
        return _moved(body) if first == 0 else body
    if first == 0:
        return body
    data = bytearray(body)
    for at in range(0, len(data), _STRIDE):
        data[at] ^= 0x5A
    return bytes(data)


def _moved(body: bytes) -> bytes:
    data = bytearray(body)
    start = struct.unpack_from("<I", data, 4)[0]
    (count,) = struct.unpack_from("<H", data, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, _, _, place = struct.unpack_from("<HHII", data, at)
        if tag == _TIEPOINT:
            (x,) = struct.unpack_from("<d", data, place + 24)
            struct.pack_into("<d", data, place + 24, x + 10.0)
    return bytes(data)
