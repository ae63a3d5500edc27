"""Read a cube back: coverage, counts, and a checksum of its logical content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eoray.cube.holes import DeadLetter, read_letters
from eoray.cube.ledger import Ledger, TileReceipt, digest_arrays
from eoray.cube.read import CubeReader, CubeSource, PixelWindow
from eoray.cube.scenes import PRODUCT, count_tile
from eoray.grid import Tile, lattice_of


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a cube holds, and whether its pixels are those that the ledger knows."""

    ok: bool
    tiles: int
    """Tiles of the scene product with a valid pixel."""
    dates: int
    """Datatakes with a valid pixel."""
    failed_reads: int
    checksum: str
    """SHA-256 of scenes and composites: pixels, coordinates and ledger, however they came."""
    products: dict[str, str] = field(default_factory=dict)
    """Checksum of each product, maps and change too."""
    problems: tuple[str, ...] = ()
    holes: tuple[DeadLetter, ...] = ()
    """What could not be read, and is missed."""
    n_valid: int = 0
    """Pixels of the finest level that hold an observation, over tiles and dates."""
    n_masked: int | None = None
    """Those of them that are not clear; None in cubes from before it was counted."""

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "ok": self.ok,
            "tiles": self.tiles,
            "dates": self.dates,
            "failed_reads": self.failed_reads,
            "checksum": self.checksum,
            "products": self.products,
            "problems": list(self.problems),
            "holes": [letter.to_dict() for letter in self.holes],
            "n_valid": self.n_valid,
            "n_masked": self.n_masked,
        }


def check_cube(url: str, *, quick: bool = False) -> CheckReport:
    """Check a store against its ledger.

    Args:
        url: The repository or the store folder around it.
        quick: Trust the ledger's digests; otherwise every tile is read and hashed again.

    Raises:
        StoreError: There is no cube.
    """
    reader = CubeReader(CubeSource(url))
    problems: list[str] = []
    checksums: dict[str, str] = {}
    cube_lines: list[str] = []
    for product in reader.products():
        lines = sorted(_lines(reader, product, problems, quick=quick))
        checksums[product] = _checksum(lines)
        if product == PRODUCT or product.startswith(f"{PRODUCT}-"):
            cube_lines += lines
    tiles, dates, failed = _count(reader)
    n_valid, n_masked = _count_pixels(reader)
    return CheckReport(
        ok=not problems and bool(checksums),
        tiles=tiles,
        dates=dates,
        failed_reads=failed,
        checksum=_checksum(sorted(cube_lines)),
        products=checksums,
        problems=tuple(problems or ([] if checksums else ["the store holds no product"])),
        holes=tuple(read_letters(reader)),
        n_valid=n_valid,
        n_masked=n_masked,
    )


def _checksum(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _lines(reader: CubeReader, product: str, problems: list[str], *, quick: bool) -> Iterator[str]:
    """One line per done tile and one per used time entry; encodings and order are not in it."""
    for zone in reader.zones(product):
        ledger = reader.ledger(product, zone)
        table = reader.entries(product, zone)
        for i, entry in enumerate(table.key):
            receipts = ledger.receipts(str(entry))
            if receipts:
                columns = " ".join(f"{k}={table.columns[k][i]}" for k in sorted(table.columns))
                yield f"{product} {lattice_of(zone).name} time {entry} {table.time[i]} {columns}"
            for receipt in receipts:
                digest = receipt.digest
                if not quick:
                    arrays, fills = _stored(reader, product, receipt, int(table.index[i]))
                    digest = digest_arrays(arrays, fills)
                    problems += _contradictions(product, receipt, digest, arrays)
                yield _line(product, receipt, digest)


def _line(product: str, receipt: TileReceipt, digest: int) -> str:
    return (
        f"{product} {receipt.tile.id} {receipt.entry} {receipt.status} {receipt.n_valid} "
        f"{receipt.n_failed} {digest:016x} {receipt.source}"
    )


def _contradictions(
    product: str, receipt: TileReceipt, digest: int, arrays: dict[str, np.ndarray]
) -> Iterator[str]:
    """What the pixels of a tile say otherwise than the ledger."""
    place = f"{product} tile {receipt.tile.id} at {receipt.entry}"
    if digest != receipt.digest:
        yield f"{place}: pixels hash to {digest:016x}, the ledger says {receipt.digest:016x}"
    coarse = receipt.tile.lattice.coarse
    if product != PRODUCT or not {f"{coarse}m/mask", f"{coarse}m/quality"} <= arrays.keys():
        return
    n_valid, n_masked = count_tile(arrays, receipt.tile)
    known_masked = n_masked if receipt.n_masked is None else receipt.n_masked
    if (n_valid, n_masked) != (receipt.n_valid, known_masked):
        yield (
            f"{place}: {n_valid} pixels are valid and {n_masked} of them masked, the ledger says "
            f"{receipt.n_valid} and {receipt.n_masked}; make the tile again in a new store"
        )


def _stored(
    reader: CubeReader, product: str, receipt: TileReceipt, index: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Arrays of a tile and date by path, and their fill values."""
    arrays: dict[str, np.ndarray] = {}
    fills: dict[str, float] = {}
    tile = receipt.tile
    for resolution_m in reader.resolutions(product, tile.zone):
        window: PixelWindow = tile.window(resolution_m)
        for name, array in reader.arrays(product, tile.zone, resolution_m):
            path = f"{resolution_m}m/{name}"
            has_time = array.metadata.dimension_names[0] == "time"
            values = reader.read(
                product,
                tile.zone,
                name,
                window=window,
                resolution_m=resolution_m,
                index=[index] if has_time else None,
            )
            arrays[path] = values[0] if has_time else values
            fills[path] = array.fill_value
    return arrays, fills


def _count(reader: CubeReader) -> tuple[int, int, int]:
    """(tiles, dates, failed reads) of the scene product."""
    tiles: set[Tile] = set()
    dates: set[str] = set()
    failed = 0
    for zone in reader.zones(PRODUCT):
        ledger: Ledger = reader.ledger(PRODUCT, zone)
        for entry in ledger.entries:
            failed += int(ledger.field("n_failed", entry).sum())
            found = np.argwhere(ledger.field("n_valid", entry) > 0)
            if len(found):
                dates.add(entry)
                tiles.update(Tile(zone, int(row), int(col)) for row, col in found)
    return len(tiles), len(dates), failed


def _count_pixels(reader: CubeReader) -> tuple[int, int | None]:
    """(valid, masked) pixels of the scene product."""
    valid = masked = 0
    counted = True
    for zone in reader.zones(PRODUCT):
        ledger = reader.ledger(PRODUCT, zone)
        counted &= "n_masked" in ledger.fields
        for entry in ledger.entries:
            valid += int(ledger.field("n_valid", entry).sum(dtype=np.int64))
            if counted:
                masked += int(ledger.field("n_masked", entry).sum(dtype=np.int64))
    return valid, masked if counted else None
