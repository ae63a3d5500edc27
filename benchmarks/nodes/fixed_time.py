"""The worker of ``run.py``, in a module of its own: Ray's workers import it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eoray.cube.layout import DONE, ProductSpec, TileResult, tile_px
from eoray.cube.plan import SceneRow


@dataclass(frozen=True)
class FixedTime:
    """Takes a row's time and returns its tiles, one inner chunk of each array filled."""

    seconds: float
    spans: str
    spec: ProductSpec

    def __call__(self, row: SceneRow) -> Iterator[TileResult]:
        """Sleep first, then return what is to be written, and note when it was."""
        begin = time.time()
        time.sleep(self.seconds)
        arrays = self._arrays()
        for tile, source in zip(row.tiles, row.sources, strict=True):
            yield TileResult(tile, row.entry, arrays, DONE, 128 * 128, 0, source)
        with (Path(self.spans) / f"{os.getpid()}").open("a") as file:
            file.write(f"{begin!r} {time.time()!r}\n")

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {}
        for group in self.spec.groups:
            px = tile_px(group.resolution_m)
            for array in group.arrays:
                values = np.full((*array.lead_shape, px, px), array.fill, array.dtype)
                values[..., :128, :128] = 1
                arrays[f"{group.resolution_m}m/{array.name}"] = values
        return arrays
