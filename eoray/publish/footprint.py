"""Outline of a raster in lon/lat, as GeoJSON and STAC want it."""

from __future__ import annotations

from typing import Any

import numpy as np

from eoray.publish.cog import RasterInfo

DIGITS = 7
"""Decimals of a degree: 1 cm on the ground."""

VERTICES = 9
"""Points along each edge: an edge bends less than a metre between them up to 650 km."""


def footprint_of(info: RasterInfo) -> tuple[dict[str, Any], list[float]]:
    """Return a raster's outline and bounding box.

    A raster that crosses the antimeridian gets a MultiPolygon cut there, and a box whose west is
    greater than its east, as RFC 7946 asks.

    Returns:
        (GeoJSON geometry, [west, south, east, north] in degrees).
    """
    from pyproj import Transformer

    t, edge = info.transform, np.linspace(0.0, 1.0, VERTICES)[:-1]
    # counter-clockwise from the lower left: exterior rings of GeoJSON turn that way
    col = np.concatenate([edge, np.ones_like(edge), 1 - edge, np.zeros_like(edge)]) * info.width
    row = np.concatenate([np.ones_like(edge), 1 - edge, np.zeros_like(edge), edge]) * info.height
    to_lonlat = Transformer.from_crs(info.epsg, 4326, always_xy=True)
    lon, lat = to_lonlat.transform(t.c + col * t.a, t.f + row * t.e)
    if np.ptp(lon) < 180:
        ring = _ring(lon, lat)
        box = [float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())]
        return {"type": "Polygon", "coordinates": [ring]}, [round(v, DIGITS) for v in box]
    return _cut_at_antimeridian(np.where(lon < 0, lon + 360.0, lon), lat)


def _cut_at_antimeridian(lon: np.ndarray, lat: np.ndarray) -> tuple[dict[str, Any], list[float]]:
    import shapely

    whole = shapely.Polygon(np.stack([lon, lat], axis=1))
    south, north = float(lat.min()), float(lat.max())
    west_part = whole.intersection(shapely.box(0.0, -90.0, 180.0, 90.0))
    east_part = whole.intersection(shapely.box(180.0, -90.0, 360.0, 90.0))
    rings = []
    for part, shift in ((west_part, 0.0), (east_part, -360.0)):
        x, y = np.asarray(shapely.normalize(part).reverse().exterior.coords)[:-1].T
        rings.append([_ring(x + shift, y)])
    box = [float(lon.min()), south, float(lon.max()) - 360.0, north]
    return {"type": "MultiPolygon", "coordinates": rings}, [round(v, DIGITS) for v in box]


def _ring(lon: np.ndarray, lat: np.ndarray) -> list[list[float]]:
    points = [
        [round(float(x), DIGITS), round(float(y), DIGITS)] for x, y in zip(lon, lat, strict=True)
    ]
    return [*points, points[0]]
