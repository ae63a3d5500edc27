"""Lon/lat outlines of places and items, cut at the antimeridian."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eoray.errors import CatalogError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

BBox = tuple[float, float, float, float]
"""(west, south, east, north) in degrees; west > east where it crosses the antimeridian."""


def split_antimeridian(geometry: BaseGeometry, *, narrow: bool = False) -> BaseGeometry:
    """Bring a lon/lat geometry into -180..180, cut at the antimeridian.

    Args:
        geometry: Longitudes may run beyond 180 on either side.
        narrow: The thing is known to be small, such as a granule: a part wider than 180 degrees
            then is one that crosses the antimeridian and was drawn the long way round.

    Returns:
        A valid geometry within -180..180.
    """
    import shapely

    parts = [_unwrap(part) if narrow else part for part in shapely.get_parts(geometry)]
    pieces = [piece for part in parts for piece in _cut(_valid(part))]
    return pieces[0] if len(pieces) == 1 else shapely.union_all(pieces)


def bbox_of(geometry: BaseGeometry) -> BBox:
    """Return the box of a geometry that ``split_antimeridian`` has cut."""
    import shapely

    west, south, east, north = geometry.bounds
    parts = shapely.get_parts(geometry)
    eastern = [part.bounds for part in parts if part.bounds[0] >= 0]
    western = [part.bounds for part in parts if part.bounds[0] < 0]
    if east - west > 180 and eastern and western:
        wraps = max(b[2] for b in eastern) == 180 or min(b[0] for b in western) == -180
        if wraps:
            return min(b[0] for b in eastern), south, max(b[2] for b in western), north
    return west, south, east, north


def centre_lon(bbox: BBox) -> float:
    """Return the longitude of a box's centre, in -180..180."""
    west, _, east, _ = bbox
    lon = (west + (east if east >= west else east + 360)) / 2
    return lon - 360 if lon > 180 else lon


def item_footprint(document: Mapping[str, Any], item_id: str) -> BaseGeometry:
    """Return the outline of an item's data.

    Args:
        document: Holds ``geometry`` (GeoJSON) or, in its place, ``bbox``.
        item_id: Named in errors.

    Raises:
        CatalogError: The item has neither, or one that cannot be read.
    """
    import shapely
    from shapely.geometry import shape

    geometry, box = document.get("geometry"), document.get("bbox")
    if not geometry and not box:
        raise CatalogError(
            f"item {item_id} has neither geometry nor bbox; it cannot be placed, so take it out "
            "of the catalogue or give it a footprint"
        )
    if not geometry:
        west, south, east, north = _flat(box)
        return split_antimeridian(shapely.box(west, south, east + 360 * (east < west), north))
    try:
        outline = shape(geometry)
    except (ValueError, TypeError, KeyError, AttributeError, shapely.errors.ShapelyError) as error:
        raise CatalogError(
            f"geometry of item {item_id} cannot be read ({error}); mend it in the catalogue"
        ) from error
    return split_antimeridian(outline, narrow=True)


def _flat(box: Any) -> BBox:
    """Drop the heights of a box of six numbers."""
    values = [float(v) for v in box]
    if len(values) == 6:
        values = [values[0], values[1], values[3], values[4]]
    west, south, east, north = values
    return west, south, east, north


def _unwrap(part: BaseGeometry) -> BaseGeometry:
    import numpy as np
    import shapely

    west, _, east, _ = part.bounds
    if east - west <= 180:
        return part

    def shift(xy: np.ndarray) -> np.ndarray:
        return np.column_stack([np.where(xy[:, 0] < 0, xy[:, 0] + 360, xy[:, 0]), xy[:, 1]])

    return shapely.transform(part, shift)


def _valid(part: BaseGeometry) -> BaseGeometry:
    import shapely

    return part if part.is_valid else shapely.make_valid(part)


def _cut(part: BaseGeometry) -> list[BaseGeometry]:
    import shapely

    west, south, east, north = part.bounds
    if part.is_empty or (west >= -180 and east <= 180):
        return [part]
    pieces = []
    for turn in range(math.floor((west + 180) / 360), math.floor((east + 180) / 360) + 1):
        low = -180 + 360 * turn
        piece = shapely.intersection(part, shapely.box(low, south, low + 360, north))
        if not piece.is_empty and piece.area > 0:
            pieces.append(shapely.transform(piece, lambda xy, t=turn: xy - [360 * t, 0]))
    return pieces or [part]
