"""What reading a window of a file takes: its internal tiles and byte ranges, from its header."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eoray.grid import Bounds, Zone, lattice_of
from eoray.masking import mask
from eoray.reading.cog import CogFile, CogHeader
from eoray.reading.overviews import (
    factor_of,
    fitting_overview,
    level_asset,
    pixels_a_step,
    takes_overviews,
)
from eoray.reading.ranges import UnsupportedFileError, merge_ranges
from eoray.reading.reasons import detail_of
from eoray.reading.requests import Patience
from eoray.reading.warp import transformer
from eoray.reading.window import asset_resolution_m, is_congruent

if TYPE_CHECKING:
    from eoray.catalog.scene import BandAsset, Scene
    from eoray.grid import Tile

Range = tuple[int, int]
"""(offset, length) in bytes."""


@dataclass(frozen=True, slots=True)
class AssetReads:
    """The reads of one file for one tile."""

    item_id: str
    band: str
    href: str
    """Without secrets."""
    how: str
    """``copied`` or ``warped``, from an overview where it says so, or ``GDAL`` where that reads it;
    else why the header is unknown."""
    window: tuple[int, int, int, int]
    """(col_off, row_off, width, height) in pixels of the file, or of its overview."""
    blocks: tuple[tuple[int, int], ...] = ()
    """(row, col) of its internal tiles."""
    ranges: tuple[Range, ...] = ()
    """Requests, near ones merged; the header's is not among them."""

    def to_dict(self) -> dict[str, Any]:
        """The reads as plain JSON values."""
        return {
            "item": self.item_id,
            "band": self.band,
            "href": self.href,
            "how": self.how,
            "window": list(self.window),
            "blocks": [list(block) for block in self.blocks],
            "ranges": [list(span) for span in self.ranges],
            "bytes": sum(length for _, length in self.ranges),
        }


def explain_tile(
    scenes: Sequence[Scene], tile: Tile, bands: Sequence[str], patience: Patience | None = None
) -> list[AssetReads]:
    """Say what one tile of one datatake reads, from the headers of the files.

    A task reads several tiles together, and of a band only where its granule was chosen, so that
    neighbours share internal tiles and less may be read than is said here.

    Args:
        scenes: Items of the datatake.
        tile: Of the world grid, or of the user's.
        bands: Band ids.
        patience: How long a server may be asked for a header.
    """
    return [
        reads
        for scene in sorted(scenes, key=lambda s: s.item_id)
        for asset in sorted(scene.assets, key=lambda a: (a.band != scene.extent.band, a.band))
        if asset.band in (*bands, scene.extent.band)
        for reads in _explain(scene, asset, tile, patience or Patience(0, 10.0))
    ]


def _explain(
    scene: Scene, asset: BandAsset, tile: Tile, patience: Patience
) -> Iterator[AssetReads]:
    rows, cols = file_window(scene, asset, tile.zone, tile.bounds)
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return
    level = tile.lattice.level(asset_resolution_m(asset))
    blocks: tuple[tuple[int, int], ...] = ()
    ranges: tuple[Range, ...] = ()
    try:
        header, factor = read_level(scene, asset, tile.zone, patience)
    except UnsupportedFileError:
        how = "GDAL"
    except OSError as error:
        how = f"unknown: {detail_of(error)}"
    else:
        if factor > 1:
            asset = level_asset(asset, header.shape)
            rows, cols = file_window(scene, asset, tile.zone, tile.bounds)
        copied = scene.grid_epsg == tile.lattice.epsg and is_congruent(asset, level, tile.zone)
        how = "copied" if copied else "warped"
        if factor > 1:
            how += f" from the overview of 1:{factor}"
        blocks = tuple(touched(header.block, rows, cols))
        ranges = tuple(block_ranges(header, blocks))
    window = (cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
    yield AssetReads(scene.item_id, asset.band, mask(asset.href), how, window, blocks, ranges)


def read_level(
    scene: Scene, asset: BandAsset, zone: Zone, patience: Patience
) -> tuple[CogHeader, int]:
    """The header of what is read of a file on a lattice, and by how much it is smaller.

    Raises:
        UnsupportedFileError: GDAL has to read it.
        OSError: It cannot be read.
    """
    resolution_m = lattice_of(zone).level(asset_resolution_m(asset))
    if not takes_overviews(scene, asset, zone, resolution_m):
        return CogFile(asset.href, None, patience).header, 1
    file = CogFile(asset.href, None, patience, overviews=True)
    number = fitting_overview(file, pixels_a_step(scene, asset, zone, resolution_m))
    if number is None:
        return file.header, 1
    level = file.overviews[number]
    return level, factor_of(file.shape, level.shape)


def file_window(
    scene: Scene, asset: BandAsset, zone: Zone, bounds: Bounds, *, margin_m: float = 0.0
) -> tuple[slice, slice]:
    """(rows, cols) of a file that lie in bounds of a lattice's CRS; may be empty.

    Args:
        scene: The item.
        asset: One of its files.
        zone: Of the lattice.
        bounds: (west, south, east, north).
        margin_m: Around them, in units of the file's CRS.
    """
    lattice = lattice_of(zone)
    x0, y0, x1, y1 = bounds
    slack = 0
    if scene.grid_epsg != lattice.epsg:
        to_file = transformer(lattice.epsg, scene.grid_epsg)
        x0, y0, x1, y1 = to_file.transform_bounds(x0, y0, x1, y1, densify_pts=21)
        slack = 2
    a, _, c, _, e, f = asset.transform
    height, width = asset.shape
    top = math.floor((f - (y1 + margin_m)) / -e + 1e-6) - slack
    bottom = math.ceil((f - (y0 - margin_m)) / -e - 1e-6) + slack
    left = math.floor((x0 - margin_m - c) / a + 1e-6) - slack
    right = math.ceil((x1 + margin_m - c) / a - 1e-6) + slack
    return slice(max(0, top), min(height, bottom)), slice(max(0, left), min(width, right))


def touched(block: tuple[int, int], rows: slice, cols: slice) -> Iterator[tuple[int, int]]:
    """(row, col) of the internal tiles under a window; none where it is empty."""
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return
    for row in range(rows.start // block[0], -(-rows.stop // block[0])):
        for col in range(cols.start // block[1], -(-cols.stop // block[1])):
            yield row, col


def block_ranges(header: CogHeader, blocks: Sequence[tuple[int, int]]) -> list[Range]:
    """Requests for some internal tiles of a file."""
    numbers = [row * header.blocks_across + col for row, col in blocks]
    spans = [(header.offsets[n], header.counts[n]) for n in numbers if header.counts[n]]
    return [(offset, length) for offset, length, _ in merge_ranges(spans)]
