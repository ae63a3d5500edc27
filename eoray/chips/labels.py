"""Labels from polygons: read them, bring them to the cube's zones, burn them to pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray import storage
from eoray.errors import DataError, EorayError
from eoray.grid import PixelWindow, Tile, zone_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import geopandas as gpd

IGNORE = 255
"""Label of pixels that neither train nor validate."""

NO_PLACE = -1
"""Polygon number of pixels that no polygon, or polygons of two classes, cover."""

_COLOURS = (
    *("#2f6db3", "#1f5f3a", "#6aa84f", "#e3b448", "#b5cf6b", "#c0504d", "#b8a58a"),
    *("#7f6fb0", "#53b3a8", "#d98cb3", "#8c6d31", "#9aa5b1"),
)
"""Used in turn for classes that come without a colour."""


@dataclass(frozen=True, slots=True)
class Legend:
    """Classes of a map. Class ids run from 1; 0 means not mapped."""

    names: tuple[str, ...]
    """Name of class 1, 2, ..."""
    colours: tuple[str, ...] = ()
    """``#rrggbb`` per class."""

    def __post_init__(self) -> None:
        """Fill in colours and refuse what a map cannot hold."""
        if not 1 <= len(self.names) <= 250 or len(set(self.names)) != len(self.names):
            raise DataError(
                f"legend has {len(self.names)} classes ({', '.join(self.names[:5])} ...); it needs "
                "1 to 250 different names"
            )
        if len(self.colours) != len(self.names):
            colours = tuple(_COLOURS[i % len(_COLOURS)] for i in range(len(self.names)))
            object.__setattr__(self, "colours", colours)

    @property
    def ids(self) -> tuple[int, ...]:
        """Class ids, 1 to n."""
        return tuple(range(1, len(self.names) + 1))


@dataclass(frozen=True, slots=True)
class Polygon:
    """One label: a place with one class."""

    number: int
    """Position among the labels that are used; kept by every later step."""
    zone: int
    class_id: int
    wkb: bytes
    """Outline in metres of the zone's northern CRS."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """All labels inside the cube."""

    legend: Legend
    polygons: tuple[Polygon, ...]
    n_read: int
    """Features of the file."""
    n_outside: int
    """Features that touch no tile of the cube."""

    @property
    def class_of(self) -> np.ndarray:
        """Class id by polygon number, uint8."""
        return np.array([p.class_id for p in self.polygons], np.uint8)


def read_labels(
    path: str | Path,
    tiles: Sequence[Tile],
    *,
    class_property: str = "class",
    legend: Legend | None = None,
) -> LabelSet:
    """Read label polygons and bring them to the zones of a cube.

    Args:
        path: Any vector file with a CRS (GeoJSON, GeoPackage, GeoParquet ...).
        tiles: Tiles of the cube; a polygon that touches none is counted and left out.
        class_property: Attribute that holds the class, text or number.
        legend: Classes to use, in order; without it all that occur, by name.

    Returns:
        The polygons in the order of the file, each in the zone that owns it.

    Raises:
        DataError: The file cannot be read, has no CRS, lacks the attribute, holds something else
            than polygons, lies outside the cube, or a class of the legend has no sample.
    """
    frame = _read_frame(path, class_property)
    names = _class_names(frame[class_property])
    legend = legend or Legend(tuple(sorted({name for name in names if name is not None})))
    used, n_outside = _inside(frame, tiles)
    ids = {name: i for i, name in zip(legend.ids, legend.names, strict=True)}
    polygons: list[Polygon] = []
    for row, zone, wkb in used:
        name = names[row]
        if name in ids:
            polygons.append(Polygon(len(polygons), zone, ids[name], wkb))
    if not used:
        labels, cube = _extent(frame.to_crs(4326).total_bounds), _extent(_lonlat_bounds(tiles))
        raise DataError(
            f"none of the {len(frame)} labels of {str(path)!r} lies inside the cube: they span "
            f"{labels}, the cube {cube} (west, south, east, north); check the file's CRS or the aoi"
        )
    _check_classes(legend, polygons, path, names)
    return LabelSet(legend, tuple(polygons), len(frame), n_outside)


def _read_frame(path: str | Path, class_property: str) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pandas as pd

    absent = f"labels {str(path)!r} do not exist; give a vector file in fit.labels"
    try:
        with storage.local_copy(str(path)) as local:
            if not local.exists():
                raise DataError(absent)
            parquet = local.suffix in (".parquet", ".geoparquet")
            frame = gpd.read_parquet(local) if parquet else gpd.read_file(local)
    except FileNotFoundError as error:
        raise DataError(absent) from error
    except EorayError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"labels {str(path)!r} cannot be read: {error}; give GeoJSON, GeoPackage or GeoParquet"
        ) from error
    if isinstance(frame, pd.DataFrame) and "geometry" not in frame:
        raise DataError(f"labels {str(path)!r} have no geometry; give polygons with a class")
    if frame.crs is None:
        raise DataError(
            f"labels {str(path)!r} have no CRS; write them again with one (EPSG:4326 for lon/lat)"
        )
    if class_property not in frame:
        there = ", ".join(str(c) for c in frame.columns if c != "geometry") or "none"
        raise DataError(
            f"labels {str(path)!r} have no attribute {class_property!r}; they have {there}; "
            "set fit.class_property"
        )
    kinds = set(frame.geometry.dropna().geom_type) - {"Polygon", "MultiPolygon"}
    if kinds:
        raise DataError(
            f"labels {str(path)!r} hold {', '.join(sorted(kinds))}; only polygons can be burned, "
            "so buffer points and lines first"
        )
    return frame


def _class_names(column: Any) -> list[str | None]:
    """Class names as text; whole numbers lose their ``.0``; missing ones become None."""
    names: list[str | None] = []
    for value in column:
        if value is None or value != value or value == "":  # noqa: PLR0124  NaN differs from itself
            names.append(None)
        elif isinstance(value, float) and value.is_integer():
            names.append(str(int(value)))
        else:
            names.append(str(value))
    return names


def _inside(
    frame: gpd.GeoDataFrame, tiles: Sequence[Tile]
) -> tuple[list[tuple[int, int, bytes]], int]:
    """(row, zone, outline) of the features that touch a tile, and how many do not."""
    import shapely

    lonlat = frame.geometry.to_crs(4326).to_numpy()
    present = np.array([g is not None and not g.is_empty for g in lonlat])
    owner = np.zeros(len(frame), int)
    points = shapely.get_coordinates(shapely.point_on_surface(lonlat[present]))
    owner[present] = zone_of(points[:, 0], points[:, 1])
    zones = sorted({tile.utm_zone for tile in tiles})
    found: dict[int, tuple[int, bytes]] = {}
    # A polygon belongs to its owner's zone; next to a border the cube may hold only the other
    # zone's tiles, which take what is left.
    for owned_only in (True, False):
        for zone in zones:
            todo = present & (owner == zone) if owned_only else present
            rows = np.flatnonzero(todo & ~np.isin(np.arange(len(frame)), list(found)))
            found.update(_touching(frame, rows, zone, tiles))
    used = [(row, *found[row]) for row in sorted(found)]
    return used, len(frame) - len(used)


def _touching(
    frame: gpd.GeoDataFrame, rows: np.ndarray, zone: int, tiles: Sequence[Tile]
) -> dict[int, tuple[int, bytes]]:
    import shapely

    if rows.size == 0:
        return {}
    area = shapely.union_all([shapely.box(*t.bounds) for t in tiles if t.zone == zone])
    shapely.prepare(area)
    near = _near_zone(frame, rows, zone)
    projected = frame.geometry.iloc[near].to_crs(32600 + zone).to_numpy()
    valid = shapely.make_valid(projected)
    hit = shapely.intersects(area, valid)
    return {
        int(row): (zone, shapely.to_wkb(geometry))
        for row, geometry in zip(near[hit], valid[hit], strict=True)
    }


def _near_zone(frame: gpd.GeoDataFrame, rows: np.ndarray, zone: int) -> np.ndarray:
    """Keep rows within 12 degrees of a zone's meridian, where UTM coordinates mean something."""
    bounds = frame.geometry.iloc[rows].to_crs(4326).bounds
    centre = (bounds["minx"].to_numpy() + bounds["maxx"].to_numpy()) / 2
    away = (centre - (6 * zone - 183) + 180) % 360 - 180
    return np.asarray(rows[np.abs(away) < 12])


def _check_classes(
    legend: Legend, polygons: list[Polygon], path: str | Path, names: list[str | None]
) -> None:
    counts = np.bincount([p.class_id for p in polygons], minlength=len(legend.names) + 1)
    empty = [legend.names[i - 1] for i in legend.ids if counts[i] == 0]
    if not empty:
        return
    there = sorted({name for name in names if name is not None})
    raise DataError(
        f"class {', '.join(repr(name) for name in empty)} has no sample inside the cube; labels "
        f"{str(path)!r} hold {', '.join(there)}; add polygons or take the class out of the legend"
    )


def _lonlat_bounds(tiles: Iterable[Tile]) -> tuple[float, float, float, float]:
    from pyproj import Transformer

    boxes = [
        Transformer.from_crs(t.epsg, 4326, always_xy=True).transform_bounds(*t.bounds)
        for t in tiles
    ]
    w, s, e, n = (np.array(side) for side in zip(*boxes, strict=True))
    return float(w.min()), float(s.min()), float(e.max()), float(n.max())


def _extent(bounds: Iterable[float]) -> str:
    return "[" + ", ".join(f"{value:.3f}" for value in bounds) + "]"


_RASTERIO_WARNINGS = Lock()
"""``rasterize`` hides a warning by ``catch_warnings``, which two threads must not enter at once."""


class LabelBurner:
    """Burn polygons of one zone to windows of its pixels."""

    def __init__(
        self, polygons: Iterable[Polygon], zone: int, *, resolution_m: int = 10, border_m: float
    ) -> None:
        """Index the polygons.

        Args:
            polygons: Those to burn; others of the zone are as if they were not there.
            zone: UTM zone.
            resolution_m: Pixel in metres.
            border_m: Pixels whose centre lies nearer than this to an outline stay unlabelled.
        """
        import shapely

        mine = sorted((p for p in polygons if p.zone == zone), key=lambda p: p.number)
        outlines = shapely.from_wkb(np.array([p.wkb for p in mine], object))
        cores = shapely.buffer(outlines, -border_m) if border_m else outlines
        keep = ~shapely.is_empty(cores)
        self._cores = cores[keep]
        self._numbers = np.array([p.number for p in mine], int)[keep]
        self._classes = np.array([p.class_id for p in mine], int)[keep]
        self._tree = shapely.STRtree(self._cores)
        self._resolution_m = resolution_m

    def burn(self, window: PixelWindow) -> np.ndarray:
        """Number the pixels of a window by the polygon that holds their centre.

        Returns:
            Dims (y, x), int32: polygon number; NO_PLACE where there is none, or where polygons of
            different classes overlap. Of one class the highest number wins.
        """
        import shapely
        from rasterio.features import rasterize

        shape = (window.height, window.width)
        transform = window.transform(self._resolution_m)
        (x0, y1), (x1, y0) = transform @ (0, 0), transform @ (window.width, window.height)
        hits = np.sort(self._tree.query(shapely.box(x0, y0, x1, y1)))
        places = np.full(shape, NO_PLACE, np.int32)
        covered = np.zeros(shape, np.uint8)
        for class_id in np.unique(self._classes[hits]):
            mine = hits[self._classes[hits] == class_id]
            shapes = [(self._cores[i], int(self._numbers[i])) for i in mine]
            with _RASTERIO_WARNINGS:
                layer = rasterize(shapes, shape, fill=NO_PLACE, transform=transform, dtype="int32")
            covered += layer != NO_PLACE
            places = np.where(layer != NO_PLACE, layer, places)
        places[covered > 1] = NO_PLACE
        return places


def to_classes(places: np.ndarray, class_of: np.ndarray) -> np.ndarray:
    """Turn polygon numbers into training targets.

    Args:
        places: Polygon numbers, any dims, NO_PLACE where unlabelled.
        class_of: Class id by polygon number.

    Returns:
        Same dims, uint8: class id - 1, or IGNORE.
    """
    return np.where(places == NO_PLACE, IGNORE, class_of[places] - 1).astype(np.uint8)
