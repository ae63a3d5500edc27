"""A cube in memory that answers like CubeReader, and a landscape to put into it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eoray.cube.ledger import TileReceipt
from eoray.cube.read import TimeTable
from eoray.errors import ConfigError
from eoray.grid import PixelWindow, Tile
from eoray.sentinel2 import FILL

PRODUCT = "s2-P3M-geomedian"
BANDS = ("B02", "B03", "B04", "B08", "B11")
PARAMETERS = {"method": "geomedian", "period": "P3M", "min_obs": 3}


@dataclass
class FakeReader:
    """One composite product; pixels outside ``planes`` are fill."""

    planes: Mapping[int, tuple[int, int, np.ndarray]]
    """By zone: (row_off, col_off, values (time, band, y, x)) at 10 m."""
    periods: tuple[str, ...]
    names: tuple[str, ...] = BANDS
    parameters: Mapping[str, Any] = field(default_factory=lambda: dict(PARAMETERS))
    product: str = PRODUCT
    reads: list[PixelWindow] = field(default_factory=list)

    def products(self) -> list[str]:
        return [self.product]

    def zones(self, product: str) -> list[int]:
        return sorted(self.planes)

    def attrs(self, product: str) -> dict[str, Any]:
        return dict(self.parameters)

    def bands(self, product: str, zone: int) -> list[str]:
        return list(self.names)

    def tiles(self, product: str) -> list[Tile]:
        found: set[Tile] = set()
        for zone, (row, col, values) in self.planes.items():
            height, width = values.shape[-2:]
            for r in range(row // 1024, (row + height - 1) // 1024 + 1):
                found.update(
                    Tile(zone, r, c) for c in range(col // 1024, (col + width - 1) // 1024 + 1)
                )
        return sorted(found)

    def ledger(self, product: str, zone: int) -> FakeLedger:
        return FakeLedger(self, zone)

    def entries(self, product: str, zone: int) -> TimeTable:
        starts = np.array([p.split("/")[0] for p in self.periods], "datetime64[ms]")
        return TimeTable(starts, np.array(self.periods), np.arange(len(self.periods)))

    def read_bands(
        self,
        product: str,
        zone: int,
        *,
        bands: Sequence[str],
        window: PixelWindow,
        resolution_m: int,
        index: Sequence[int],
    ) -> np.ndarray:
        if missing := [band for band in bands if band not in self.names]:
            raise ConfigError(f"no band {missing[0]}")
        self.reads.append(window)
        row, col, values = self.planes[zone]
        out = np.full((len(index), len(bands), window.height, window.width), FILL, np.int16)
        r0, c0 = max(row, window.row_off), max(col, window.col_off)
        r1 = min(row + values.shape[-2], window.row_off + window.height)
        c1 = min(col + values.shape[-1], window.col_off + window.width)
        if r1 > r0 and c1 > c0:
            part = values[list(index)][:, [self.names.index(b) for b in bands]]
            out[
                ...,
                r0 - window.row_off : r1 - window.row_off,
                c0 - window.col_off : c1 - window.col_off,
            ] = part[..., r0 - row : r1 - row, c0 - col : c1 - col]
        return out


@dataclass(frozen=True)
class FakeLedger:
    reader: FakeReader
    zone: int

    def receipts(self, entry: str) -> list[TileReceipt]:
        if entry not in self.reader.periods:
            return []
        values = self.reader.planes[self.zone][2][self.reader.periods.index(entry)]
        digest = int.from_bytes(hashlib.blake2b(values.tobytes(), digest_size=8).digest())
        n_valid = int((values != FILL).all(axis=0).sum())
        return [
            TileReceipt(
                tile=tile,
                entry=entry,
                status=1,
                n_valid=n_valid,
                n_failed=0,
                digest=digest,
                source="fake",
            )
            for tile in self.reader.tiles(PRODUCT)
            if tile.zone == self.zone
        ]


QUARTERS = ("2021-01-01/2021-04-01", "2021-04-01/2021-07-01", "2021-07-01/2021-10-01")
YEAR = (*QUARTERS, "2021-10-01/2022-01-01")


def quarters(*years: int) -> tuple[str, ...]:
    """Keys of the quarters of some years."""
    marks = ("01-01", "04-01", "07-01", "10-01")
    starts = [f"{year}-{mark}" for year in years for mark in marks]
    return tuple(
        f"{a}/{b}" for a, b in zip(starts, [*starts[1:], f"{years[-1] + 1}-01-01"], strict=True)
    )
