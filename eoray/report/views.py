"""Read the pictures' arrays from a store, thinned to screen size, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.errors import StoreError
from eoray.grid import Tile, Zone, owner_mask
from eoray.publish.groups import TileGroup, group_tiles
from eoray.publish.maps import finished_tiles, last_break
from eoray.report.data import ReportView
from eoray.sentinel2 import FILL

if TYPE_CHECKING:
    from eoray.cube.read import CubeReader

MAX_PX = 1100
"""Longest edge of a view's arrays."""

DATES_AT_ONCE = 16
"""Dates of masks held in memory together."""

MARGIN_PX = 4
"""Left around the data when a view is cropped to it."""


@dataclass(frozen=True, slots=True)
class ViewRequest:
    """Products to show; leave out what the run did not make."""

    composite: str | None = None
    """Product with the bands B04, B03 and B02."""
    composite_entry: str | None = None
    """Key of its time entry; the last one when left out."""
    land_cover: str | None = None
    """Map product; its last entry is shown."""
    change: str | None = None
    scenes: str | None = None
    """Product whose clear observations are counted, such as ``s2``."""


@dataclass(frozen=True, slots=True)
class Views:
    """Views of the area, and what was counted on the way."""

    views: tuple[ReportView, ...]
    clear_by_year: Mapping[int, tuple[float, float, float]]
    """Year -> (10 %, median, 90 %) of clear observations of owned pixels that were ever clear."""


def read_views(reader: CubeReader, request: ViewRequest) -> Views:
    """Read one view per group of touching tiles, cropped to where there is data.

    Classes and reflectance are thinned by nearest pixel. A thinned change pixel shows the latest
    break inside it, so that small patches stay visible; areas are never taken from a view.

    Raises:
        StoreError: A named product is not in the store.
    """
    named = (request.scenes, request.composite, request.land_cover, request.change)
    product = next((one for one in named if one), None)
    if product is None:
        return Views((), {})
    years = _YearCounts({})
    views = [
        _view(reader, request, group, years)
        for group in group_tiles(finished_tiles(reader, product))
    ]
    return Views(tuple(view for view in views if view is not None), years.percentiles())


@dataclass(frozen=True, slots=True)
class _YearCounts:
    """Histogram of clear observations per pixel, for each year."""

    histogram: dict[int, np.ndarray]

    def add(self, year: int, counts: np.ndarray) -> None:
        more = np.bincount(counts, minlength=400)
        before = self.histogram.get(year, np.zeros(1, "i8"))
        size = max(len(more), len(before))
        self.histogram[year] = np.pad(before, (0, size - len(before))) + np.pad(
            more, (0, size - len(more))
        )

    def percentiles(self) -> dict[int, tuple[float, float, float]]:
        found = {}
        for year, histogram in sorted(self.histogram.items()):
            cumulative = np.cumsum(histogram)
            if cumulative[-1]:
                low, middle, high = np.searchsorted(cumulative, cumulative[-1] * _LEVELS)
                found[year] = (float(low), float(middle), float(high))
        return found


_LEVELS = np.array([0.1, 0.5, 0.9])


def _view(
    reader: CubeReader, request: ViewRequest, group: TileGroup, years: _YearCounts
) -> ReportView | None:
    pixel_m = _pixel_of(group)
    layers: dict[str, np.ndarray] = {}
    label = ""
    for tile in group.tiles:
        place = _place(group, tile, pixel_m)
        if request.composite:
            values, label = _composite(reader, request, tile, pixel_m)
            _paste(layers, "true_color", group, pixel_m, place, values, FILL)
        if request.land_cover:
            index = _last(reader, request.land_cover, tile.zone)
            for name, fill in (("class", 0), ("probability", 255)):
                values = _stored(reader, request.land_cover, tile, name, 10, [index])[0]
                _paste(layers, name, group, pixel_m, place, _thin(values, 10, pixel_m), fill)
        if request.change:
            date, monitored = _change(reader, request.change, tile, pixel_m)
            _paste(layers, "change_date", group, pixel_m, place, date, -1)
            _paste(layers, "monitored", group, pixel_m, place, monitored, fill=False)
        if request.scenes:
            clear = _count_clear(reader, request.scenes, tile, years)
            thin = _thin(clear, tile.lattice.coarse, pixel_m)
            _paste(layers, "clear", group, pixel_m, place, thin, np.nan)
    cropped = _crop(layers)
    return None if cropped is None else _assemble(cropped, group, pixel_m, label)


def _assemble(
    layers: Mapping[str, np.ndarray], group: TileGroup, pixel_m: int, label: str
) -> ReportView:
    probability = None
    if "probability" in layers:
        stored = layers["probability"]
        probability = np.where(stored == 255, np.nan, stored * np.float32(0.005)).astype("f4")
    return ReportView(
        title=f"{_name_of(group)}, from tile {group.id}",
        pixel_m=float(pixel_m),
        true_color=layers.get("true_color"),
        true_color_label=label,
        classes=layers.get("class"),
        probability=probability,
        change_date=layers.get("change_date"),
        monitored=layers.get("monitored"),
        clear_per_year=layers.get("clear"),
    )


def _name_of(group: TileGroup) -> str:
    tile = group.tiles[0]
    if not tile.lattice.overlaps:
        return tile.lattice.label
    return f"UTM zone {group.zone} {'south' if tile.is_south else 'north'}"


def _pixel_of(group: TileGroup) -> int:
    window = group.window(group.pixel_m)
    pixel_m = group.pixel_m
    while max(window.height, window.width) * group.pixel_m / pixel_m > MAX_PX:
        pixel_m *= 2
    return pixel_m


def _place(group: TileGroup, tile: Tile, pixel_m: int) -> tuple[slice, slice]:
    fine, px = group.pixel_m, tile.lattice.edge_m // pixel_m
    window, whole = group.window(fine), tile.window(fine)
    row = (whole.row_off - window.row_off) * fine // pixel_m
    col = (whole.col_off - window.col_off) * fine // pixel_m
    return slice(row, row + px), slice(col, col + px)


def _paste(
    layers: dict[str, np.ndarray],
    name: str,
    group: TileGroup,
    pixel_m: int,
    place: tuple[slice, slice],
    values: np.ndarray,
    fill: float,
) -> None:
    if name not in layers:
        window, fine = group.window(group.pixel_m), group.pixel_m
        shape = (window.height * fine // pixel_m, window.width * fine // pixel_m)
        layers[name] = np.full((*values.shape[:-2], *shape), fill, values.dtype)
    layers[name][(..., *place)] = values


def _thin(values: np.ndarray, stored_m: int, pixel_m: int) -> np.ndarray:
    """Bring (…, y, x) from its stored pixel to the view's, by repeating or by nearest."""
    if pixel_m < stored_m:
        repeat = stored_m // pixel_m
        return values.repeat(repeat, axis=-2).repeat(repeat, axis=-1)
    step = pixel_m // stored_m
    return values[..., step // 2 :: step, step // 2 :: step]


def _stored(
    reader: CubeReader,
    product: str,
    tile: Tile,
    array: str,
    resolution_m: int,
    index: Sequence[int] | None,
) -> np.ndarray:
    return reader.read(
        product,
        tile.zone,
        array,
        window=tile.window(resolution_m),
        resolution_m=resolution_m,
        index=index,
    )


def _last(reader: CubeReader, product: str, zone: Zone) -> int:
    return int(reader.entries(product, zone).index[-1])


def _composite(
    reader: CubeReader, request: ViewRequest, tile: Tile, pixel_m: int
) -> tuple[np.ndarray, str]:
    product = str(request.composite)
    table = reader.entries(product, tile.zone)
    keys = [str(key) for key in table.key]
    key = request.composite_entry or keys[-1]
    if key not in keys:
        raise StoreError(
            f"{product!r} in zone {tile.zone} has no entry {key!r}; it holds {', '.join(keys)}"
        )
    values = reader.read_bands(
        product,
        tile.zone,
        bands=("B04", "B03", "B02"),
        window=tile.window(tile.lattice.levels[0]),
        resolution_m=tile.lattice.levels[0],
        index=[int(table.index[keys.index(key)])],
    )[0]
    return _thin(values, tile.lattice.levels[0], pixel_m), f"{product}, {key}"


def _change(
    reader: CubeReader, product: str, tile: Tile, pixel_m: int
) -> tuple[np.ndarray, np.ndarray]:
    stored_m = reader.resolutions(product, tile.zone)[0]
    names = ("n_breaks", "date_est", "date_lo", "date_hi", "qa_flags", "n_obs")
    arrays: dict[str, Any] = {
        name: _stored(reader, product, tile, name, stored_m, None)
        for name in (*names, "monitored_from", "monitored_to")
    }
    date = last_break(arrays)[0]
    monitored = _thin(arrays["monitored_to"] > 0, stored_m, pixel_m)
    step = max(1, pixel_m // stored_m)
    if step > 1:
        px = date.shape[0] // step
        return date.reshape(px, step, px, step).max(axis=(1, 3)), monitored
    return _thin(date, stored_m, pixel_m), monitored


def _count_clear(reader: CubeReader, product: str, tile: Tile, years: _YearCounts) -> np.ndarray:
    """Mean clear observations a year, dims (y, x) of SCL, float32; NaN where never clear."""
    table = reader.entries(product, tile.zone)
    year_of = table.time.astype("datetime64[Y]").astype(int) + 1970
    level = tile.lattice.coarse
    window = tile.window(level)
    by_year = {}
    for year in np.unique(year_of):
        positions = table.index[year_of == year]
        counts = np.zeros((window.height, window.width), "u2")
        for start in range(0, len(positions), DATES_AT_ONCE):
            counts += reader.read_clear(
                tile.zone,
                window=window,
                resolution_m=level,
                index=positions[start : start + DATES_AT_ONCE],
                product=product,
            ).sum(axis=0, dtype="u2")
        by_year[int(year)] = counts
    total = np.sum(list(by_year.values()), axis=0, dtype="f4")
    seen = (total > 0) & owner_mask(tile, level)
    for year, counts in by_year.items():
        years.add(year, counts[seen])
    return np.where(total > 0, total / max(len(by_year), 1), np.nan).astype("f4")


_HAS_DATA: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "true_color": lambda values: (values != FILL).any(axis=0),
    "class": lambda values: values > 0,
    "monitored": lambda values: values,
    "clear": np.isfinite,
}


def _crop(layers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """Cut all layers to the box that holds data in any of them; None where there is none."""
    found = [has(layers[name]) for name, has in _HAS_DATA.items() if name in layers]
    used = np.logical_or.reduce(found)
    rows, cols = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    if not rows.size:
        return None
    y, x = (
        slice(max(0, int(at[0]) - MARGIN_PX), int(at[-1]) + 1 + MARGIN_PX) for at in (rows, cols)
    )
    return {name: values[..., y, x] for name, values in layers.items()}
