"""Composites: many scenes of a period, one picture. Never interpolated, counts beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from eoray.cube.layout import (
    DONE,
    NO_SCENE,
    ArraySpec,
    GroupSpec,
    ProductSpec,
    TileResult,
    TimeEntry,
    tile_px,
)
from eoray.cube.read import SCREEN, CubeReader, CubeSource, PixelWindow, TimeTable, open_reader
from eoray.cube.scenes import PRODUCT, reflectance_spec
from eoray.errors import ConfigError
from eoray.grid import Tile, Zone, lattice_of
from eoray.sentinel2 import FILL
from eoray.timeline import Calendar, DateRange, Period

if TYPE_CHECKING:
    from eoray.cube.ledger import Ledger

_STRIP_PX = 128
"""Rows read at once: one row of inner chunks, so memory grows with dates, not with tiles."""


@dataclass(frozen=True, slots=True)
class CompositeRecipe:
    """How a period becomes one picture."""

    method: str
    """``geomedian`` or ``median``."""
    period: str
    """ISO 8601 duration, see ``timeline.Calendar``."""
    min_obs: int
    """Pixels with fewer clear observations are flagged through ``n_obs``."""
    screen: bool = False
    """Whether the temporal screen joins the mask."""

    @property
    def product(self) -> str:
        """Name of the product, such as ``s2-P3M-geomedian``."""
        return f"{PRODUCT}-{self.period}-{self.method}"


@dataclass(frozen=True, slots=True)
class CompositeRow:
    """One tile of one period."""

    key: str
    entry: str
    tiles: tuple[Tile, ...]
    sources: tuple[str, ...]
    positions: tuple[int, ...]
    """Stored positions of the scenes, in order of time."""
    orbits: tuple[int, ...]

    def only(self, tiles: Sequence[Tile]) -> CompositeRow:
        """The row itself: it has one tile."""
        if tuple(tiles) != self.tiles:
            raise ConfigError(f"row {self.key} cannot be reduced to {tiles}")
        return self


def composite_product(
    recipe: CompositeRecipe, reader: CubeReader, zones: Sequence[Zone]
) -> ProductSpec:
    """Arrays of a composite of the ``s2`` product that a reader shows."""
    groups = []
    for resolution_m in lattice_of(zones[0]).levels:
        bands = tuple(reader.bands(PRODUCT, zones[0], resolution_m))
        if bands:
            arrays = (reflectance_spec(bands), _count_spec("n_obs"), _count_spec("n_orbit"))
            groups.append(GroupSpec(resolution_m, arrays, {"band": bands}))
    parameters = {
        "method": recipe.method,
        "period": recipe.period,
        "min_obs": recipe.min_obs,
        "of": reader.attrs(PRODUCT),
        # named only where it is used: products made without it go on
        **({"mask": "scl+screen", SCREEN: reader.attrs(SCREEN)} if recipe.screen else {}),
    }
    title = f"Sentinel-2 {recipe.method} of {recipe.period}"
    return ProductSpec(recipe.product, tuple(groups), parameters, title=title)


def _count_spec(name: str) -> ArraySpec:
    what = {"n_obs": "clear observations", "n_orbit": "relative orbits among them"}[name]
    return ArraySpec(name, "uint8", fill=0, attrs={"long_name": what, "units": "1"})


def plan_composites(
    recipe: CompositeRecipe, reader: CubeReader, tiles: Sequence[Tile], days: DateRange
) -> tuple[dict[Zone, list[TimeEntry]], list[CompositeRow]]:
    """Plan one row per (tile, period) that has a scene.

    Returns:
        Entries by zone (all periods since 2015-01, so that an index never moves), and rows.
    """
    calendar = Calendar.parse(recipe.period)
    periods = calendar.periods(days)
    entries: dict[Zone, list[TimeEntry]] = {}
    rows: list[CompositeRow] = []
    for zone in sorted({tile.zone for tile in tiles} & set(reader.zones(PRODUCT))):
        table, ledger = reader.entries(PRODUCT, zone), reader.ledger(PRODUCT, zone)
        screen = reader.ledger(SCREEN, zone) if recipe.screen else None
        axis = [calendar.period(i) for i in range(periods[-1].index + 1)]
        entries[zone] = [_entry(period) for period in axis]
        for period in periods:
            part = table.between(period.start, period.end)
            for tile in (t for t in tiles if t.zone == zone):
                row = _plan_row((ledger, screen), part, tile, period)
                if row is not None:
                    rows.append(row)
    return entries, rows


def _entry(period: Period) -> TimeEntry:
    columns = {"period_end": period.end.isoformat()}
    return TimeEntry(period.key, f"{period.start.isoformat()}T00:00:00.000Z", columns)


def _plan_row(
    ledgers: tuple[Ledger, Ledger | None], scenes: TimeTable, tile: Tile, period: Period
) -> CompositeRow | None:
    ledger, screen = ledgers
    used, digests = [], []
    for i, key in enumerate(scenes.key):
        receipt = ledger.get(tile, str(key))
        if receipt is not None and receipt.n_valid > 0:
            used.append(i)
            digests.append(f"{key} {receipt.digest:016x}{_judged(screen, tile, str(key))}")
    if not used:
        return None
    name = hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]
    return CompositeRow(
        key=f"{period.key}/{tile.id}",
        entry=period.key,
        tiles=(tile,),
        sources=(f"{len(used)} scenes {name}",),
        positions=tuple(int(scenes.index[i]) for i in used),
        orbits=tuple(int(scenes.columns["relative_orbit"][i]) for i in used),
    )


def _judged(screen: Ledger | None, tile: Tile, key: str) -> str:
    receipt = None if screen is None else screen.get(tile, key)
    return "" if receipt is None else f" {receipt.digest:016x}"


@dataclass(frozen=True, slots=True)
class CompositeWorker:
    """Reduces the clear scenes of a row, strip by strip."""

    source: CubeSource
    recipe: CompositeRecipe

    def __call__(self, row: CompositeRow) -> Iterator[TileResult]:
        """Make the composite of one tile and period."""
        reader = open_reader(self.source)
        (tile,) = row.tiles
        arrays: dict[str, np.ndarray] = {}
        n_valid = 0
        for resolution_m in reversed(tile.lattice.levels):
            if not reader.bands(PRODUCT, tile.zone, resolution_m):
                continue
            part = self._tile(reader, row, resolution_m)
            arrays.update({f"{resolution_m}m/{name}": v for name, v in part.items()})
            n_valid = int((part["n_obs"] > 0).sum())
        yield TileResult(
            tile, row.entry, arrays, DONE if n_valid else NO_SCENE, n_valid, 0, row.sources[0]
        )

    def _tile(
        self, reader: CubeReader, row: CompositeRow, resolution_m: int
    ) -> Mapping[str, np.ndarray]:
        (tile,) = row.tiles
        px = tile_px(resolution_m, tile.zone)
        bands = reader.bands(PRODUCT, tile.zone, resolution_m)
        out: dict[str, np.ndarray] = {
            "reflectance": np.full((len(bands), px, px), FILL, np.int16),
            "n_obs": np.zeros((px, px), np.uint8),
            "n_orbit": np.zeros((px, px), np.uint8),
        }
        whole = tile.window(resolution_m)
        for top in range(0, px, _STRIP_PX):
            window = PixelWindow(whole.row_off + top, whole.col_off, _STRIP_PX, px)
            strip = self._strip(reader, row, window, resolution_m)
            for name, values in strip.items():
                out[name][..., top : top + _STRIP_PX, :] = values
        return out

    def _strip(
        self, reader: CubeReader, row: CompositeRow, window: PixelWindow, resolution_m: int
    ) -> Mapping[str, np.ndarray]:
        zone = row.tiles[0].zone
        positions = np.array(row.positions)
        values = reader.read(
            PRODUCT, zone, window=window, resolution_m=resolution_m, index=positions
        )
        clear = reader.read_clear(
            zone,
            window=window,
            resolution_m=resolution_m,
            index=positions,
            screen=self.recipe.screen,
        )
        clear &= (values != FILL).all(axis=1)
        return {
            "reflectance": reduce_scenes(values, clear, self.recipe.method),
            "n_obs": np.minimum(clear.sum(axis=0), 255).astype(np.uint8),
            "n_orbit": _count_orbits(clear, np.array(row.orbits)),
        }


def _count_orbits(clear: np.ndarray, orbits: np.ndarray) -> np.ndarray:
    seen = [clear[orbits == orbit].any(axis=0) for orbit in np.unique(orbits)]
    return np.asarray(np.sum(seen, axis=0), dtype=np.uint8)


def reduce_scenes(values: np.ndarray, clear: np.ndarray, method: str) -> np.ndarray:
    """Reduce clear observations along time.

    Args:
        values: Dims (time, band, y, x), int16, fill -32768.
        clear: Dims (time, y, x), bool; True where all bands may be used.
        method: ``geomedian`` (one spectrum that minimises the sum of Euclidean distances to
            all others) or ``median`` (band by band).

    Returns:
        Dims (band, y, x), int16, fill where nothing is clear.

    Source:
        Roberts, Mueller, McIntyre 2017, IEEE TGRS 55(11), for the geomedian.
    """
    if method == "geomedian":
        from eoray.cube.geomedian import reduce_geomedian

        # numba compiles once per layout: always hand it C arrays
        values, clear = np.ascontiguousarray(values), np.ascontiguousarray(clear)
        return np.asarray(reduce_geomedian(values, clear, FILL))
    if method == "median":
        return _median(values, clear)
    raise ConfigError(f"composite method {method!r} is unknown; use 'geomedian' or 'median'")


def warm_up() -> None:
    """Compile the geomedian, or load it from numba's cache on disk."""
    reduce_scenes(np.zeros((2, 1, 1, 1), np.int16), np.ones((2, 1, 1), bool), "geomedian")


def _median(values: np.ndarray, clear: np.ndarray) -> np.ndarray:
    anywhere = clear.any(axis=0)
    out = np.full(values.shape[1:], FILL, np.int16)
    if not anywhere.any():
        return out
    rows, cols = np.flatnonzero(anywhere.any(axis=1)), np.flatnonzero(anywhere.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    reduced = _nanmedian(np.where(clear[:, None], values, np.nan).astype(np.float32)[(..., *box)])
    known = anywhere[box]
    out[(slice(None), *box)] = np.where(known, np.rint(np.where(known, reduced, 0)), FILL)
    return out


def _nanmedian(part: np.ndarray) -> np.ndarray:
    """Median along axis 0 by one sort; NaN sorts last, so counts find the middle."""
    ordered = np.sort(part, axis=0)
    count = (~np.isnan(part)).sum(axis=0)
    low, high = np.maximum(count - 1, 0) // 2, np.maximum(count, 1) // 2
    pick = [np.take_along_axis(ordered, at[None], axis=0)[0] for at in (low, high)]
    return np.asarray((pick[0] + pick[1]) / 2)


def days_of(period: Period) -> DateRange:
    """The days of a period, both ends included."""
    return DateRange(period.start, period.end - timedelta(days=1))
