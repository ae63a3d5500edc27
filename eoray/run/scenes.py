"""Scenes as a lazy datacube, without writing one: ``eoray.open_scenes``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from eoray.cube.direct import SceneReader
from eoray.cube.mask import MaskRecipe
from eoray.cube.open import during, pixels_around, to_geometry
from eoray.cube.plan import SceneRow, SceneRows, plan_scenes
from eoray.cube.scenes import CubeRecipe
from eoray.cube.show import CHUNK_TILES, show_scenes
from eoray.errors import CatalogError, ConfigError
from eoray.grid import (
    MAX_LAT,
    MIN_LAT,
    Lattice,
    PixelWindow,
    Tile,
    Zone,
    lattice_of,
    tiles_of_geometry,
)
from eoray.reading.engines import resolve_engine
from eoray.reading.grids import check_grids
from eoray.reading.overviews import reads_overviews
from eoray.run.session import Run, load_run
from eoray.sentinel2 import BANDS, native_resolution_m, resolve_bands

if TYPE_CHECKING:
    import pystac
    import xarray as xr
    from odc.geo.geobox import GeoBox
    from shapely.geometry.base import BaseGeometry

    from eoray.catalog.scene import Scene
    from eoray.cube.layout import TimeEntry

MOST_CHUNKS = 1_000_000
"""Of dask: each million costs 1.5 s and 0.15 GB in every step before a pixel is read."""

type Items = Iterable[pystac.Item | Mapping[str, Any]]
"""STAC items, as pystac has them or as JSON values."""


def open_scenes(  # noqa: PLR0913 - as open_cube: every selection has a name
    source: Run | str | Path | Items,
    resolution_m: int | None = None,
    *,
    aoi: Sequence[float] | BaseGeometry | None = None,
    time: str | None = None,
    bands: Sequence[str] | None = None,
    zone: int | None = None,
    geobox: GeoBox | None = None,
    engine: str = "eoray",
    errors: Literal["raise", "record"] = "raise",
    mixed: bool = False,
    decode: bool = False,
) -> xr.Dataset:
    """Open scenes lazily, with the values that a cube of them would hold.

    Args:
        source: A run or its file (its items are searched, or read where they are frozen), a
            stac-geoparquet snapshot, or STAC items.
        resolution_m: 10 (where none is given) or 20: the lattice, and which bands come when none
            are named. Not with ``geobox``.
        aoi: [west, south, east, north] in degrees (west > east crosses the antimeridian) or a
            geometry in lon/lat: the rectangle of pixels around it is kept. None: the rectangle
            around all tiles of the run, or around those that the items' outlines reach.
        time: Days such as ``2021-03-01/2021-05-31``, both included.
        bands: Bands by id or common name, in the order wanted; those of the other native pixel are
            resampled when they are read. Of items, quality then speaks of these bands.
        zone: UTM zone; needed where scenes or place lie in several.
        geobox: Pixels of your own, square and north up, in any EPSG code; scenes that do not lie
            on them are resampled. Not for a run, whose grid its file says.
        engine: ``eoray``; or ``odc-stac`` or ``stackstac``, which give the same where files are
            copied and GDAL's warp where they are not.
        errors: ``raise`` stops at a file that cannot be read, ``record`` leaves fill and sets a bit
            in ``quality``.
        mixed: Let items of several processing lineages stand side by side. A run's file says so.
        decode: Turn stored integers into float32 reflectance with NaN.

    Returns:
        What :func:`eoray.open_cube` gives of the written cube: ``reflectance`` with dims (time,
        band, y, x), one entry per datatake, ``quality``, ``scl`` and ``mask``, as dask arrays.

    Raises:
        ConfigError: Several zones and none named, an unknown band or engine, mixed lineages, an
            ``aoi`` or ``time`` that holds nothing, or more than a million chunks of dask.
        CatalogError: No scenes, or items that cannot be used.
        GridError: Files that would have to be resampled, in a run that does not allow it.
    """
    reading = resolve_engine(engine)
    if isinstance(source, str | Path):
        source = _of_path(str(source))
    place = to_geometry(aoi)
    if isinstance(source, Run):
        if geobox is not None:
            raise ConfigError("geobox= goes with items; a run lies on the grid of its file")
        plan = _plan_run(source, place, zone)
    else:
        named = None if bands is None else resolve_bands(bands)
        asked = _Asked(place, zone, geobox, resolution_m)
        plan = _plan_items(_items(source), named, asked, mixed=mixed)
    chosen = plan.zone
    lattice = lattice_of(chosen)
    level = lattice.levels[0] if resolution_m is None else resolution_m
    if level not in lattice.levels:
        raise ConfigError(
            f"scenes lie at {', '.join(map(str, lattice.levels))} m on {lattice.label}, not at "
            f"{level}; name one of these"
        )
    entries, rows = _select_time(plan, chosen, time)
    reader = SceneReader(
        plan.recipe,
        chosen,
        entries,
        rows,
        key=_digest(plan),
        engine=reading,
        raise_errors=errors == "raise",
    )
    window = _window(plan, chosen, level, place, geobox)
    _check_size(window, len(entries), lattice.px(level))
    shown = show_scenes(reader, _bands(plan.recipe, bands, level), level, window)
    if decode:
        from eoray.cube.open import decode_integers

        return decode_integers(shown)
    return shown


@dataclass(frozen=True, slots=True)
class _Plan:
    """What there is to show."""

    recipe: CubeRecipe
    entries: Mapping[Zone, Sequence[TimeEntry]]
    rows: SceneRows
    zone: Zone
    """The one that is shown; entries and rows may lie in others, too."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which pixels of the items are wanted."""

    place: BaseGeometry | None
    zone: int | None
    geobox: GeoBox | None
    resolution_m: int | None


def _of_path(path: str) -> Run | Items:
    """A run file, or the items of a snapshot."""
    if path.endswith((".yaml", ".yml")):
        return load_run(path)
    if path.endswith((".parquet", ".geoparquet")):
        from eoray.catalog.snapshot import read_snapshot

        return read_snapshot(path)[0]
    raise ConfigError(
        f"{path!r} is neither a run file (.yaml) nor a stac-geoparquet snapshot (.parquet); give "
        "one of these, or STAC items"
    )


def _items(source: Items) -> list[pystac.Item]:
    import pystac

    if isinstance(source, pystac.Item):
        return [source]
    if isinstance(source, Mapping):
        source = source.get("features", [source])
    found = []
    for item in source:
        if isinstance(item, Mapping):
            item = pystac.Item.from_dict(dict(item), migrate=False)  # noqa: PLW2901
        if not isinstance(item, pystac.Item):
            raise ConfigError(
                f"{type(item).__name__} is no STAC item; give pystac items, their dicts, a run or "
                "a snapshot"
            )
        found.append(item)
    return found


def _plan_run(run: Run, place: BaseGeometry | None, zone: int | None) -> _Plan:
    _check_plain(run)
    plan = run.plan_cube(freeze=False)
    there = set(plan.rows.zones)
    if place is not None:
        there &= {tile.zone for tile in tiles_of_geometry(place, plan.recipe.grid)}
        _check_place(there, place)
    return _Plan(plan.recipe, plan.entries, plan.rows, _resolve_zone(there, zone))


def _check_plain(run: Run) -> None:
    """Refuse a run whose cube knows more than its scenes: pixels would differ in silence."""
    cube = run.config.cube
    more = {"cube.dem": cube.dem is not None, "cube.mask.method": "omni" in cube.mask.method}
    named = [key for key, used in more.items() if used]
    if named:
        raise ConfigError(
            f"{named[0]} marks pixels of the cube by more than their scenes, which open_scenes "
            "reads alone; make the cube and use open_cube, or override the key in load_run"
        )


def _plan_items(
    items: list[pystac.Item], bands: tuple[str, ...] | None, asked: _Asked, *, mixed: bool
) -> _Plan:
    from eoray.catalog.lineage import Lineage
    from eoray.catalog.scene import resolve_scenes

    grid = None if asked.geobox is None else _grid_of(asked.geobox, asked.resolution_m)
    wanted = bands or _native_bands(items, asked.resolution_m or 10, grid)
    lineage = Lineage(baseline_min=None, mixed=mixed)
    try:
        scenes = resolve_scenes(items, lineage=lineage, bands=wanted).scenes
    except ConfigError as error:
        raise ConfigError(
            f"{error} (open_scenes takes mixed=True; what else source says goes into a run file)"
        ) from error
    check_grids(scenes, wanted, warp=grid is not None, grid=grid)
    tiles = _tiles(scenes, asked.place, grid)
    there = {tile.zone for tile in tiles}
    _check_place(there, asked.place)
    zone = _resolve_zone(there, asked.zone)
    entries, rows = plan_scenes(scenes, [tile for tile in tiles if tile.zone == zone])
    _check_place(set(rows.zones), asked.place)
    recipe = CubeRecipe(
        bands=wanted,
        mask=MaskRecipe(),
        lineage=lineage.parameters(),
        collection=scenes[0].collection,
        warp=grid is not None,
        grid=grid,
        overviews=reads_overviews(scenes, wanted, grid),
    )
    return _Plan(recipe, entries, rows, zone)


def _native_bands(
    items: Sequence[pystac.Item], resolution_m: int, grid: Lattice | None
) -> tuple[str, ...]:
    """Bands of a native pixel that some item has; all of them on a grid of one pixel."""
    from eoray.catalog.providers import bands_present

    native = tuple(b for b in BANDS if grid or native_resolution_m(b) == resolution_m)
    there = {band for item in items for band in bands_present(item.assets)}
    return tuple(b for b in native if b in there) or native


def _grid_of(geobox: GeoBox, resolution_m: int | None) -> Lattice:
    """A user's grid that holds exactly the pixels of a geobox in its upper left."""
    from eoray.config.grids import GridSection

    a, b, c, d, e, f = tuple(geobox.transform)[:6]
    code = None if geobox.crs is None else geobox.crs.epsg
    if code is None or b or d or a <= 0 or not np.isclose(a, -e, rtol=1e-9):
        raise ConfigError(
            f"geobox has transform {(a, b, c, d, e, f)} and CRS {geobox.crs}; its pixels must be "
            "square, north up, and of a CRS with an EPSG code"
        )
    if resolution_m is not None:
        raise ConfigError("geobox= says the pixel; leave resolution_m out")
    height, width = geobox.shape
    section = GridSection(
        name="geobox", crs=f"EPSG:{code}", origin=(c, f), resolution=a, size=(width, height)
    )
    return section.lattice()


def _tiles(
    scenes: Sequence[Scene], place: BaseGeometry | None, grid: Lattice | None
) -> Sequence[Tile]:
    """Tiles of the place; where none is given, those of the scenes' own zones that they reach."""
    import shapely

    if grid is not None:
        return [Tile(grid, i, j) for i in range(grid.n_rows) for j in range(grid.n_cols)]
    if place is not None:
        return tiles_of_geometry(place)
    outlines = shapely.union_all([shapely.from_wkb(scene.footprint) for scene in scenes])
    own = {scene.zone for scene in scenes} - {None}
    mapped = outlines.intersection(shapely.box(-180, MIN_LAT, 180, MAX_LAT))
    return [tile for tile in tiles_of_geometry(mapped) if not own or tile.zone in own]


def _check_place(zones: set[Zone], place: BaseGeometry | None) -> None:
    if not zones:
        where = "" if place is None else f" {[round(v, 4) for v in place.bounds]}"
        raise CatalogError(
            f"none of the scenes touches the place{where}; check aoi= against their footprints"
        )


def _resolve_zone(zones: set[Zone], zone: int | None) -> Zone:
    if zone is None and len(zones) == 1:
        return next(iter(zones))
    if zone is None or zone not in zones:
        named = "name one with zone=" if zone is None else f"zone {zone} is not among them"
        there = sorted(zones)
        where = "on grid" if isinstance(there[0], Lattice) else "in UTM zones"
        raise ConfigError(f"the scenes lie {where} {', '.join(map(str, there))}; {named}")
    return zone


def _select_time(
    plan: _Plan, zone: Zone, days: str | None
) -> tuple[tuple[TimeEntry, ...], tuple[tuple[SceneRow, ...], ...]]:
    """Entries of a zone within some days, in the order of time, and their rows."""
    entries = sorted(plan.entries[zone], key=lambda e: (e.time, e.key))
    times = np.array([np.datetime64(e.time.rstrip("Z"), "ms") for e in entries])
    kept = [e for e, keep in zip(entries, during(times, days, "the scenes"), strict=True) if keep]
    rows: dict[str, list[SceneRow]] = {}
    for row in plan.rows:
        if row.block.zone == zone:
            rows.setdefault(row.entry, []).append(row)
    return tuple(kept), tuple(tuple(rows[entry.key]) for entry in kept)


def _bands(recipe: CubeRecipe, bands: Sequence[str] | None, level: int) -> tuple[str, ...]:
    """Bands to show: those named, else those stored at the level."""
    if bands is None:
        return tuple(b for b in recipe.bands if recipe.level(b) == level)
    wanted = resolve_bands(bands)
    missing = [band for band in wanted if band not in recipe.bands]
    if missing:
        raise ConfigError(
            f"the run reads no {missing[0]}; it has {', '.join(recipe.bands)}: add it to cube.bands"
        )
    return wanted


def _window(
    plan: _Plan, zone: Zone, level: int, place: BaseGeometry | None, geobox: GeoBox | None
) -> PixelWindow:
    """The rectangle around the tiles, or of a geobox, and within it around a place."""
    if geobox is not None:
        height, width = geobox.shape
        top, left, bottom, right = 0, 0, height, width
    else:
        px = lattice_of(zone).px(level)
        tiles = [t for row in plan.rows if row.block.zone == zone for t in row.tiles]
        rows, cols = [t.row for t in tiles], [t.col for t in tiles]
        top, left = min(rows) * px, min(cols) * px
        bottom, right = (max(rows) + 1) * px, (max(cols) + 1) * px
    if place is not None:
        around = pixels_around(place, zone, level)
        top, left = max(top, around[0]), max(left, around[1])
        bottom, right = min(bottom, around[2]), min(right, around[3])
        if top >= bottom or left >= right:
            _check_place(set(), place)
    return PixelWindow(top, left, bottom - top, right - left)


def _check_size(window: PixelWindow, n_dates: int, tile_px: int) -> None:
    """Refuse what no dataset can hold: the rectangle around items that lie far from each other."""
    edge = CHUNK_TILES * tile_px
    n_chunks = 4 * n_dates * -(-window.height // edge) * -(-window.width // edge)
    if n_chunks > MOST_CHUNKS:
        raise ConfigError(
            f"the rectangle around the scenes has {window.height} x {window.width} pixels on "
            f"{n_dates} dates, which are {n_chunks:,} chunks of dask; give a smaller place with "
            "aoi=, or fewer days with time="
        )


def _digest(plan: _Plan) -> str:
    """Names the scenes to dask: two datasets of the same files have the same tasks."""
    grid = plan.recipe.grid
    hasher = hashlib.sha256(repr((sorted(plan.recipe.parameters().items()), grid)).encode())
    for scene in sorted(plan.rows.scenes, key=_by_id):
        hasher.update(repr((scene.item_id, scene.dn_offset, scene.assets)).encode())
    return hasher.hexdigest()


def _by_id(scene: Scene) -> str:
    return scene.item_id
