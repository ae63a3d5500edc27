"""Requests and bytes of a cube, forecast from the headers of a few of its files.

The header of a COG lists the bytes of each internal tile. A few items, from the clearest to the
cloudiest, tell how many a tile of each band takes; which tiles a task reads is geometry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.cube.scenes import row_parts
from eoray.log import get_logger
from eoray.reading.cog import HEADER_BYTES, CogHeader
from eoray.reading.expect import expect_reads
from eoray.reading.explain import block_ranges, file_window, read_level, touched
from eoray.reading.gdal import io_pool
from eoray.reading.overviews import level_asset
from eoray.reading.ranges import UnsupportedFileError
from eoray.reading.reasons import detail_of
from eoray.reading.requests import Patience
from eoray.run.estimate import RULE_OF_THUMB, estimate_reads, scenes_of

if TYPE_CHECKING:
    from eoray.catalog.scene import BandAsset, Scene
    from eoray.cube.plan import SceneRow
    from eoray.grid import Bounds, Zone
    from eoray.run.planning import CubePlan

PROBE = 3
"""Items whose headers are read by default."""

_PATIENCE_S = 10.0
"""Of one header: a plan must not hang where the network is missing."""

_SCL_MARGIN_M = 120.0
"""Around a block, for masks that grow."""

_MOST_ROWS = 500
"""Rows that are reckoned, of more they stand for: a plan of a continent must not take an hour."""

type _Window = tuple[int, int, int, int]


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


def forecast_cube(plan: CubePlan, n_items: int, cpus: int) -> tuple[Forecast, float]:
    """Forecast the cube stage, from headers where they can be read.

    Args:
        plan: Of the cube stage.
        n_items: Items whose headers are read; 0 asks nobody.
        cpus: Cores that work on it.

    Returns:
        The forecast, and minutes by a rule of thumb.
    """
    rows, bands = plan.rows, plan.recipe.bands
    requests, size, minutes = estimate_reads(rows, bands, cpus)
    thumb = Forecast(requests, size, RULE_OF_THUMB)
    if not n_items:
        return thumb, minutes
    probe = probe_headers(rows, bands, n_items)
    if probe.failure:
        get_logger().warning("no forecast from headers", reason=probe.failure)
    found = forecast_reads(rows, bands, probe) if probe.headers else None
    return found or thumb, minutes


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
            read = partial(_header, scene, rows[0].block.zone)
            for asset, header in zip(assets, io_pool().map(read, assets), strict=True):
                if header is not None:
                    probe.headers[scene.item_id, asset.band] = header
                    probe.clouds[scene.item_id] = _cloud(scene)
        except OSError as error:
            probe.failure = detail_of(error)
            break
    return probe


def _header(scene: Scene, zone: Zone, asset: BandAsset) -> CogHeader | None:
    try:
        return read_level(scene, asset, zone, Patience(0, _PATIENCE_S))[0]
    except UnsupportedFileError:
        return None


def _cloud(scene: Scene) -> float:
    return 50.0 if math.isnan(scene.cloud_pct) else scene.cloud_pct


def forecast_reads(rows: Sequence[SceneRow], bands: Sequence[str], probe: Probe) -> Forecast | None:
    """Forecast the reads of rows.

    Of overlapping granules those are counted that pixels are taken of, judged by outlines
    (``reading.expect``). Of very many rows, some are reckoned.

    Args:
        rows: Of the cube stage.
        bands: Band ids.
        probe: Headers of some of their files.

    Returns:
        None where the probe lacks a band, as with files that GDAL reads.
    """
    wanted = [b for b in (*bands, "SCL") if any(a.band == b for a in rows[0].scenes[0].assets)]
    standins = {band: header for band in wanted if (header := probe.header(band)) is not None}
    if len(standins) < len(wanted):
        return None
    step = -(-len(rows) // _MOST_ROWS)
    some = rows[::step]
    requests, size = 0, 0.0
    seen: set[tuple[str, str]] = set()
    for row in some:
        for scene, asset, windows in _windows(row, standins):
            known = probe.headers.get((scene.item_id, asset.band))
            header = known or standins[asset.band]
            n_requests, n_bytes = _requests(header, windows)
            share = 1 if known else probe.share(asset.band, header, _cloud(scene))
            requests += n_requests
            size += n_bytes * share
            if n_requests and (scene.item_id, asset.band) not in seen:
                seen.add((scene.item_id, asset.band))
                requests += 1
                size += min(HEADER_BYTES, _end(header) * share)
    scale = len(rows) / len(some)
    return Forecast(round(requests * scale), round(size * scale), _words(probe))


def _windows(
    row: SceneRow, headers: Mapping[str, CogHeader]
) -> Iterator[tuple[Scene, BandAsset, tuple[_Window, ...]]]:
    """Windows of each file that a row reads, in the order of its parts."""
    found: dict[tuple[str, str], tuple[Scene, BandAsset, list[_Window]]] = {}
    lattice = row.block.lattice
    margin = _SCL_MARGIN_M * lattice.edge / lattice.edge_m
    for part in row_parts(row):
        for one in expect_reads(row.scenes, part, margin):
            extent = one.scene.extent.band
            for asset in one.scene.assets:
                bounds = one.classes if asset.band == extent else one.bands
                if asset.band not in headers or bounds is None:
                    continue
                window = _window(one.scene, asset, row.block.zone, bounds, headers[asset.band])
                key = one.scene.item_id, asset.band
                found.setdefault(key, (one.scene, asset, []))[2].append(window)
    for scene, asset, windows in found.values():
        yield scene, asset, tuple(windows)


def _window(
    scene: Scene, asset: BandAsset, zone: Zone, bounds: Bounds, header: CogHeader
) -> _Window:
    """(first row, end, first column, end) in the file, or in the overview that is read of it."""
    factor = round(header.transform[0] / asset.transform[0])
    if factor > 1:
        height, width = (-(-size // factor) for size in asset.shape)
        asset = level_asset(asset, (height, width))
    rows, cols = file_window(scene, asset, zone, bounds)
    return rows.start, rows.stop, cols.start, cols.stop


def _words(probe: Probe) -> str:
    clouds = sorted(probe.clouds.values())
    count = len(clouds)
    span = f"{clouds[0]:.0f} %" if count == 1 else f"{clouds[0]:.0f} to {clouds[-1]:.0f} %"
    items = f"{count} item" + ("s" if count > 1 else "")
    return f"headers of {len(probe.headers)} files of {items} with {span} cloud"


def _end(header: CogHeader) -> int:
    return max(offset + n for offset, n in zip(header.offsets, header.counts, strict=True))


@lru_cache(maxsize=65_536)
def _requests(header: CogHeader, windows: tuple[_Window, ...]) -> tuple[int, int]:
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
