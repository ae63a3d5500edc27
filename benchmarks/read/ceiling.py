"""How fast this machine decodes and encodes the bytes of a case that lie in memory already."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from scenery import Scenery

from eoray.cube.shard import encode_shard
from eoray.reading.cog import _decode, read_header
from eoray.reading.ranges import open_ranges

SHARD_PX = 1024


def measure_ceiling(scenery: Scenery, bands: Sequence[str], n_dates: int) -> dict[str, Any]:
    """Inflate and undo the predictor, then encode shards, on all cores, nothing else.

    What a cube also needs (requests, placing pixels, offsets, scene classification, masks, quality,
    writing, committing) is not in it, so no reader can reach it.

    Args:
        scenery: The archive.
        bands: Encoded together, as the cube stores them.
        n_dates: Of the case; those drawn are measured, and the rest counted as they.

    Returns:
        MB of pixels per second of wall time.
    """
    cores = os.cpu_count() or 1
    decode_s = encode_s = mb = 0.0
    dates = min(n_dates, scenery.n_drawn)
    with ThreadPoolExecutor(cores) as pool:
        for date in range(dates):
            planes, jobs = [], []
            for band in bands:
                ranges = open_ranges(str(scenery.path(date, band)))
                header = read_header(ranges)
                spans = list(zip(header.offsets, header.counts, strict=True))
                jobs += [(header, bytes(data)) for data in ranges.get(spans)]
            began = time.perf_counter()
            list(pool.map(lambda job: _decode(*job, 0, 0).dtype, jobs))
            decode_s += time.perf_counter() - began
            mb += sum(header.block[0] * header.block[1] * 2 for header, _ in jobs) / 1e6
            across = header.blocks_across
            for number in range(len(bands)):
                part = jobs[number * across**2 : (number + 1) * across**2]
                tiles = [_decode(*job, 0, 0).astype(np.int16) for job in part]
                rows = [np.hstack(tiles[i : i + across]) for i in range(0, len(tiles), across)]
                planes.append(np.vstack(rows))
            cube = np.stack(planes)
            edge = cube.shape[-1]
            places = [(i, j) for i in range(0, edge, SHARD_PX) for j in range(0, edge, SHARD_PX)]

            def encode(place: tuple[int, int], cube: np.ndarray = cube) -> int:
                i, j = place
                shard = cube[:, i : i + SHARD_PX, j : j + SHARD_PX]
                return len(encode_shard(np.ascontiguousarray(shard), 0) or b"")

            began = time.perf_counter()
            list(pool.map(encode, places))
            encode_s += time.perf_counter() - began
    return {
        "seconds": round(decode_s + encode_s, 3),
        "decode_mb_per_s": round(mb / decode_s, 1),
        "encode_mb_per_s": round(mb / encode_s, 1),
        "mb": round(mb, 1),
        "mb_per_s": round(mb / (decode_s + encode_s), 1),
    }
