"""What the stages of a cube cost this machine when each is alone: the ceiling of any pipeline."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scenery import OFFSET, Scenery

from eoray.cube.shard import encode_shard
from eoray.reading.cog import _decode, read_header
from eoray.reading.harmonise import Share, place_band
from eoray.reading.ranges import open_ranges

SHARD_PX = 1024


class _Costs(dict[str, float]):
    """Processor seconds of this process by stage."""

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Count what happens meanwhile."""
        began = time.process_time()
        yield
        self[stage] = self.get(stage, 0.0) + time.process_time() - began


def measure_ceiling(
    scenery: Scenery, bands: Sequence[str], n_dates: int, root: str
) -> dict[str, Any]:
    """Request, inflate and undo the predictor, place, encode shards, write: one after the other.

    What a cube also needs (scene classification, choice of granules, masks, quality, digests,
    ledger, commits) is not in it, nor is any wait, so no reader can reach it.

    Args:
        scenery: The archive.
        bands: Encoded together, as the cube stores them.
        n_dates: Of the case; those drawn are measured, and the rest counted as they.
        root: URL of the archive.

    Returns:
        Processor seconds by stage, and MB of pixels per second of wall time if all cores did
        nothing but these stages; the same for decoding and encoding alone.
    """
    cores = os.cpu_count() or 1
    costs, mb = _Costs(), 0.0
    with ThreadPoolExecutor(cores) as pool, tempfile.TemporaryDirectory() as folder:
        for date in range(min(n_dates, scenery.n_drawn)):
            cube = np.stack([_read(scenery, root, date, band, pool, costs) for band in bands])
            mb += cube.nbytes / 1e6
            with costs.of("encode"):
                shards = list(pool.map(lambda shard: encode_shard(shard, 0), _shards(cube)))
            with costs.of("write"):
                list(pool.map(_writer(Path(folder)), enumerate(shards)))
    both = costs["decode"] + costs["encode"]
    return {
        "seconds": round(sum(costs.values()) / cores, 3),
        "stage_cpu_seconds": {stage: round(seconds, 2) for stage, seconds in costs.items()},
        "mb": round(mb, 1),
        "mb_per_s": round(cores * mb / sum(costs.values()), 1),
        "decode_and_encode_mb_per_s": round(cores * mb / both, 1),
    }


def _read(
    scenery: Scenery, root: str, date: int, band: str, pool: ThreadPoolExecutor, costs: _Costs
) -> np.ndarray:
    """A band of a date, dims (y, x), int16, each of its tiles taken through the stages."""
    path = scenery.path(date, band)
    with costs.of("request"):
        ranges = open_ranges(f"{root}/{path.relative_to(scenery.folder)}")
        header = read_header(ranges)
        spans = list(zip(header.offsets, header.counts, strict=True))
        found = list(ranges.get(spans))
    with costs.of("decode"):
        list(pool.map(lambda data: _decode(header, data, 0, 0).dtype, found))
    tiles = [_decode(header, data, 0, 0).copy() for data in found]
    height, width = header.block
    out = np.empty(header.shape, np.int16)
    share = Share(np.zeros([n // 2 for n in header.shape], np.int16), 0, 2)
    out.fill(0)  # pages that are there: the cube stage's are used again
    across = header.blocks_across

    def place(number: int) -> None:
        corner = number // across * height, number % across * width
        place_band(tiles[number], OFFSET, share, corner, out)

    with costs.of("place"):
        list(pool.map(place, range(len(tiles))))
    return out


def _shards(cube: np.ndarray) -> list[np.ndarray]:
    edge = range(0, cube.shape[-1], SHARD_PX)
    return [cube[:, i : i + SHARD_PX, j : j + SHARD_PX] for i in edge for j in edge]


def _writer(folder: Path) -> Callable[[tuple[int, bytes | None]], None]:
    def write(shard: tuple[int, bytes | None]) -> None:
        number, data = shard
        (folder / str(number)).write_bytes(data or b"")

    return write
