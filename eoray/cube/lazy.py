"""Bands of both native pixels on one lattice, as an array that xarray reads when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from eoray.cube.nbar import Views, to_nadir
from eoray.cube.read import CubeReader
from eoray.grid import PixelWindow, Zone


@dataclass(frozen=True, slots=True)
class BandsView:
    """What an array shows of a product."""

    reader: CubeReader
    product: str
    zone: Zone
    bands: tuple[str, ...]
    resolution_m: int
    positions: tuple[int, ...]
    """On the stored time axis, in the order of the array's."""
    window: PixelWindow
    views: Views | None = None
    """One per position, where reflectance is taken to the nadir view."""


class LazyBands(BackendArray):
    """Reflectance of any bands, dims (time, band, y, x), int16 as stored."""

    def __init__(self, view: BandsView) -> None:
        """Show a window; nothing is read."""
        self.view = view
        self.dtype = np.dtype(np.int16)
        window = view.window
        self.shape = (len(view.positions), len(view.bands), window.height, window.width)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Read what a key names; xarray turns other keys than slices into several steps."""
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[int | slice, ...]) -> np.ndarray:
        view = self.view
        times, bands, rows, cols = (
            range(n)[k] if isinstance(k, slice) else range(k, k + 1)
            for k, n in zip(key, self.shape, strict=True)
        )
        shape = tuple(len(part) for part in (times, bands, rows, cols))
        values = np.empty(shape, np.int16)
        if values.size:
            where: dict[str, Any] = {
                "bands": [view.bands[i] for i in bands],
                "window": _enclosing(rows, cols, view.window),
                "resolution_m": view.resolution_m,
            }
            index = [view.positions[i] for i in times]
            read = view.reader.read_bands(view.product, view.zone, index=index, **where)
            if view.views is not None:
                to_nadir(read, view.views.only(times), zone=view.zone, **where)
            values = read[..., _within(rows), :][..., _within(cols)]
        single = tuple(0 if isinstance(k, int) else slice(None) for k in key)
        return values[single]


def _enclosing(rows: Sequence[int], cols: Sequence[int], window: PixelWindow) -> PixelWindow:
    top, left = min(rows), min(cols)
    return PixelWindow(
        window.row_off + top,
        window.col_off + left,
        max(rows) - top + 1,
        max(cols) - left + 1,
    )


def _within(part: Sequence[int]) -> np.ndarray:
    """Positions of a range, which may have steps or run backwards, from its lowest."""
    return np.asarray(part) - min(part)
