"""Where chips lie: windows of a zone that hold labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eoray.chips.labels import LabelBurner, Polygon, to_classes
from eoray.grid import PixelWindow, Tile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Chip:
    """A window of a zone that holds labels, at one season."""

    zone: int
    row_off: int
    """Pixel row of the upper edge within the zone."""
    col_off: int
    size: int
    """Edge in pixels."""
    season: int
    """Position in the plan's seasons."""
    counts: tuple[int, ...]
    """Labelled pixels of class 1, 2, ..."""

    @property
    def window(self) -> PixelWindow:
        """The chip's pixels."""
        return PixelWindow(self.row_off, self.col_off, self.size, self.size)


def plan_chips(
    polygons: Sequence[Polygon],
    seasons: Sequence[Iterable[Tile]],
    n_classes: int,
    *,
    size: int,
    resolution_m: int = 10,
    border_m: float = 10.0,
) -> list[Chip]:
    """Cut the lattice of chips where polygons lie.

    Chips are aligned to multiples of their size in the zone's pixels, so that they tile the zone
    and every labelled pixel is in one chip.

    Args:
        polygons: Those of one side of a split.
        seasons: Tiles that hold something, by season; windows that touch none are left out.
        n_classes: Classes of the legend.
        size: Edge of a chip in pixels.
        resolution_m: Pixel in metres.
        border_m: As for LabelBurner.

    Returns:
        Chips with at least one labelled pixel, by season, zone, row, column.
    """
    held = [frozenset(tiles) for tiles in seasons]
    anywhere = frozenset().union(*held)
    class_of = np.zeros(max((p.number for p in polygons), default=0) + 1, np.uint8)
    for polygon in polygons:
        class_of[polygon.number] = polygon.class_id
    windows: list[tuple[int, PixelWindow, tuple[int, ...]]] = []
    for zone in sorted({p.zone for p in polygons}):
        burner = LabelBurner(polygons, zone, resolution_m=resolution_m, border_m=border_m)
        lattice = [
            window
            for window in _windows(polygons, zone, size, resolution_m)
            if _touches(window, zone, anywhere, resolution_m)
        ]
        for window, places in _burn_lattice(burner, lattice, size):
            classes = to_classes(places, class_of)
            counts = np.bincount(classes.ravel(), minlength=256)[:n_classes]
            if counts.any():
                windows.append((zone, window, tuple(int(c) for c in counts)))
    windows.sort(key=lambda found: (found[0], found[1].row_off, found[1].col_off))
    return [
        Chip(zone, window.row_off, window.col_off, size, number, counts)
        for number, tiles in enumerate(held)
        for zone, window, counts in windows
        if _touches(window, zone, tiles, resolution_m)
    ]


def _burn_lattice(
    burner: LabelBurner, windows: Iterable[PixelWindow], size: int
) -> Iterator[tuple[PixelWindow, np.ndarray]]:
    """Burn windows in squares of about 512 px: most of a burn's cost is handing over outlines."""
    edge = size * max(1, 512 // size)
    squares: dict[tuple[int, int], list[PixelWindow]] = {}
    for window in windows:
        squares.setdefault((window.row_off // edge, window.col_off // edge), []).append(window)
    for (row, col), members in squares.items():
        places = burner.burn(PixelWindow(row * edge, col * edge, edge, edge))
        for window in members:
            top, left = window.row_off - row * edge, window.col_off - col * edge
            yield window, places[top : top + size, left : left + size]


def _windows(
    polygons: Iterable[Polygon], zone: int, size: int, resolution_m: int
) -> Iterator[PixelWindow]:
    """Lattice windows that meet the bounding box of a polygon, in order, each once."""
    import shapely

    from eoray.grid import TOP_M

    outlines = shapely.from_wkb(np.array([p.wkb for p in polygons if p.zone == zone], object))
    x0, y0, x1, y1 = shapely.bounds(outlines).T
    edge = size * resolution_m
    first_col, last_col = np.floor(x0 / edge).astype(int), np.floor(x1 / edge).astype(int)
    first_row, last_row = (
        np.floor((TOP_M - y1) / edge).astype(int),
        np.floor((TOP_M - y0) / edge).astype(int),
    )
    cells = {
        (row, col)
        for r0, r1, c0, c1 in zip(first_row, last_row, first_col, last_col, strict=True)
        for row in range(r0, r1 + 1)
        for col in range(c0, c1 + 1)
    }
    for row, col in sorted(cells):
        yield PixelWindow(int(row) * size, int(col) * size, size, size)


def _touches(window: PixelWindow, zone: int, tiles: frozenset[Tile], resolution_m: int) -> bool:
    from eoray.grid import TILE_M, ZONE_COLS, ZONE_ROWS

    px = TILE_M // resolution_m
    rows = range(window.row_off // px, (window.row_off + window.height - 1) // px + 1)
    cols = range(window.col_off // px, (window.col_off + window.width - 1) // px + 1)
    return any(
        Tile(zone, r, c) in tiles
        for r in rows
        for c in cols
        if 0 <= r < ZONE_ROWS and 0 <= c < ZONE_COLS
    )
