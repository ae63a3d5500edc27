"""``ds.eoray`` on what ``open_cube`` and ``open_scenes`` give: bands by name, clear, indices."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.cube.indices import find_index
from eoray.errors import ConfigError
from eoray.sentinel2 import COMMON_NAMES, FILL, SCALE, UNUSABLE, resolve_bands

if TYPE_CHECKING:
    import xarray as xr

CHUNK_PX = 1024
"""Edge of the dask chunks that are made where an array has none."""


@cache
def register() -> None:
    """Make ``ds.eoray`` known to xarray; called by whatever opens a dataset."""
    import xarray as xr

    announce: Any = xr.register_dataset_accessor  # it has no types
    announce("eoray")(EorayAccessor)


class EorayAccessor:
    """Bands by name, reflectance, clear pixels and spectral indices of a cube.

    Works on scenes and on composites, decoded or as stored. Values that are not in memory stay
    lazy: they become dask arrays, read when they are used.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        """Look at a dataset."""
        self._dataset = dataset

    @property
    def bands(self) -> tuple[str, ...]:
        """Ids of the bands that the dataset holds, in its order."""
        self._check_reflectance()
        return tuple(str(band) for band in np.atleast_1d(self._dataset["band"].values))

    def __getitem__(self, band: str) -> xr.DataArray:
        """Reflectance of one band by id or common name, as :meth:`reflectance` gives it."""
        return self.reflectance([band]).isel(band=0)

    def __getattr__(self, name: str) -> xr.DataArray:
        """Reflectance of one band by common name or id, such as ``ds.eoray.red``."""
        if name not in COMMON_NAMES and name not in COMMON_NAMES.values():
            raise AttributeError(
                f"ds.eoray has no {name!r}; bands go by their ids and common names, indices by "
                "ds.eoray.index(name)"
            )
        try:
            return self[name]
        except ConfigError as error:  # what hasattr and completion expect
            raise AttributeError(str(error)) from error

    def __dir__(self) -> list[str]:
        """Methods, and the names of the bands that are there."""
        there = self.bands if "reflectance" in self._dataset else ()
        return [*super().__dir__(), *there, *(COMMON_NAMES[band] for band in there)]

    def reflectance(self, bands: list[str] | tuple[str, ...] | None = None) -> xr.DataArray:
        """Surface reflectance.

        Args:
            bands: Ids or common names, in the order wanted; None for all.

        Returns:
            Dims as stored (time, band, y, x), float32, NaN where there is none. Negative values
            are kept. Nothing is masked: see :meth:`clear`.

        Raises:
            ConfigError: The dataset has no reflectance, or lacks a band.
        """
        self._check_reflectance()
        values = self._dataset["reflectance"]
        if "band" not in values.dims:
            values = values.expand_dims("band")
        if bands is not None:
            values = values.sel(band=list(self._resolve(bands)))
        values = _lazy(values)
        if values.dtype.kind == "f":
            return values
        scale, fill = values.attrs.get("scale_factor", SCALE), values.attrs.get("_FillValue", FILL)
        attrs = {k: v for k, v in values.attrs.items() if k not in ("scale_factor", "_FillValue")}
        scaled = values.astype(np.float32) * np.float32(scale)
        decoded: xr.DataArray = scaled.where(values != fill).rename("reflectance")
        decoded.attrs = attrs
        return decoded

    def clear(self) -> xr.DataArray:
        """Tell where scenes are usable: not masked, nor without data, saturated or unread.

        Returns:
            Dims (time, y, x), bool.

        Raises:
            ConfigError: The dataset holds no scenes, or was decoded.
        """
        missing = [name for name in ("mask", "quality") if name not in self._dataset]
        if missing:
            raise ConfigError(
                f"the dataset has no {missing[0]!r}, which tells clear pixels; open product 's2' "
                "or scenes (in composites n_obs counts what was clear)"
            )
        mask, quality = (_lazy(self._dataset[name]) for name in ("mask", "quality"))
        if "f" in (mask.dtype.kind, quality.dtype.kind):
            raise ConfigError(
                "mask and quality were changed to numbers with NaN; keep them as bits"
            )
        usable: xr.DataArray = (quality & np.uint8(UNUSABLE)) == 0
        return (usable & (mask == 0)).rename("clear")

    def index(self, name: str) -> xr.DataArray:
        """Compute a spectral index.

        Args:
            name: Such as ``NDVI``; ``eoray.cube.indices`` has the table with all sources.

        Returns:
            Dims of a band (time, y, x), float32, NaN where a band is missing or the formula
            divides by zero. Nothing is masked or clipped.

        Raises:
            ConfigError: The index is unknown, or the dataset lacks a band that it needs.
        """
        import xarray as xr

        index = find_index(name)
        missing = [band for band in index.bands if band not in self.bands]
        if missing:
            raise ConfigError(
                f"index {index.name} needs {', '.join(index.bands)}; the dataset lacks "
                f"{', '.join(missing)}: open it with bands={list(index.bands)!r}"
            )
        reflectance = self.reflectance(index.bands)
        parts = [reflectance.isel(band=i, drop=True) for i in range(len(index.bands))]
        value: xr.DataArray = xr.apply_ufunc(
            _evaluate,
            *parts,
            kwargs={"name": index.name},
            dask="parallelized",
            output_dtypes=[np.float32],
        )
        value.attrs = {"long_name": index.long_name, "units": "1", "references": index.reference}
        return value.rename(index.name)

    def _check_reflectance(self) -> None:
        if "reflectance" not in self._dataset or "band" not in self._dataset.coords:
            raise ConfigError(
                "the dataset has no reflectance with bands; open product 's2', a composite or "
                f"scenes (it holds {', '.join(map(str, self._dataset.data_vars)) or 'nothing'})"
            )

    def _resolve(self, names: list[str] | tuple[str, ...]) -> tuple[str, ...]:
        wanted, there = resolve_bands(names), self.bands
        missing = [band for band in wanted if band not in there]
        if missing:
            raise ConfigError(
                f"the dataset has no band {missing[0]}; it has {', '.join(there)}: name it in "
                "bands= when opening"
            )
        return wanted


def _evaluate(*bands: np.ndarray, name: str) -> np.ndarray:
    """A formula over arrays; NaN where it divides by zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = find_index(name).formula(*bands)
    return np.where(np.isfinite(values), values, np.nan).astype(np.float32)


def _lazy(values: xr.DataArray) -> xr.DataArray:
    """Make a dask array of what is read when it is used: arithmetic would read it all at once."""
    if values.chunks is not None or values.variable._in_memory:  # noqa: SLF001 - no public word
        return values
    sizes = {
        dim: {"time": 1, "y": CHUNK_PX, "x": CHUNK_PX}.get(str(dim), -1) for dim in values.dims
    }
    return values.copy(data=values.variable.chunk(sizes).data)
