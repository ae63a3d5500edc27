"""What a run would cost, from the plan alone: requests, bytes, tasks, minutes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.catalog.providers import SCL
from eoray.cube.meet import expand_ranges
from eoray.cube.plan import SceneRows
from eoray.grid import Block, Zone, lattice_of
from eoray.reading.overviews import halvings
from eoray.reading.window import asset_resolution_m

if TYPE_CHECKING:
    from eoray.catalog.scene import BandAsset, Scene
    from eoray.cube.plan import Reads, SceneRow

BYTES_PER_PIXEL = 2 / 1.6
"""uint16 after deflate with predictor: 1.4 to 2.0 times smaller by band."""

SCL_BYTES_PER_PIXEL = 0.1

RULE_OF_THUMB = "sizes of the files and a rule of thumb of 1.25 bytes a pixel"

INTERNAL_PX = 1024
"""Blocks of provider COGs; smaller files count as one request and a header."""

MB_PER_CORE_S = 60.0
"""Stored megabytes a core reads, harmonises and writes in a second, with GDAL; measured."""


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What a run would do."""

    scenes: int
    """Items that are read."""
    dates: int
    """Datatakes."""
    tiles: int
    tasks: int
    """Of the cube stage that are not done yet."""
    requests: int
    """Range requests, headers included."""
    bytes: int
    """Compressed bytes to read."""
    minutes: float
    """Of the cube stage on this machine."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Lineage, skipped items, stages, notes."""

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "scenes": self.scenes,
            "dates": self.dates,
            "tiles": self.tiles,
            "tasks": self.tasks,
            "requests": self.requests,
            "bytes": self.bytes,
            "minutes": round(self.minutes, 2),
            **self.details,
        }

    def text(self) -> str:
        """The report for a terminal."""
        head = [
            f"scenes    {self.scenes} in {self.dates} datatakes",
            f"tiles     {self.tiles}",
            f"tasks     {self.tasks}",
            f"requests  {self.requests}",
            f"bytes     {human_bytes(self.bytes)}",
            f"time      about {human_hours(self.minutes / 60)} for the cube on this machine",
        ]
        return "\n".join([*head, *(str(line) for line in self.details.get("notes", ()))])


def estimate_reads(
    rows: Sequence[SceneRow], bands: Sequence[str], cpus: int
) -> tuple[int, int, float]:
    """Forecast the reads of the cube stage.

    Returns:
        (range requests, compressed bytes, minutes).
    """
    wanted = frozenset((*bands, SCL))
    requests, size, pixels = 0, 0.0, 0.0
    for zone, scenes, which, blocks in _reads_of(rows):
        bounds = _bounds_for(zone, np.array([s.grid_epsg for s in scenes])[which], blocks)
        for reads, layer, assets in _layers_of(zone, scenes, which, wanted):
            area = _overlap_px(assets, bounds[:, reads]) / layer.factor**2
            area = area[area > 0]
            # as round() does, to even
            blocks_read = np.maximum(1, np.rint(area / INTERNAL_PX**2)).sum()
            requests += layer.n_files * (len(area) + int(blocks_read))
            pixels += float(area.sum()) * layer.n_bands
            size += float(area.sum()) * layer.bytes_per_pixel
    seconds = pixels * 2 / 1e6 / MB_PER_CORE_S / max(1, cpus)
    return requests, round(size), seconds / 60


def _reads_of(rows: Sequence[SceneRow]) -> Iterable[Reads]:
    """Which scenes are read for which blocks, zone by zone."""
    if isinstance(rows, SceneRows):
        return rows.reads()
    by_zone: dict[Any, list[tuple[Scene, Block]]] = {}
    for row in rows:
        by_zone.setdefault(row.block.zone, []).extend((scene, row.block) for scene in row.scenes)
    return [_gathered(zone, pairs) for zone, pairs in by_zone.items()]


def _gathered(zone: Zone, pairs: Sequence[tuple[Scene, Block]]) -> Reads:
    scenes = {scene.item_id: scene for scene, _ in pairs}
    number = dict(zip(scenes, range(len(scenes)), strict=True))
    blocks = [(block.row, block.col, block.n_rows, block.n_cols) for _, block in pairs]
    which = np.array([number[scene.item_id] for scene, _ in pairs])
    return zone, list(scenes.values()), which, np.array(blocks).T


@dataclass(frozen=True, slots=True)
class _Layer:
    """Files of a scene that lie on the same pixels."""

    n_files: int
    n_bands: int
    """Without SCL."""
    factor: int
    """By how much the overview is smaller that a coarse grid reads."""

    @property
    def bytes_per_pixel(self) -> float:
        """Of all the files together, compressed."""
        n_scl = self.n_files - self.n_bands
        return self.n_bands * BYTES_PER_PIXEL + n_scl * SCL_BYTES_PER_PIXEL


def _layers_of(
    zone: Zone, scenes: Sequence[Scene], which: np.ndarray, wanted: frozenset[str]
) -> Iterator[tuple[np.ndarray, _Layer, np.ndarray]]:
    """Layers of all scenes, those of one kind together.

    Yields:
        Positions of the reads that need them, the kind, and the grid of each read's layer in dims
        (a, c, e, f of the affine, height, width) x read.
    """
    lattice = lattice_of(zone)
    order = np.argsort(which, kind="stable")
    ends = np.searchsorted(which[order], np.arange(len(scenes) + 1))
    kinds: dict[_Layer, tuple[list[int], list[tuple[float, ...]]]] = {}
    for number, scene in enumerate(scenes):
        alike: dict[Any, list[BandAsset]] = {}
        for asset in scene.assets:
            if asset.band in wanted:
                alike.setdefault((asset.transform, asset.shape), []).append(asset)
        for ((a, _, c, _, e, f), shape), files in alike.items():
            n_bands = sum(asset.band != SCL for asset in files)
            level = lattice.level(asset_resolution_m(files[0]))
            layer = _Layer(len(files), n_bands, halvings(scene, files[0], zone, level))
            numbers, grids = kinds.setdefault(layer, ([], []))
            numbers.append(number)
            grids.append((a, c, e, f, *shape))
    for layer, (numbers, grids) in kinds.items():
        at, within = expand_ranges(ends[numbers], ends[np.array(numbers) + 1])
        yield order[within], layer, np.array(grids)[at].T


def _bounds_for(zone: Zone, epsg: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Bounds of blocks in the CRS of scenes; a granule of another zone is taken for its own.

    Args:
        zone: Of the blocks.
        epsg: CRS of the scene of each read.
        blocks: Dims (row, column, n_rows, n_cols) x read.

    Returns:
        Dims (x min, y min, x max, y max) x read.
    """
    lattice = lattice_of(zone)
    row, col, n_rows, n_cols = blocks
    left, top = lattice.x + col * lattice.edge, lattice.y - row * lattice.edge
    bounds = np.stack([left, top - n_rows * lattice.edge, left + n_cols * lattice.edge, top])
    bounds = bounds.astype(float)
    for target in np.unique(epsg).tolist():
        if target != lattice.epsg and lattice.is_home(target):
            reads = np.flatnonzero(epsg == target)
            known, at = np.unique(bounds[:, reads], axis=1, return_inverse=True)
            bounds[:, reads] = _transformed(lattice.epsg, target, known)[:, at.ravel()]
    return bounds


_DENSE = np.linspace(0.0, 1.0, 23)
"""Places along an edge; it bends between CRS."""


def _transformed(source: int, target: int, bounds: np.ndarray) -> np.ndarray:
    """Bounds in another CRS: those of points along the edges."""
    from eoray.reading.warp import transformer

    x0, y0, x1, y1 = (part[:, None] for part in bounds)
    across, down = x0 + (x1 - x0) * _DENSE, y0 + (y1 - y0) * _DENSE
    flat = np.zeros_like(across)
    x = np.concatenate([across, across, flat + x0, flat + x1], axis=1)
    y = np.concatenate([flat + y0, flat + y1, down, down], axis=1)
    x, y = transformer(source, target).transform(x, y)
    return np.stack([x.min(1), y.min(1), x.max(1), y.max(1)])


def _overlap_px(grids: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Pixels of files inside bounds of their CRS."""
    a, c, e, f, height, width = grids
    x0, y0, x1, y1 = bounds
    across = np.minimum(x1, c + a * width) - np.maximum(x0, c)
    down = np.minimum(y1, f) - np.maximum(y0, f + e * height)
    return np.asarray(np.maximum(across, 0) / a * np.maximum(down, 0) / -e)


def human_hours(hours: float) -> str:
    """A time for a reader, from seconds to days."""
    for limit, per_hour, unit in ((1 / 60, 3600, "s"), (1.0, 60, "min"), (48.0, 1, "h")):
        if hours < limit:
            return f"{hours * per_hour:.1f} {unit}"
    return f"{hours / 24:.1f} days"


def human_bytes(size: float) -> str:
    """A size for a reader, in decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} PB"


def scenes_of(rows: Sequence[SceneRow]) -> list[Scene]:
    """Distinct scenes of some rows, by id."""
    met = rows.scenes if isinstance(rows, SceneRows) else (s for row in rows for s in row.scenes)
    found = {scene.item_id: scene for scene in met}
    return [found[item_id] for item_id in sorted(found)]
