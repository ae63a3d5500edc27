"""What a run would cost, from the plan alone: requests, bytes, tasks, minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from eoray.catalog.providers import SCL
from eoray.grid import Block, Bounds, Zone, lattice_of
from eoray.reading.overviews import halvings

if TYPE_CHECKING:
    from eoray.catalog.scene import BandAsset, Scene
    from eoray.cube.plan import SceneRow

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
    layers: dict[str, list[_Layer]] = {}
    requests, size, pixels = 0, 0.0, 0.0
    for row in rows:
        for scene in row.scenes:
            if scene.item_id not in layers:
                layers[scene.item_id] = _layers_of(scene, wanted, row.block.zone)
            bounds = _bounds_for(scene, row.block)
            for layer in layers[scene.item_id]:
                area = _overlap_px(layer.asset, bounds) / layer.factor**2
                if area == 0:
                    continue
                requests += layer.n_files * (1 + max(1, round(area / INTERNAL_PX**2)))
                pixels += area * layer.n_bands
                size += area * layer.bytes_per_pixel
    seconds = pixels * 2 / 1e6 / MB_PER_CORE_S / max(1, cpus)
    return requests, round(size), seconds / 60


@dataclass(frozen=True, slots=True)
class _Layer:
    """Files of a scene that lie on the same pixels."""

    asset: BandAsset
    """One of them."""
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


def _layers_of(scene: Scene, wanted: frozenset[str], zone: Zone) -> list[_Layer]:
    level = lattice_of(zone).coarse
    alike: dict[Any, list[BandAsset]] = {}
    for asset in scene.assets:
        if asset.band in wanted:
            alike.setdefault((asset.transform, asset.shape), []).append(asset)
    return [
        _Layer(
            files[0],
            len(files),
            sum(asset.band != SCL for asset in files),
            halvings(scene, files[0], zone, level),
        )
        for files in alike.values()
    ]


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


def human_hours(hours: float) -> str:
    """A time for a reader, from seconds to days."""
    for limit, per_hour, unit in ((1 / 60, 3600, "s"), (1.0, 60, "min"), (48.0, 1, "h")):
        if hours < limit:
            return f"{hours * per_hour:.1f} {unit}"
    return f"{hours / 24:.1f} days"


def human_bytes(size: float) -> str:
    """A size for a reader, in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def scenes_of(rows: Sequence[SceneRow]) -> list[Scene]:
    """Distinct scenes of some rows, by id."""
    found = {scene.item_id: scene for row in rows for scene in row.scenes}
    return [found[item_id] for item_id in sorted(found)]
