"""What a run would cost, from the plan alone: requests, bytes, tasks, minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from eoray.grid import Block, Bounds

if TYPE_CHECKING:
    from eoray.catalog.scene import BandAsset, Scene
    from eoray.cube.scenes import SceneRow

_BYTES_PER_PIXEL = 2 / 1.6
"""uint16 after deflate with predictor: 1.4 to 2.0 times smaller by band."""

_SCL_BYTES_PER_PIXEL = 0.1

RULE_OF_THUMB = "sizes of the files and a rule of thumb of 1.25 bytes a pixel"

_INTERNAL_PX = 1024
"""Blocks of provider COGs; smaller files count as one request and a header."""

_MB_PER_CORE_S = 60.0
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
            f"bytes     {_human(self.bytes)}",
            f"time      about {self.minutes:.1f} min for the cube on this machine",
        ]
        return "\n".join([*head, *(str(line) for line in self.details.get("notes", ()))])


def estimate_reads(
    rows: Sequence[SceneRow], bands: Sequence[str], cpus: int
) -> tuple[int, int, float]:
    """Forecast the reads of the cube stage.

    Returns:
        (range requests, compressed bytes, minutes).
    """
    requests, size, pixels = 0, 0.0, 0.0
    for row in rows:
        for scene in row.scenes:
            for asset in (a for a in scene.assets if a.band in (*bands, "SCL")):
                band = asset.band
                area = _overlap_px(asset, _bounds_for(scene, row.block))
                if area == 0:
                    continue
                requests += 1 + max(1, round(area / _INTERNAL_PX**2))
                pixels += 0 if band == "SCL" else area
                size += area * (_SCL_BYTES_PER_PIXEL if band == "SCL" else _BYTES_PER_PIXEL)
    seconds = pixels * 2 / 1e6 / _MB_PER_CORE_S / max(1, cpus)
    return requests, round(size), seconds / 60


def _bounds_for(scene: Scene, block: Block) -> Bounds:
    """Bounds of a block in the CRS of a scene; a granule of another zone is taken for its own."""
    lattice = block.lattice
    if scene.grid_epsg == lattice.epsg or not lattice.is_home(scene.grid_epsg):
        return block.bounds
    return _transformed(lattice.epsg, scene.grid_epsg, block.bounds)


@lru_cache(maxsize=1024)
def _transformed(source: int, target: int, bounds: Bounds) -> Bounds:
    from eoray.reading.warp import transformer

    x0, y0, x1, y1 = transformer(source, target).transform_bounds(*bounds, densify_pts=21)
    return x0, y0, x1, y1


def _overlap_px(asset: BandAsset, bounds: Bounds) -> float:
    """Pixels of a file inside bounds of its CRS."""
    a, _, c, _, e, f = asset.transform
    height, width = asset.shape
    x0, y0, x1, y1 = bounds
    across = min(x1, c + a * width) - max(x0, c)
    down = min(y1, f) - max(y0, f + e * height)
    if across <= 0 or down <= 0:
        return 0.0
    return across / a * down / -e


def _human(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def scenes_of(rows: Sequence[SceneRow]) -> list[Scene]:
    """Distinct scenes of some rows, by id."""
    found = {scene.item_id: scene for row in rows for scene in row.scenes}
    return [found[item_id] for item_id in sorted(found)]
