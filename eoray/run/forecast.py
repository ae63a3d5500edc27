"""Requests and bytes of a cube, forecast from the headers of a few of its files.

The header of a COG lists the bytes of each internal tile. A few items, from the clearest to the
cloudiest, tell how many a tile of each band takes; which tiles a task reads is geometry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.cube.scenes import row_parts
from eoray.reading.cog import HEADER_BYTES, CogFile, CogHeader
from eoray.reading.explain import block_ranges, file_window, touched
from eoray.reading.gdal import io_pool
from eoray.reading.ranges import UnsupportedFileError
from eoray.reading.reasons import detail_of
from eoray.reading.requests import Patience
from eoray.run.estimate import scenes_of

if TYPE_CHECKING:
    from eoray.catalog.scene import BandAsset, Scene
    from eoray.cube.scenes import SceneRow

PROBE = 3
"""Items whose headers are read by default."""

_PATIENCE_S = 10.0
"""Of one header: a plan must not hang where the network is missing."""

_SCL_MARGIN_M = 120.0
"""Around a block, for masks that grow."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the cube stage would read."""

    requests: int
    bytes: int
    based_on: str
    """In words."""

    def to_dict(self) -> dict[str, Any]:
        """The forecast as plain JSON values."""
        return {"requests": self.requests, "bytes": self.bytes, "based_on": self.based_on}


@dataclass(slots=True)
class Probe:
    """Headers of some files of a plan."""

    headers: dict[tuple[str, str], CogHeader] = field(default_factory=dict)
    """By item id and band."""
    clouds: dict[str, float] = field(default_factory=dict)
    """Item id -> cloud in percent."""
    failure: str = ""
    """Why there are no more of them."""

    def header(self, band: str) -> CogHeader | None:
        """One that stands for all files of a band."""
        return next((h for (_, known), h in self.headers.items() if known == band), None)

    def share(self, band: str, header: CogHeader, cloud_pct: float) -> float:
        """Bytes of a band under so much cloud, as a part of those of one of its headers."""
        known = sorted(
            (self.clouds[item], sum(other.counts) / sum(header.counts))
            for (item, found), other in self.headers.items()
            if found == band
        )
        clouds, shares = np.array(known).T
        return float(np.interp(cloud_pct, clouds, shares))


def probe_headers(rows: Sequence[SceneRow], bands: Sequence[str], n_items: int) -> Probe:
    """Read headers of a few items, from the clearest to the cloudiest.

    Args:
        rows: Of the cube stage.
        bands: Band ids; what says where pixels are is read, too.
        n_items: At most so many.

    Returns:
        What could be read; the first failure ends it, since a plan does not wait.
    """
    scenes = sorted(scenes_of(rows), key=lambda s: (_cloud(s), s.item_id))
    places = {round(place) for place in np.linspace(0, len(scenes) - 1, min(n_items, len(scenes)))}
    probe = Probe()
    for place in sorted(places):
        scene = scenes[place]
        assets = [a for a in scene.assets if a.band in (*bands, "SCL")]
        try:
            for asset, header in zip(assets, io_pool().map(_header, assets), strict=True):
                if header is not None:
                    probe.headers[scene.item_id, asset.band] = header
                    probe.clouds[scene.item_id] = _cloud(scene)
        except OSError as error:
            probe.failure = detail_of(error)
            break
    return probe


def _header(asset: BandAsset) -> CogHeader | None:
    try:
        return CogFile(asset.href, None, Patience(0, _PATIENCE_S)).header
    except UnsupportedFileError:
        return None


def _cloud(scene: Scene) -> float:
    return 50.0 if math.isnan(scene.cloud_pct) else scene.cloud_pct


def forecast_reads(rows: Sequence[SceneRow], bands: Sequence[str], probe: Probe) -> Forecast | None:
    """Forecast the reads of rows.

    Args:
        rows: Of the cube stage.
        bands: Band ids.
        probe: Headers of some of their files.

    Returns:
        None where the probe lacks a band, as with files that GDAL reads. It is an upper bound: of
        overlapping granules only what is nearest is read.
    """
    wanted = [b for b in (*bands, "SCL") if any(a.band == b for a in rows[0].scenes[0].assets)]
    standins = {band: probe.header(band) for band in wanted}
    if not all(standins.values()):
        return None
    requests, size = 0, 0.0
    seen: set[tuple[str, str]] = set()
    for row in rows:
        for scene in row.scenes:
            for asset in (a for a in scene.assets if a.band in standins):
                known = probe.headers.get((scene.item_id, asset.band))
                header = known or standins[asset.band]
                if header is None:
                    continue
                n_requests, n_bytes = _reads(row, scene, asset, header)
                requests += n_requests
                size += n_bytes * (1 if known else probe.share(asset.band, header, _cloud(scene)))
                if n_requests and (scene.item_id, asset.band) not in seen:
                    seen.add((scene.item_id, asset.band))
                    requests += 1
                    size += min(HEADER_BYTES, _end(header))
    return Forecast(requests, round(size), _words(probe))


def _words(probe: Probe) -> str:
    clouds = sorted(probe.clouds.values())
    count = len(clouds)
    span = f"{clouds[0]:.0f} %" if count == 1 else f"{clouds[0]:.0f} to {clouds[-1]:.0f} %"
    items = f"{count} item" + ("s" if count > 1 else "")
    return f"headers of {len(probe.headers)} files of {items} with {span} cloud"


def _end(header: CogHeader) -> int:
    return max(offset + n for offset, n in zip(header.offsets, header.counts, strict=True))


def _reads(row: SceneRow, scene: Scene, asset: BandAsset, header: CogHeader) -> tuple[int, int]:
    """(requests, bytes) of one file in one task, part by part."""
    margin_m = _SCL_MARGIN_M if asset.band == "SCL" else 0.0
    windows = (
        file_window(scene, asset, row.block.zone, part.bounds, margin_m=margin_m)
        for part in row_parts(row)
    )
    return _requests(header, tuple((r.start, r.stop, c.start, c.stop) for r, c in windows))


@lru_cache(maxsize=65_536)
def _requests(header: CogHeader, windows: tuple[tuple[int, int, int, int], ...]) -> tuple[int, int]:
    """Dates repeat the windows of a granule; a tile that a part before read is kept."""
    requests, size = 0, 0
    known: set[tuple[int, int]] = set()
    for top, bottom, left, right in windows:
        blocks = set(touched(header.block, slice(top, bottom), slice(left, right))) - known
        known |= blocks
        ranges = block_ranges(header, sorted(blocks))
        requests += len(ranges)
        size += sum(length for _, length in ranges)
    return requests, size
