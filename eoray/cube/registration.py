"""The ``registration`` product: how far each date of a tile lies from the tile's reference.

Nothing is corrected: dates that lie too far off are left out where that matters (change), and
listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from eoray.cube.composite import reduce_scenes
from eoray.cube.layout import DONE, NO_SCENE, ArraySpec, GroupSpec, ProductSpec, TileResult, tile_px
from eoray.cube.read import CubeReader, CubeSource, PixelWindow, open_reader
from eoray.cube.scenes import PRODUCT
from eoray.cube.shifts import measure_shift
from eoray.errors import ConfigError
from eoray.grid import Tile, Zone, lattice_of
from eoray.sentinel2 import FILL

if TYPE_CHECKING:
    from eoray.cube.spans import SpanRow

NAME = "registration"

METHOD = "orientation-correlation/1"
"""Part of the product's parameters; raised when measured values change."""

N_REFERENCE = 36
"""Dates of the reference: a third of them clear is a dozen observations a pixel."""

MIN_REFERENCE = 3
"""Pixels with fewer clear observations have no reference."""

NEED_PX = 128 * 128
"""Fewer clear pixels hold no square to match; dates below are not read."""

_STRIP_PX = 128


def registration_band(bands: Sequence[str]) -> str:
    """The band whose edges are compared: near infrared, else the longest that is there.

    Raises:
        ConfigError: There is none.
    """
    for band in ("B08", "B8A", "B04", "B03", "B02", "B11", "B12"):
        if band in bands:
            return band
    raise ConfigError("registration is measured on edges of a band, and the cube has none; add nir")


def registration_product(reader: CubeReader, zones: Sequence[Zone]) -> ProductSpec:
    """Layout: one pixel a tile, (time, y, x); the group is named after the edge of a tile."""
    lattice = lattice_of(zones[0])
    arrays = (
        _float("shift_x", "how far east of the reference the picture lies"),
        _float("shift_y", "how far north of the reference the picture lies"),
        _float("shift_error", "standard error of either shift"),
        ArraySpec(
            "n_windows",
            "uint8",
            attrs={"long_name": "squares of 128 pixels that were matched", "units": "1"},
        ),
    )
    attrs = reader.attrs(PRODUCT)
    parameters = {
        "method": METHOD,
        "band": registration_band(reader.bands(PRODUCT, zones[0])),
        "n_reference": N_REFERENCE,
        "of": attrs,
    }
    title = "Registration of each date against the tile's own reference"
    return ProductSpec(NAME, (GroupSpec(lattice.edge_m, arrays),), parameters, title=title)


def _float(name: str, long_name: str) -> ArraySpec:
    attrs = {"long_name": long_name, "units": "m"}
    return ArraySpec(name, "float32", fill=float("nan"), attrs=attrs)


@dataclass(frozen=True, slots=True)
class RegistrationWorker:
    """Measures the dates of a row, one after the other."""

    source: CubeSource

    def __call__(self, row: SpanRow) -> Iterator[TileResult]:
        """Measure; ``n_valid`` is 1 where a date could be measured."""
        (tile,) = row.tiles
        reader = open_reader(self.source)
        view = _View.of(reader, tile)
        reference, known = _reference(self.source, tile, row.reference)
        for place in range(row.first, row.stop):
            arrays = view.measure(row.positions[place], reference, known)
            n_valid = int(np.isfinite(arrays["shift_x"]).sum())
            yield TileResult(
                tile=tile,
                entry=row.keys[place],
                arrays={f"{tile.lattice.edge_m}m/{name}": v for name, v in arrays.items()},
                status=DONE if n_valid else NO_SCENE,
                n_valid=n_valid,
                n_failed=0,
                source=f"{PRODUCT} against {len(row.reference)} dates",
            )


@lru_cache(maxsize=2)
def _reference(
    source: CubeSource, tile: Tile, positions: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(median, where it is known); spans of a tile follow each other, so it is kept."""
    return _View.of(open_reader(source), tile).reference(positions)


@dataclass(frozen=True, slots=True)
class _View:
    """One band of one tile."""

    reader: CubeReader
    tile: Tile
    band: int
    """Place of the band in the stored array."""
    resolution_m: int

    @classmethod
    def of(cls, reader: CubeReader, tile: Tile) -> _View:
        for resolution_m in tile.lattice.levels:
            bands = reader.bands(PRODUCT, tile.zone, resolution_m)
            wanted = registration_band(reader.bands(PRODUCT, tile.zone))
            if wanted in bands:
                return cls(reader, tile, bands.index(wanted), resolution_m)
        raise ConfigError(f"tile {tile.id} has no band to register by; add nir to cube.bands")

    def _strips(self) -> Iterator[tuple[slice, PixelWindow]]:
        px = tile_px(self.resolution_m, self.tile.zone)
        whole = self.tile.window(self.resolution_m)
        for top in range(0, px, _STRIP_PX):
            yield (
                slice(top, top + _STRIP_PX),
                PixelWindow(whole.row_off + top, whole.col_off, _STRIP_PX, px),
            )

    def _read(self, window: PixelWindow, index: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Values and where they are clear, dims (time, y, x)."""
        zone, resolution_m = self.tile.zone, self.resolution_m
        clear = self.reader.read_clear(zone, window=window, resolution_m=resolution_m, index=index)
        if not clear.any():
            return np.full(clear.shape, FILL, np.int16), clear
        values = self.reader.read(
            PRODUCT, zone, window=window, resolution_m=resolution_m, index=index
        )[:, self.band]
        return values, clear & (values != FILL)

    def reference(self, positions: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Median of some dates, strip by strip; dims (y, x)."""
        px = tile_px(self.resolution_m, self.tile.zone)
        median, known = np.full((px, px), FILL, np.int16), np.zeros((px, px), bool)
        for rows, window in self._strips():
            values, clear = self._read(window, positions)
            known[rows] = clear.sum(axis=0) >= MIN_REFERENCE
            if known[rows].any():
                median[rows] = reduce_scenes(values[:, None], clear, "median")[0]
        return median, known

    def measure(
        self, position: int, reference: np.ndarray, known: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Arrays of one date, dims (1, 1), shifts in metres to the east and north."""
        whole = self.tile.window(self.resolution_m)
        values, clear = (part[0] for part in self._read(whole, [position]))
        usable = clear & known
        down = right = error = np.nan
        n_windows = 0
        if usable.sum() >= NEED_PX:
            # squares lie where the reference is, the same for all dates
            box = _extent(known.any(axis=1)), _extent(known.any(axis=0))
            shift = measure_shift(values[box], reference[box], usable[box])
            down, right, error = shift.down, shift.right, shift.error
            n_windows = shift.n_windows
        lattice = self.tile.lattice
        part = self.resolution_m / lattice.coarse
        y_m, x_m = (size * part for size in lattice.ground_m(self.tile.row, self.tile.col))
        found = {"shift_x": right * x_m, "shift_y": -down * y_m, "shift_error": error * x_m}
        arrays = {name: np.full((1, 1), value, np.float32) for name, value in found.items()}
        return {**arrays, "n_windows": np.full((1, 1), n_windows, np.uint8)}


def _extent(any_of: np.ndarray) -> slice:
    """From the first to the last True."""
    found = np.flatnonzero(any_of)
    return slice(int(found[0]), int(found[-1]) + 1)


@dataclass(frozen=True, slots=True)
class Registration:
    """What was measured of the dates of a tile."""

    shift_m: np.ndarray
    """Distance from the reference in metres, dims (time), NaN where not measured."""
    error_m: np.ndarray

    def beyond(self, limit_px: float) -> np.ndarray:
        """True for dates that lie further off than some pixels of 10 m, and surely so.

        A date counts by the lower end of its interval of two standard errors, so that a
        measurement that is worth little takes no date away.
        """
        with np.errstate(invalid="ignore"):
            return np.asarray(self.shift_m - 2 * self.error_m > limit_px * 10)


def read_registration(reader: CubeReader, tile: Tile, keys: Sequence[str]) -> Registration:
    """Read what was measured of a tile.

    Args:
        reader: The store.
        tile: Of the ``s2`` product.
        keys: Entries of the ``s2`` product.

    Returns:
        Dims (time) in the order of ``keys``; NaN for dates that were not measured.
    """
    shift = np.full((3, len(keys)), np.nan, np.float32)
    if tile.zone in reader.zones(NAME):
        at = {key: i for i, key in enumerate(reader.ledger(NAME, tile.zone).entries)}
        there = [i for i, key in enumerate(keys) if key in at]
        edge_m = tile.lattice.edge_m
        for row, name in enumerate(("shift_x", "shift_y", "shift_error")):
            found = reader.read(
                NAME,
                tile.zone,
                name,
                window=tile.window(edge_m),
                resolution_m=edge_m,
                index=[at[keys[i]] for i in there],
            )
            shift[row, there] = found[:, 0, 0]
    return Registration(np.hypot(shift[0], shift[1]), shift[2])
