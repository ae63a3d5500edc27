"""Composites: many scenes of a period, one picture. Never interpolated, counts beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.cube.best import (
    RULE,
    UNJUDGED,
    Circumstances,
    choose_best,
    cost_of_observations,
    measure_near_cloud,
)
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
from eoray.cube.nbar import METHOD as NBAR_METHOD
from eoray.cube.nbar import check_views, read_views, to_nadir
from eoray.cube.read import SCREEN, CubeReader, CubeSource, PixelWindow, TimeTable, open_reader
from eoray.cube.scenes import PRODUCT, reflectance_spec
from eoray.errors import ConfigError
from eoray.grid import Tile, Zone, lattice_of
from eoray.sentinel2 import FILL, SCALE
from eoray.timeline import NEW_YEAR, Calendar, DateRange, Period

if TYPE_CHECKING:
    from eoray.cube.ledger import Ledger

_STRIP_PX = 128
"""Rows read at once: one row of inner chunks, so memory grows with dates, not with tiles."""


SPECTRAL = ("geomedian", "geomad", "median", "best-pixel")
"""Methods that store one spectrum per pixel as ``reflectance``: models and pictures read these."""

METHODS = (*SPECTRAL, "percentiles", "count")

_FIRST_METHODS = frozenset({"geomedian", "median"})
"""Their products stand in stores already, without ``doy_spread``; an array more would undo them."""


@dataclass(frozen=True, slots=True)
class CompositeRecipe:
    """How a period becomes one picture."""

    method: str
    """One of ``METHODS``."""
    period: str
    """ISO 8601 duration or ``dekad``, see ``timeline.Calendar``."""
    min_obs: int
    """Pixels with fewer clear observations are flagged through ``n_obs``."""
    season_start: tuple[int, int] = NEW_YEAR
    """(month, day) on which the first period of a year begins."""
    by_solar_day: bool = False
    """All datatakes of one solar day are one observation, and lie in the period of that day."""
    percentiles: tuple[int, ...] = (10, 25, 50, 75, 90)
    """Of the method ``percentiles``."""
    nbar: bool = False
    """Take observations to the nadir view before they are reduced."""
    screen: bool = False
    """Whether the temporal screen joins the mask."""

    @property
    def product(self) -> str:
        """Name of the product, such as ``s2-P3M-geomedian`` or ``s2-P3M_12-01-geomad``."""
        month, day = self.season_start
        season = "" if self.season_start == NEW_YEAR else f"_{month:02d}-{day:02d}"
        grouped = "-solar-day" if self.by_solar_day else ""
        view = "-nbar" if self.nbar else ""
        return f"{PRODUCT}-{self.period}{season}-{self.method}{grouped}{view}"

    @property
    def calendar(self) -> Calendar:
        """The periods."""
        return Calendar.parse(self.period, self.season_start)

    @property
    def is_spectral(self) -> bool:
        """True where the product holds ``reflectance``."""
        return self.method in SPECTRAL

    def parameters(self) -> dict[str, Any]:
        """What can't differ within a product; what is as ever is left out, as ever."""
        own: dict[str, Any] = {
            "method": self.method,
            "period": self.period,
            "min_obs": self.min_obs,
        }
        if self.season_start != NEW_YEAR:
            own["season_start"] = list(self.season_start)
        if self.by_solar_day:
            own["group"] = "solar-day"
        if self.method == "percentiles":
            own["percentiles"] = list(self.percentiles)
        if self.method == "best-pixel":
            own["rule"] = RULE
        if self.nbar:
            own["nbar"] = NBAR_METHOD
        return own


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
    days: tuple[int, ...]
    """Days since 1970-01-01: of the sensing time, or solar days where these are grouped."""
    circumstances: Circumstances | None = None
    """What the best pixel is chosen by; other methods have none."""

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
            coords = {} if recipe.method == "count" else {"band": bands}
            groups.append(GroupSpec(resolution_m, composite_arrays(recipe, bands), coords))
    parameters = {
        **recipe.parameters(),
        "of": reader.attrs(PRODUCT),
        # named only where it is used: products made without it go on
        **({"mask": "scl+screen", SCREEN: reader.attrs(SCREEN)} if recipe.screen else {}),
    }
    title = f"Sentinel-2 {recipe.method} of {recipe.period}"
    return ProductSpec(recipe.product, tuple(groups), parameters, title=title)


def composite_arrays(recipe: CompositeRecipe, bands: Sequence[str]) -> tuple[ArraySpec, ...]:
    """Arrays of a composite over the bands of one resolution."""
    arrays = [reflectance_spec(bands)] if recipe.is_spectral else []
    if recipe.method == "geomad":
        arrays += [_mad_spec(name, what) for name, what in _MADS.items()]
    if recipe.method == "best-pixel":
        arrays.append(_date_spec())
    if recipe.method == "percentiles":
        arrays += [_percentile_spec(percent, bands) for percent in recipe.percentiles]
    arrays += [_count_spec("n_obs"), _count_spec("n_orbit")]
    if recipe.method not in _FIRST_METHODS:
        arrays.append(_spread_spec())
    return tuple(arrays)


_MADS = {
    "smad": "median cosine distance of the clear spectra from the geomedian",
    "emad": "median Euclidean distance of the clear spectra from the geomedian, in reflectance",
    "bcmad": "median Bray-Curtis distance of the clear spectra from the geomedian",
}


def _mad_spec(name: str, what: str) -> ArraySpec:
    return ArraySpec(name, "float32", fill=np.nan, attrs={"long_name": what, "units": "1"})


def _date_spec() -> ArraySpec:
    attrs = {
        "long_name": "day of the observation",
        "units": "days since 1970-01-01",
        "calendar": "standard",
    }
    return ArraySpec("source_date", "int32", fill=-1, attrs=attrs)


def _percentile_spec(percent: int, bands: Sequence[str]) -> ArraySpec:
    spec = reflectance_spec(bands, f"p{percent}")
    attrs = {**spec.attrs, "long_name": f"surface reflectance, percentile {percent}"}
    return replace(spec, attrs=attrs)


def _count_spec(name: str) -> ArraySpec:
    what = {"n_obs": "clear observations", "n_orbit": "relative orbits among them"}[name]
    return ArraySpec(name, "uint8", fill=0, attrs={"long_name": what, "units": "1"})


def _spread_spec() -> ArraySpec:
    attrs = {"long_name": "days from the first clear observation to the last", "units": "days"}
    return ArraySpec("doy_spread", "uint16", fill=0, attrs=attrs)


def plan_composites(
    recipe: CompositeRecipe, reader: CubeReader, tiles: Sequence[Tile], days: DateRange
) -> tuple[dict[Zone, list[TimeEntry]], list[CompositeRow]]:
    """Plan one row per (tile, period) that has a scene.

    Returns:
        Entries by zone (all periods since 2015-01, so that an index never moves), and rows.
    """
    calendar = recipe.calendar
    periods = calendar.periods(days)
    entries: dict[Zone, list[TimeEntry]] = {}
    rows: list[CompositeRow] = []
    for zone in sorted({tile.zone for tile in tiles} & set(reader.zones(PRODUCT))):
        table, ledger = reader.entries(PRODUCT, zone), reader.ledger(PRODUCT, zone)
        dates = _dates(table, recipe)
        ledgers = ledger, (reader.ledger(SCREEN, zone) if recipe.screen else None)
        axis = [calendar.period(i) for i in range(periods[-1].index + 1)]
        entries[zone] = [_entry(period) for period in axis]
        for period in periods:
            inside = (dates >= np.datetime64(period.start)) & (dates < np.datetime64(period.end))
            part = table.where(inside)
            for tile in (t for t in tiles if t.zone == zone):
                row = _plan_row(recipe, ledgers, part, tile, period)
                if row is not None:
                    rows.append(row)
                    if recipe.nbar:
                        check_views(read_views(reader, PRODUCT, zone, row.positions), tile)
    return entries, rows


def _dates(table: TimeTable, recipe: CompositeRecipe) -> np.ndarray:
    """The day to which each scene counts, datetime64[D]."""
    days = table.columns["solar_day"] if recipe.by_solar_day else table.time
    return np.asarray(days.astype("datetime64[D]"))


def _entry(period: Period) -> TimeEntry:
    columns = {"period_end": period.end.isoformat()}
    return TimeEntry(period.key, f"{period.start.isoformat()}T00:00:00.000Z", columns)


def _plan_row(
    recipe: CompositeRecipe,
    ledgers: tuple[Ledger, Ledger | None],
    scenes: TimeTable,
    tile: Tile,
    period: Period,
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
    days = _dates(scenes, recipe)[used].astype(int)
    best = recipe.method == "best-pixel"
    return CompositeRow(
        key=f"{period.key}/{tile.id}",
        entry=period.key,
        tiles=(tile,),
        sources=(f"{len(used)} scenes {name}",),
        positions=tuple(int(scenes.index[i]) for i in used),
        orbits=tuple(int(scenes.columns["relative_orbit"][i]) for i in used),
        days=tuple(days.tolist()),
        circumstances=_circumstances(scenes, used, days, period) if best else None,
    )


def _circumstances(
    scenes: TimeTable, used: Sequence[int], days: np.ndarray, period: Period
) -> Circumstances:
    first = (period.start - date(1970, 1, 1)).days
    half = (period.end - period.start).days / 2
    return Circumstances(
        offset=tuple(((days + 0.5 - first - half) / half).tolist()),
        view_zenith=tuple(float(scenes.columns["view_zenith"][i]) for i in used),
        sun_zenith=tuple(float(scenes.columns["sun_zenith"][i]) for i in used),
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
        levels = [m for m in tile.lattice.levels if reader.bands(PRODUCT, tile.zone, m)]
        best = self.recipe.method == "best-pixel"
        costs = _Costs.at(reader, row, levels[-1]) if best else None
        for resolution_m in reversed(levels):
            part = self._tile(reader, row, resolution_m, costs)
            arrays.update({f"{resolution_m}m/{name}": v for name, v in part.items()})
            n_valid = int((part["n_obs"] > 0).sum())
        yield TileResult(
            tile, row.entry, arrays, DONE if n_valid else NO_SCENE, n_valid, 0, row.sources[0]
        )

    def _tile(
        self, reader: CubeReader, row: CompositeRow, resolution_m: int, costs: _Costs | None
    ) -> Mapping[str, np.ndarray]:
        (tile,) = row.tiles
        px = tile_px(resolution_m, tile.zone)
        bands = reader.bands(PRODUCT, tile.zone, resolution_m)
        out = {
            spec.name: np.full((*spec.lead_shape, px, px), spec.fill, spec.dtype)
            for spec in composite_arrays(self.recipe, bands)
        }
        whole, positions = tile.window(resolution_m), np.array(row.positions)
        views = read_views(reader, PRODUCT, tile.zone, positions) if self.recipe.nbar else None
        for top in range(0, px, _STRIP_PX):
            window = PixelWindow(whole.row_off + top, whole.col_off, min(_STRIP_PX, px - top), px)
            clear = reader.read_clear(
                tile.zone,
                window=window,
                resolution_m=resolution_m,
                index=positions,
                screen=self.recipe.screen,
            )
            if not clear.any():
                continue
            values = reader.read(
                PRODUCT, tile.zone, window=window, resolution_m=resolution_m, index=positions
            )
            clear &= (values != FILL).all(axis=1)
            if views is not None:
                where: Any = {"zone": tile.zone, "window": window, "resolution_m": resolution_m}
                to_nadir(values, views, bands=bands, **where)
            if self.recipe.by_solar_day:
                keep_first_of_day(clear, row.days)
            rows = slice(top, top + window.height)
            cost = None if costs is None else costs.of(values, clear, rows, resolution_m)
            for name, part in self._reduce(row, values, clear, cost).items():
                out[name][..., rows, :] = part
        return out

    def _reduce(
        self, row: CompositeRow, values: np.ndarray, clear: np.ndarray, cost: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        method, out = self.recipe.method, dict[str, np.ndarray]()
        if cost is not None:
            out |= _best_pixel(values, clear, cost, row.days)
        elif self.recipe.is_spectral:
            out["reflectance"] = reduce_scenes(values, clear, method)
        if method == "geomad":
            out |= _deviations(values, clear, out["reflectance"])
        if method == "percentiles":
            percents = self.recipe.percentiles
            found = _percentiles(values, clear, percents)
            out |= {f"p{percent}": part for percent, part in zip(percents, found, strict=True)}
        out["n_obs"] = np.minimum(clear.sum(axis=0), 255).astype(np.uint8)
        out["n_orbit"] = _count_orbits(clear, np.array(row.orbits))
        if method not in _FIRST_METHODS:
            out["doy_spread"] = _spread(clear, row.days)
        return out


@dataclass(slots=True)
class _Costs:
    """What each observation of a tile costs: found once, so that all levels choose one date.

    It is found at the coarsest level that holds bands, and repeated at the finer one.
    """

    row: CompositeRow
    near_cloud: np.ndarray
    """Dims (time, y, x), float16, at ``level``."""
    level: int
    _found: np.ndarray

    @classmethod
    def at(cls, reader: CubeReader, row: CompositeRow, level: int) -> _Costs:
        """Look at the clouds of a tile."""
        (tile,) = row.tiles
        coarse = tile.lattice.coarse
        mask = reader.read(
            PRODUCT,
            tile.zone,
            "mask",
            window=tile.window(coarse),
            resolution_m=coarse,
            index=row.positions,
        )
        near = measure_near_cloud(mask, tile.lattice.ground_m(tile.row, tile.col))
        near = _repeat(near, coarse // level)
        return cls(row, near, level, np.full(near.shape, UNJUDGED, np.uint16))

    def of(
        self, values: np.ndarray, clear: np.ndarray, rows: slice, resolution_m: int
    ) -> np.ndarray:
        """Costs of a strip, dims (time, y, x), uint16."""
        factor = self.level // resolution_m
        rows = slice(rows.start // factor, rows.stop // factor)
        if factor == 1 and self.row.circumstances is not None:
            (median,) = _percentiles(values, clear, (50,))
            near = self.near_cloud[:, rows]
            self._found[:, rows] = cost_of_observations(
                values, median, near, self.row.circumstances
            )
        return _repeat(self._found[:, rows], factor)


def _repeat(values: np.ndarray, factor: int) -> np.ndarray:
    return values if factor == 1 else values.repeat(factor, axis=-2).repeat(factor, axis=-1)


def keep_first_of_day(clear: np.ndarray, days: Sequence[int]) -> None:
    """Leave each pixel one clear observation a day, the earliest.

    Args:
        clear: Dims (time, y, x), bool, in order of time; changed in place.
        days: Solar day of each observation.
    """
    for later in range(1, len(days)):
        for earlier in range(later):
            if days[earlier] == days[later]:
                clear[later] &= ~clear[earlier]


def _best_pixel(
    values: np.ndarray, clear: np.ndarray, cost: np.ndarray, days: Sequence[int]
) -> dict[str, np.ndarray]:
    best, known = choose_best(cost, clear), clear.any(axis=0)
    taken = np.take_along_axis(values, best[None, None], axis=0)[0]
    dates = np.array(days, np.int32)[best]
    return {
        "reflectance": np.where(known, taken, np.int16(FILL)),
        "source_date": np.where(known, dates, np.int32(-1)),
    }


def _deviations(values: np.ndarray, clear: np.ndarray, centre: np.ndarray) -> dict[str, np.ndarray]:
    from eoray.cube.mads import MADS, reduce_mads

    values, clear = np.ascontiguousarray(values), np.ascontiguousarray(clear)
    found = dict(zip(MADS, reduce_mads(values, clear, centre, FILL), strict=True))
    found["emad"] = found["emad"] * np.float32(SCALE)
    return found


def _spread(clear: np.ndarray, days: Sequence[int]) -> np.ndarray:
    at = np.array(days)
    first, last = clear.argmax(axis=0), len(at) - 1 - clear[::-1].argmax(axis=0)
    return np.where(clear.any(axis=0), at[last] - at[first], 0).astype(np.uint16)


def _count_orbits(clear: np.ndarray, orbits: np.ndarray) -> np.ndarray:
    seen = [clear[orbits == orbit].any(axis=0) for orbit in np.unique(orbits)]
    return np.asarray(np.sum(seen, axis=0), dtype=np.uint8)


def reduce_scenes(values: np.ndarray, clear: np.ndarray, method: str) -> np.ndarray:
    """Reduce clear observations along time to one spectrum.

    Args:
        values: Dims (time, band, y, x), int16, fill -32768.
        clear: Dims (time, y, x), bool; True where all bands may be used.
        method: ``geomedian`` or ``geomad`` (one spectrum that minimises the sum of Euclidean
            distances to all others) or ``median`` (band by band, halves to the even unit).

    Returns:
        Dims (band, y, x), int16, fill where nothing is clear.

    Source:
        Roberts, Mueller, McIntyre 2017, IEEE TGRS 55(11), for the geomedian.
    """
    if method in {"geomedian", "geomad"}:
        from eoray.cube.geomedian import reduce_geomedian

        # numba compiles once per layout: always hand it C arrays
        values, clear = np.ascontiguousarray(values), np.ascontiguousarray(clear)
        return np.asarray(reduce_geomedian(values, clear, FILL))
    if method == "median":
        (median,) = _percentiles(values, clear, (50,))
        return np.asarray(median)
    raise ConfigError(
        f"composite method {method!r} makes no spectrum from all dates; use 'geomedian' or 'median'"
    )


def _percentiles(values: np.ndarray, clear: np.ndarray, percents: Sequence[int]) -> np.ndarray:
    from eoray.cube.ranks import reduce_percentiles

    return reduce_percentiles(values, clear, percents, FILL)


def warm_up() -> None:
    """Compile the geomedian, or load it from numba's cache on disk."""
    reduce_scenes(np.zeros((2, 1, 1, 1), np.int16), np.ones((2, 1, 1), bool), "geomedian")


def days_of(period: Period) -> DateRange:
    """The days of a period, both ends included."""
    return DateRange(period.start, period.end - timedelta(days=1))
