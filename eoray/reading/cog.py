"""Read tiles of a Cloud Optimized GeoTIFF: header once, merged ranges, libdeflate, no GDAL.

Covers what Sentinel-2 L2A COGs are: one band of 8 or 16 bits, tiled, deflate or no compression,
with or without the horizontal predictor. Anything else is :class:`UnsupportedFileError`, and
GDAL reads it.
"""

from __future__ import annotations

import math
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.grid import Affine6
from eoray.reading.ranges import RangeReader, UnsupportedFileError, open_ranges
from eoray.reading.requests import Patience

if TYPE_CHECKING:
    from collections.abc import Buffer

HEADER_BYTES = 32_768
"""Read at once: holds the directory, the tables of blocks and the georeference of any COG."""

_OVERLAP_PX = 64
"""Pixels by which a part of a block may begin before the end of its neighbour: halos of masks."""

_MAX_HEADERS = 8192
"""Cached headers of a process: a few kB each."""

# TIFF 6.0, GeoTIFF 1.1 (OGC 19-008r4) and GDAL's own tag for nodata.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _PREDICTOR = 256, 257, 258, 259, 277, 317
_SUBFILE, _REDUCED, _OF_MASK = 254, 1, 4
_TILE_WIDTH, _TILE_HEIGHT, _OFFSETS, _COUNTS, _FORMAT = 322, 323, 324, 325, 339
_SCALE, _TIEPOINT, _MATRIX, _GEO_KEYS, _NODATA = 33550, 33922, 34264, 34735, 42113
_PROJECTED_CRS, _RASTER_TYPE, _PIXEL_IS_POINT = 3072, 1025, 2

_KINDS = {1: "B", 2: "s", 3: "H", 4: "I", 11: "f", 12: "d", 16: "Q"}
"""TIFF field type -> letter of ``struct``, for the fields that matter here."""

_NONE, _DEFLATE, _OLD_DEFLATE = 1, 8, 32946


_MAX_DIRECTORIES = 32
"""Of one file: a chain that is longer bites its own tail."""


type Put = Callable[[np.ndarray, slice, tuple[int, int]], None]
"""Takes rows of pixels, dims (y, x), C order; the columns of them that are asked for; and the (row,
column) at which these begin in what is read. The memory may hold other pixels after the call."""


class BrokenFileError(OSError):
    """A file that ends too early or does not decode."""


@dataclass(frozen=True, slots=True)
class CogHeader:
    """What one directory of a COG says: of the picture itself, or of one of its overviews."""

    shape: tuple[int, int]
    """(height, width) in pixels."""
    block: tuple[int, int]
    """(height, width) of a tile."""
    dtype: np.dtype[Any]
    deflated: bool
    differenced: bool
    """Values are differences along rows (predictor 2)."""
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    """Bytes of each tile, row by row; 0 for a tile that was left out."""
    transform: Affine6
    epsg: int | None
    nodata: int
    """0 where the file says none."""

    @property
    def blocks_across(self) -> int:
        """Tiles in a row."""
        return -(-self.shape[1] // self.block[1])


class BlockMemory:
    """Decoded tiles that later parts of a block need too; one a task, for all its files.

    A block of the world grid is read part by part, row by row from north to south, to hold little
    at once. Tiles of a COG that lie in several parts would be fetched and decoded again without
    it.
    """

    def __init__(self, reach: int = 1) -> None:
        """Start with nothing.

        Args:
            reach: Parts in a row: so many parts later the one below is read.
        """
        self._reach = reach
        self._part = 0
        self._lock = threading.Lock()
        self._held: dict[tuple[str, int], tuple[int, int, np.ndarray]] = {}

    def next_part(self) -> None:
        """Forget what no part from here on needs."""
        with self._lock:
            self._part += 1
            oldest = self._part - self._reach
            self._held = {k: v for k, v in self._held.items() if v[0] >= oldest}

    def find(self, href: str, number: int, first: int) -> np.ndarray | None:
        """The rows of a tile from ``first`` on, where a part before left them."""
        _, held_from, values = self._held.get((href, number), _NOT_HELD)
        return values[first - held_from :] if held_from <= first else None

    def keep(self, href: str, number: int, first: int, values: np.ndarray) -> None:
        """Leave the rows of a tile from ``first`` on for the parts to come."""
        with self._lock:
            self._held[href, number] = (self._part, first, values)


_NOT_HELD = (0, sys.maxsize, np.empty((0, 0)))


class CogFile:
    """An opened COG; cheap to make, since headers are cached by the process."""

    def __init__(
        self,
        href: str,
        memory: BlockMemory | None = None,
        patience: Patience | None = None,
        *,
        overviews: bool = False,
    ) -> None:
        """Open a file.

        Args:
            href: Path or URL.
            memory: Where tiles are kept that lie across an edge of what is read.
            patience: How long its server may be asked.
            overviews: Learn about them, too; what needs none shall not parse them.

        Raises:
            UnsupportedFileError: GDAL has to read it.
            OSError: It cannot be read.
        """
        self._href, self._memory = href, memory
        self._ranges = open_ranges(href, patience)
        key = (href, self._ranges.stamp)
        header = _headers.get(key)
        levels = _levels.get(key) if overviews else ()
        if header is None or levels is None:
            found = read_headers(self._ranges)
            header = next(found)
            levels = tuple(found) if overviews else ()
            if len(_headers) >= _MAX_HEADERS:
                _headers.clear()
                _levels.clear()
            _headers[key] = header
            if overviews:
                _levels[key] = levels
        self.header = header
        self.overviews = levels
        """The large ones first; none where nobody asked for them."""

    def overview(self, number: int) -> CogFile:
        """An overview as a file of its own, whose pixels are larger."""
        level = copy(self)
        level.header, level.overviews = self.overviews[number], ()
        level._href = f"{self._href}#{number}"  # noqa: SLF001 - tiles are kept by this name
        return level

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self.header.dtype

    @property
    def transform(self) -> Affine6:
        """Affine a, b, c, d, e, f of the file."""
        return self.header.transform

    @property
    def epsg(self) -> int | None:
        """Code of the projected CRS; None where the file names none."""
        return self.header.epsg

    @property
    def nodata(self) -> int:
        """0 where the file says none."""
        return self.header.nodata

    def read(self, rows: slice, cols: slice) -> np.ndarray:
        """Read pixels, each tile that they touch once.

        Args:
            rows: Within the file.
            cols: Within the file.

        Returns:
            Dims (y, x).

        Raises:
            BrokenFileError: The file ends too early, or a tile does not decode.
        """
        out = np.empty((rows.stop - rows.start, cols.stop - cols.start), self.header.dtype)

        def put(values: np.ndarray, of: slice, at: tuple[int, int]) -> None:
            out[at[0] : at[0] + len(values), at[1] : at[1] + of.stop - of.start] = values[:, of]

        self.read_to(put, rows, cols)
        return out

    def read_to(self, put: Put, rows: slice, cols: slice) -> None:
        """Hand pixels over tile by tile, as they are decoded: no array between.

        Args:
            put: Gets the part of each tile that lies within the rows and columns.
            rows: Within the file.
            cols: Within the file.

        Raises:
            BrokenFileError: The file ends too early, or a tile does not decode.
        """
        header, memory = self.header, self._memory
        height, width = header.block
        blocks = list(_blocks(header, rows, cols))
        known = {
            number: found
            for row, _, number in blocks
            if memory is not None
            and (found := memory.find(self._href, number, max(0, rows.start - row * height)))
            is not None
        }
        spans = [
            (header.offsets[n], header.counts[n])
            for _, _, n in blocks
            if header.counts[n] and n not in known
        ]
        data = iter(self._ranges.get(spans))
        for row, col, number in blocks:
            top, left = row * height, col * width
            r0, r1 = max(top, rows.start), min(top + height, rows.stop)
            c0, c1 = max(left, cols.start), min(left + width, cols.stop)
            place, inner = (r0 - rows.start, c0 - cols.start), slice(c0 - left, c1 - left)
            if header.counts[number] == 0:
                put(np.full((r1 - r0, width), header.nodata, header.dtype), inner, place)
                continue
            values = known.get(number)
            if values is None:
                values = _decode(header, next(data), row, col)[r0 - top :]
            put(values[: r1 - r0], inner, place)
            if memory is not None:
                bottom, right = top + height, left + width
                first = self._first_shared(r0, rows.stop, cols.stop, bottom, right)
                if first < bottom:
                    # a copy: what was decoded lies in memory that the next tile takes
                    memory.keep(self._href, number, first - top, values[first - r0 :].copy())

    def _first_shared(self, top: int, last_row: int, last_col: int, bottom: int, right: int) -> int:
        """First row of a tile that the part below or on the right needs; its end for none."""
        if last_col - _OVERLAP_PX < min(right, self.shape[1]):
            return top
        if last_row - _OVERLAP_PX < min(bottom, self.shape[0]):
            return max(top, last_row - _OVERLAP_PX)
        return bottom


_headers: dict[tuple[str, Any], CogHeader] = {}
_levels: dict[tuple[str, Any], tuple[CogHeader, ...]] = {}


def forget_header(href: str) -> None:
    """Read an object's header anew next time: after an error, since it may have been replaced."""
    _headers.pop((href, None), None)
    _levels.pop((href, None), None)


def _blocks(header: CogHeader, rows: slice, cols: slice) -> Iterator[tuple[int, int, int]]:
    """(row, column, number) of the tiles under a window."""
    height, width = header.block
    for row in range(rows.start // height, -(-rows.stop // height)):
        for col in range(cols.start // width, -(-cols.stop // width)):
            yield row, col, row * header.blocks_across + col


_scratch = threading.local()


def _scratch_of(size: int) -> Any:
    """Memory of this thread, used again for every tile."""
    buffer = getattr(_scratch, "buffer", None)
    if buffer is None or buffer.size < size:
        buffer = _scratch.buffer = np.empty(size, np.uint8)
    return buffer[:size]


def _decode(header: CogHeader, data: Buffer, row: int, col: int) -> np.ndarray:
    """One tile, dims (y, x); valid until the thread decodes the next one."""
    import imagecodecs

    size = header.block[0] * header.block[1] * header.dtype.itemsize
    if header.deflated:
        buffer = _scratch_of(size)
        try:
            got = memoryview(imagecodecs.deflate_decode(data, out=buffer)).nbytes
        except imagecodecs.DeflateError as error:
            raise BrokenFileError(f"block ({row}, {col}) does not decode: {error}") from error
    else:
        buffer = np.frombuffer(data, np.uint8)[:size]
        got = buffer.size
        if header.differenced:
            buffer = buffer.copy()
    if got != size:
        raise BrokenFileError(f"block ({row}, {col}) holds {got} bytes, not {size}")
    values: np.ndarray = buffer.view(header.dtype).reshape(header.block)
    if header.differenced:
        imagecodecs.delta_decode(values, axis=-1, out=values)
    return values


def read_header(ranges: RangeReader) -> CogHeader:
    """Parse the first directory of a TIFF or BigTIFF.

    Raises:
        UnsupportedFileError: It is no TIFF, or of a kind that GDAL has to read.
        OSError: It cannot be read.
    """
    return next(read_headers(ranges))


def read_headers(ranges: RangeReader) -> Iterator[CogHeader]:
    """Parse the directories of a TIFF or BigTIFF one by one: the picture, then its overviews.

    Raises:
        UnsupportedFileError: It is no TIFF, or of a kind that GDAL has to read.
        OSError: It cannot be read.
    """
    head = ranges.head(HEADER_BYTES)
    if head[:4] not in (b"II*\0", b"II+\0"):
        raise UnsupportedFileError("no little-endian TIFF")
    big = head[2] == 43
    start = _unpack("<Q" if big else "<I", head, 8 if big else 4)
    tags = _Directory(ranges, head, start, big=big)
    picture = _header_of(tags, None)
    yield picture
    for _ in range(_MAX_DIRECTORIES):
        start = tags.next()
        if not start:
            return
        tags = _Directory(ranges, head, start, big=big)
        if tags.one(_SUBFILE, 0) & (_REDUCED | _OF_MASK) == _REDUCED:
            yield _header_of(tags, picture)
    raise BrokenFileError(f"more than {_MAX_DIRECTORIES} directories")


def _header_of(tags: _Directory, picture: CogHeader | None) -> CogHeader:
    """A directory; that of an overview has its place from the picture."""
    if tags.one(_SAMPLES, 1) != 1 or _OFFSETS not in tags:
        raise UnsupportedFileError("several bands in one file, or strips")
    bits, form = tags.one(_BITS, 1), tags.one(_FORMAT, 1)
    compression, predictor = tags.one(_COMPRESSION, _NONE), tags.one(_PREDICTOR, 1)
    if (
        bits not in (8, 16)
        or form != 1
        or compression not in (_NONE, _DEFLATE, _OLD_DEFLATE)
        or predictor not in (1, 2)
    ):
        raise UnsupportedFileError(
            f"{bits} bits of format {form}, compression {compression}, predictor {predictor}"
        )
    dtype = np.dtype("u1" if bits == 8 else "<u2")
    shape = tags.one(_HEIGHT, 0), tags.one(_WIDTH, 0)
    if picture is None:
        epsg, is_point = _geo_keys(tags)
        transform = _transform(tags, is_point=is_point)
        nodata = _nodata(tags.text(_NODATA), dtype)
    else:
        if dtype != picture.dtype or not _is_reduced(shape, picture.shape):
            raise UnsupportedFileError(f"an overview of {shape} pixels of {dtype}")
        epsg, nodata = picture.epsg, picture.nodata
        transform = scaled(picture.transform, picture.shape, shape)
    header = CogHeader(
        shape=shape,
        block=(tags.one(_TILE_HEIGHT, 0), tags.one(_TILE_WIDTH, 0)),
        dtype=dtype,
        deflated=compression != _NONE,
        differenced=predictor == 2,
        offsets=tuple(int(n) for n in tags.values(_OFFSETS)),
        counts=tuple(int(n) for n in tags.values(_COUNTS)),
        transform=transform,
        epsg=epsg,
        nodata=nodata,
    )
    _check_tables(header)
    return header


def scaled(transform: Affine6, shape: tuple[int, int], level: tuple[int, int]) -> Affine6:
    """Affine of an overview: as GDAL makes and reads them, it covers what the picture covers."""
    a, b, c, d, e, f = transform
    down, across = (n / m for n, m in zip(shape, level, strict=True))
    return a * across, b * down, c, d * across, e * down, f


def _is_reduced(level: tuple[int, int], picture: tuple[int, int]) -> bool:
    """Tell whether a picture is another one made smaller, by one factor in both directions."""
    (height, width), (rows, cols) = picture, level
    return 0 < cols < width and 0 < rows < height and abs(rows - height * cols / width) <= 1


def _nodata(text: str, dtype: np.dtype[Any]) -> int:
    """The file's nodata; what its pixels cannot hold is left to GDAL to understand."""
    if not text:
        return 0
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value.is_integer() and 0 <= value <= np.iinfo(dtype).max):
        raise UnsupportedFileError(f"nodata {text!r} in pixels of {dtype}")
    return int(value)


def _check_tables(header: CogHeader) -> None:
    if min(*header.shape, *header.block) < 1:
        raise BrokenFileError(f"shape {header.shape} in tiles of {header.block}")
    tiles = -(-header.shape[0] // header.block[0]) * header.blocks_across
    if not len(header.offsets) == len(header.counts) == tiles:
        raise BrokenFileError(
            f"{tiles} tiles, but {len(header.offsets)} offsets and {len(header.counts)} sizes"
        )


class _Directory:
    """The entries of one image file directory."""

    def __init__(self, ranges: RangeReader, head: bytes, start: int, *, big: bool) -> None:
        self._ranges, self._head = ranges, head
        count_format, entry_bytes, self._inline = ("<Q", 20, 8) if big else ("<H", 12, 4)
        size = struct.calcsize(count_format)
        count = _unpack(count_format, self._bytes(start, size), 0)
        table = self._bytes(start + size, count * entry_bytes)
        entry = "<HHQQ" if big else "<HHII"
        self._value_at = entry_bytes - self._inline
        self._entries: dict[int, tuple[int, int, bytes]] = {}
        for at in range(0, len(table), entry_bytes):
            tag, kind, number, _ = struct.unpack_from(entry, table, at)
            self._entries[tag] = (kind, number, table[at + self._value_at : at + entry_bytes])
        self._end = start + size + len(table)

    def next(self) -> int:
        """Where the next directory begins; 0 behind the last."""
        return _unpack("<Q" if self._inline == 8 else "<I", self._bytes(self._end, self._inline), 0)

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def values(self, tag: int) -> tuple[Any, ...]:
        """All values of a tag; () where it is not there."""
        if tag not in self._entries:
            return ()
        kind, number, inline = self._entries[tag]
        if kind not in _KINDS:
            raise UnsupportedFileError(f"tag {tag} has field type {kind}")
        layout = f"<{number}{_KINDS[kind]}"
        size = struct.calcsize(layout)
        data = inline
        if size > self._inline:
            data = self._bytes(_unpack("<Q" if self._inline == 8 else "<I", inline, 0), size)
        return struct.unpack_from(layout, data)

    def one(self, tag: int, default: int) -> int:
        """The first value of a tag of whole numbers."""
        found = self.values(tag)
        return int(found[0]) if found else default

    def text(self, tag: int) -> str:
        """The text of an ASCII tag; "" where it is not there."""
        found = self.values(tag)
        return found[0].split(b"\0")[0].decode("ascii", "replace").strip() if found else ""

    def _bytes(self, start: int, size: int) -> bytes:
        if start + size <= len(self._head):
            return self._head[start : start + size]
        return bytes(next(iter(self._ranges.get([(start, size)]))))


def _unpack(layout: str, data: bytes, at: int) -> int:
    if len(data) < at + struct.calcsize(layout):
        raise BrokenFileError("the file ends within its header")
    return int(struct.unpack_from(layout, data, at)[0])


def _geo_keys(tags: _Directory) -> tuple[int | None, bool]:
    """(EPSG code of the projected CRS, whether coordinates name centres of pixels)."""
    keys = tags.values(_GEO_KEYS)
    found = {keys[at]: keys[at + 3] for at in range(4, len(keys) - 3, 4) if keys[at + 1] == 0}
    code = found.get(_PROJECTED_CRS, 0)
    # 32767 is "user-defined"; GDAL would read the parameters
    epsg = int(code) if 0 < code < 32767 else None
    return epsg, found.get(_RASTER_TYPE) == _PIXEL_IS_POINT


def _transform(tags: _Directory, *, is_point: bool) -> Affine6:
    scale, tie = tags.values(_SCALE), tags.values(_TIEPOINT)
    if _MATRIX in tags or len(scale) < 2 or len(tie) < 6 or is_point:
        raise UnsupportedFileError("georeferenced by a matrix, by centres, or not at all")
    col, row, _, x, y = tie[:5]
    return (
        float(scale[0]), 0.0, x - col * scale[0],
        0.0, -float(scale[1]), y + row * scale[1],
    )  # fmt: skip
