"""What a place of any size needs, from the orbits alone: no catalogue is asked for it.

A country over a year is a million items, and all land more than any catalogue should list for a
question of cost. How often each place is seen follows from the orbits; the rest is geometry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.catalog.orbit import DARK_DEG, SATELLITES, orbits_seeing, passes, sun_position
from eoray.cube.plan import block_numbers
from eoray.grid import Cells, Tiles, lattice_of, to_lonlat
from eoray.run.estimate import (
    BYTES_PER_PIXEL,
    INTERNAL_PX,
    MB_PER_CORE_S,
    SCL_BYTES_PER_PIXEL,
    human_bytes,
    human_hours,
)
from eoray.sentinel2 import native_resolution_m

if TYPE_CHECKING:
    from eoray.config import ClusterSection
    from eoray.grid import Tile

MAX_PLACES = 200
"""Tiles whose passes are counted; of more, so many are taken evenly."""

NODES = (8, 32, 100)

_STORED_BYTES_PER_PIXEL = 2 / 1.7
"""int16 in shards: blosc, zstd 1, bitshuffle (docs/store.md)."""

_GRANULE_M2 = 1e10
"""A granule has 100 km of its own."""

_START_HOURS = 0.02
"""Pods and Ray: 36 s on the test cluster (docs/kubernetes.md)."""


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """What some number of nodes would take."""

    nodes: int
    group: str
    """Of the run file's workers."""
    cpus: float
    """Of a node."""
    hours: float
    cost: float | None
    """By the run file's prices; None where one is missing."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        cost = None if self.cost is None else round(self.cost, 2)
        return {"nodes": self.nodes, "hours": round(self.hours, 2), "cost": cost}

    def cells(self) -> tuple[str, ...]:
        """Its row of :func:`cluster_lines`."""
        cost = "?" if self.cost is None else f"{self.cost:,.2f}"
        return str(self.nodes), f"{self.group}, {self.cpus:g} CPUs", human_hours(self.hours), cost


def cluster_lines(sizes: Sequence[ClusterSize]) -> list[str]:
    """A table for a terminal; no cost where no prices are given."""
    if not sizes:
        return []
    priced = any(size.cost is not None for size in sizes)
    rows = [("nodes", "of", "time", "cost by its prices"), *(size.cells() for size in sizes)]
    rows = [row if priced else row[:3] for row in rows]
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(n) for cell, n in zip(row, wide, strict=True)) for row in rows]
    return [f"cluster   {lines[0]}", *(f"{'':10}{line}" for line in lines[1:])]


@dataclass(frozen=True, slots=True)
class Scale:
    """What the cube of a place needs, were every pass of the satellites in the archive."""

    tiles: int
    passes: float
    """Over a tile in the period, in daylight; the mean."""
    scenes: int
    """Granules, about."""
    tasks: int
    requests: int
    bytes: int
    """Compressed bytes to read."""
    stored_bytes: int
    core_hours: float
    cluster: tuple[ClusterSize, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "tiles": self.tiles,
            "passes": round(self.passes, 1),
            "scenes": self.scenes,
            "tasks": self.tasks,
            "requests": self.requests,
            "bytes": self.bytes,
            "stored_bytes": self.stored_bytes,
            "core_hours": round(self.core_hours, 1),
            "cluster": [size.to_dict() for size in self.cluster],
        }

    def text(self) -> str:
        """For a terminal."""
        lines = [
            f"tiles     {self.tiles:,}",
            f"passes    {self.passes:.1f} over a tile, in daylight",
            f"scenes    about {self.scenes:,}",
            f"tasks     {self.tasks:,}",
            f"requests  {self.requests:,}",
            f"bytes     {human_bytes(self.bytes)} to read, {human_bytes(self.stored_bytes)} stored",
            f"time      {self.core_hours:,.0f} h of one CPU for the cube",
            "based on  the orbits of the satellites in service; no catalogue was asked",
        ]
        return "\n".join([*lines, *cluster_lines(self.cluster)])


def size_up(tiles: Sequence[Tile], bands: Sequence[str], start: datetime, end: datetime) -> Scale:
    """Tell what a cube needs, were every pass of the satellites in the archive.

    Args:
        tiles: Of the place, in order.
        bands: Band ids.
        start: First instant, UTC.
        end: After the last.

    Returns:
        Counts; tiles that lie at the edge of a swath count as seen where their middle is.
    """
    tiles = Tiles.of(tiles)
    lattice = lattice_of(tiles[0].zone)
    seen = float(np.mean([_count_passes(tile, start, end) for tile in _some(tiles)]))
    blocks = sum(_count_blocks(cells) for cells in tiles.parts)
    pixels = [lattice.px(lattice.level(native_resolution_m(band))) ** 2 for band in bands]
    scl = lattice.px(lattice.coarse) ** 2
    n_passes = seen * len(tiles)
    in_block = len(tiles) / blocks
    per_file = (1 + max(1.0, in_block * size / INTERNAL_PX**2) for size in (*pixels, scl))
    return Scale(
        tiles=len(tiles),
        passes=seen,
        scenes=round(n_passes * lattice.edge_m**2 / _GRANULE_M2),
        tasks=round(seen * blocks),
        requests=round(seen * blocks * sum(per_file)),
        bytes=round(n_passes * (sum(pixels) * BYTES_PER_PIXEL + scl * SCL_BYTES_PER_PIXEL)),
        stored_bytes=round(n_passes * sum(pixels) * _STORED_BYTES_PER_PIXEL),
        core_hours=n_passes * sum(pixels) * 2 / 1e6 / MB_PER_CORE_S / 3600,
    )


def _count_blocks(cells: Cells) -> int:
    return len(np.unique(block_numbers(cells)))


def _some(tiles: Sequence[Tile]) -> list[Tile]:
    places = np.linspace(0, len(tiles) - 1, min(MAX_PLACES, len(tiles)))
    return [tiles[round(place)] for place in places]


def _count_passes(tile: Tile, start: datetime, end: datetime) -> int:
    x0, y0, x1, y1 = tile.bounds
    (lon,), (lat,) = to_lonlat(tile.lattice, np.array([(x0 + x1) / 2]), np.array([(y0 + y1) / 2]))
    return sum(
        sun_position(at, lon, lat)[0] <= DARK_DEG
        for orbit in orbits_seeing(lon, lat)
        for satellite in SATELLITES
        for at in passes(satellite, orbit, lon, lat, start, end)
    )


def on_cluster(
    core_hours: float, cluster: ClusterSection, nodes: Iterable[int] = NODES
) -> list[ClusterSize]:
    """Tell how long so much work takes on some numbers of nodes, and what that costs.

    The first group of workers without GPUs is taken for the nodes; scheduling takes nothing of
    their time (``benchmarks/nodes/run.py``: 0.1 %).

    Args:
        core_hours: Of one CPU.
        cluster: Groups of workers with their CPUs and prices.
        nodes: Numbers of nodes; the largest that the group allows is added.

    Returns:
        One for each number, ascending; none where every group has GPUs.
    """
    group = next((group for group in cluster.workers if not group.gpus), None)
    if group is None:
        return []
    head, worker = cluster.head.price_per_hour, group.price_per_hour
    sizes = []
    for count in sorted({*nodes, group.max}):
        hours = core_hours / (count * group.cpu) + _START_HOURS
        cost = None if head is None or worker is None else hours * (head + count * worker)
        sizes.append(ClusterSize(count, group.name, group.cpu, hours, cost))
    return sizes
