"""Arrays that xarray reads when they are used: bands of any native pixel, and single layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from eoray.cube import resample
from eoray.cube.nbar import Views, to_nadir
from eoray.grid import PixelWindow, Zone, lattice_of


class WindowReader(Protocol):
    """Gives windows of a product: from a store, or from its scenes."""

    @property
    def token(self) -> tuple[str, ...]:
        """What is read, in a few words."""

    def read(
        self,
        product: str,
        zone: Zone,
        array: str = "reflectance",
        *,
        window: PixelWindow,
        resolution_m: int,
        index: Sequence[int] | np.ndarray | None = None,
    ) -> np.ndarray:
        """One array, dims (time, ..., y, x)."""

    def read_bands(
        self,
        product: str,
        zone: Zone,
        *,
        bands: Sequence[str],
        window: PixelWindow,
        resolution_m: int,
        index: Sequence[int] | np.ndarray,
    ) -> np.ndarray:
        """Reflectance on one lattice, dims (time, band, y, x)."""


@dataclass(frozen=True, slots=True)
class BandsView:
    """What an array shows of a product."""

    reader: WindowReader
    product: str
    zone: Zone
    bands: tuple[str, ...]
    resolution_m: int
    positions: tuple[int, ...]
    """On the stored time axis, in the order of the array's."""
    window: PixelWindow
    views: Views | None = None
    """One per position, where reflectance is taken to the nadir view."""


class _LazyArray(BackendArray, ABC):
    """Pixels of a view, read when they are used."""

    def __init__(self, view: BandsView, lead: tuple[int, ...], dtype: str) -> None:
        """Show a window; nothing is read."""
        self.view = view
        self.dtype = np.dtype(dtype)
        self.shape = (len(view.positions), *lead, view.window.height, view.window.width)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Read what a key names; xarray turns other keys than slices into several steps."""
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """Name the array by what it shows; pickling a reader for it would take long."""
        v = self.view
        named = v.product, lattice_of(v.zone).name, v.bands, v.resolution_m, v.positions, v.window
        return (type(self).__name__, *v.reader.token, *named, v.views is not None)

    def _read(self, key: tuple[int | slice, ...]) -> np.ndarray:
        wanted = [
            range(n)[k] if isinstance(k, slice) else range(k, k + 1)
            for k, n in zip(key, self.shape, strict=True)
        ]
        values = np.empty([len(part) for part in wanted], self.dtype)
        if values.size:
            *lead, rows, cols = wanted
            window = _enclosing(rows, cols, self.view.window)
            values = self._window(lead, window)[..., _within(rows), :][..., _within(cols)]
        single = tuple(0 if isinstance(k, int) else slice(None) for k in key)
        return values[single]

    @abstractmethod
    def _window(self, lead: Sequence[range], window: PixelWindow) -> np.ndarray:
        """Read a window at some places of the leading dims."""


class LazyBands(_LazyArray):
    """Reflectance of any bands, dims (time, band, y, x), int16 as stored."""

    def __init__(self, view: BandsView) -> None:
        """Show a window; nothing is read."""
        super().__init__(view, (len(view.bands),), "int16")

    def _window(self, lead: Sequence[range], window: PixelWindow) -> np.ndarray:
        view, (times, bands) = self.view, lead
        where: dict[str, Any] = {
            "bands": [view.bands[i] for i in bands],
            "window": window,
            "resolution_m": view.resolution_m,
        }
        index = [view.positions[i] for i in times]
        values = view.reader.read_bands(view.product, view.zone, index=index, **where)
        if view.views is not None:
            to_nadir(values, view.views.only(times), zone=view.zone, **where)
        return values


class LazyLayer(_LazyArray):
    """One layer of a product, dims (time, y, x), uint8; pixels of a coarser level are repeated."""

    def __init__(self, view: BandsView, name: str, level: int) -> None:
        """Show a window of an array that is stored at ``level``; nothing is read."""
        super().__init__(view, (), "uint8")
        self.name, self.level = name, level

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """Name the array by what it shows."""
        return (*super().__dask_tokenize__(), self.name)

    def _window(self, lead: Sequence[range], window: PixelWindow) -> np.ndarray:
        view, (times,) = self.view, lead
        source = window
        if self.level != view.resolution_m:
            source = resample.source_window(window, view.resolution_m, self.level)
        values = view.reader.read(
            view.product,
            view.zone,
            self.name,
            window=source,
            resolution_m=self.level,
            index=[view.positions[i] for i in times],
        )
        if source == window:
            return values
        return resample.replicate(values, source, window, view.resolution_m)


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
