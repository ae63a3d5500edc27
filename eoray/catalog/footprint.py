"""Lon/lat outlines of places and items, cut at the antimeridian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eoray.errors import CatalogError
from eoray.grid import split_antimeridian

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

BBox = tuple[float, float, float, float]
"""(west, south, east, north) in degrees; west > east where it crosses the antimeridian."""


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
