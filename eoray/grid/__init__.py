"""Lattices of pixels in tiles: the world grid, and grids of a user's own.

The world grid is UTM zones in their northern CRS, tiles of 10 240 m, pixels owned by one zone.
Every zone uses EPSG:326zz, south of the equator too (negative northings), so that one lattice
runs from 80 S to 84 N and southern granules copy without resampling. A tile exists in each zone
whose nominal area it touches, hence tiles of neighbouring zones overlap at the border; a *pixel*
belongs to the one zone that holds its centre. Zones are those of MGRS, with the exceptions of
south-west Norway (32V) and Svalbard (31X to 37X).

A user's grid (``config.grids``) is one lattice of any CRS; it stands wherever a zone may stand, and
all its pixels are its own.
"""

from eoray.grid.antimeridian import split_antimeridian
from eoray.grid.area import owner_mask, pixel_area_m2
from eoray.grid.lattice import (
    COARSE_TILE_M,
    SOUTH_M,
    TILE_M,
    TOP_M,
    USER_TILE_PX,
    ZONE_COLS,
    ZONE_ROWS,
    Affine6,
    Bounds,
    Lattice,
    PixelWindow,
    Zone,
    from_lonlat,
    lattice_of,
    misfit_px,
    relabel_south,
    to_lonlat,
    zone_of_epsg,
    zone_of_name,
)
from eoray.grid.place import (
    MAX_LAT,
    MIN_LAT,
    area_of_use,
    box_lonlat,
    tiles_of_geometry,
    zone_boxes,
    zone_of,
)
from eoray.grid.tile import (
    Block,
    Tile,
    blocks_of_cells,
    blocks_of_tiles,
)
from eoray.grid.tiles import Cells, Tiles

__all__ = [
    "COARSE_TILE_M",
    "MAX_LAT",
    "MIN_LAT",
    "SOUTH_M",
    "TILE_M",
    "TOP_M",
    "USER_TILE_PX",
    "ZONE_COLS",
    "ZONE_ROWS",
    "Affine6",
    "Block",
    "Bounds",
    "Cells",
    "Lattice",
    "PixelWindow",
    "Tile",
    "Tiles",
    "Zone",
    "area_of_use",
    "blocks_of_cells",
    "blocks_of_tiles",
    "box_lonlat",
    "from_lonlat",
    "lattice_of",
    "misfit_px",
    "owner_mask",
    "pixel_area_m2",
    "relabel_south",
    "split_antimeridian",
    "tiles_of_geometry",
    "to_lonlat",
    "zone_boxes",
    "zone_of",
    "zone_of_epsg",
    "zone_of_name",
]
