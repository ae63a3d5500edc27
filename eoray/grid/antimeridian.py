"""Lon/lat geometries cut where the longitudes begin anew."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from shapely.geometry.base import BaseGeometry


def split_antimeridian(geometry: BaseGeometry, *, narrow: bool = False) -> BaseGeometry:
    """Bring a lon/lat geometry into -180..180, cut at the antimeridian.

    Args:
        geometry: Longitudes may run beyond 180 on either side.
        narrow: The thing is known to be small, such as a granule: a part wider than 180 degrees
            then is one that crosses the antimeridian and was drawn the long way round.

    Returns:
        A geometry within -180..180, valid where it had to be cut.
    """
    import shapely

    if not narrow and not _runs_beyond(geometry):
        return geometry
    parts = [_unwrap(part) if narrow else part for part in shapely.get_parts(geometry)]
    pieces = [piece for part in parts for piece in _cut(_valid(part))]
    return pieces[0] if len(pieces) == 1 else shapely.union_all(pieces)


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


def _runs_beyond(geometry: BaseGeometry) -> bool:
    west, _, east, _ = geometry.bounds
    return bool(west < -180 or east > 180)


def _cut(part: BaseGeometry) -> list[BaseGeometry]:
    import shapely

    if part.is_empty or not _runs_beyond(part):
        return [part]
    west, south, east, north = part.bounds
    pieces = []
    for turn in range(math.floor((west + 180) / 360), math.floor((east + 180) / 360) + 1):
        low = -180 + 360 * turn
        piece = shapely.intersection(part, shapely.box(low, south, low + 360, north))
        # of an area that ends on the antimeridian, a line of no width lies beyond it
        if not piece.is_empty and (piece.area > 0 or part.area == 0):
            pieces.append(shapely.transform(piece, lambda xy, t=turn: xy - [360 * t, 0]))
    return pieces or [part]
