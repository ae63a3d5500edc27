"""A small census: a map and its truth on three tiles, one of them at a zone border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eoray.assess import MapTile
from eoray.grid import Tile

CLASSES = {1: "stable", 2: "change", 3: "water"}


@dataclass(frozen=True)
class Census:
    """Truth of every pixel, and a map that errs in a known way."""

    tiles: tuple[Tile, ...]
    resolution_m: int = 160

    def truth(self, tile: Tile) -> np.ndarray:
        rng = np.random.default_rng([1, tile.utm_zone, tile.col])
        px = 10_240 // self.resolution_m
        return rng.choice([1, 2, 3], (px, px), p=[0.83, 0.05, 0.12]).astype("u1")

    def read(self, tile: Tile) -> MapTile:
        rng = np.random.default_rng([2, tile.utm_zone, tile.col])
        truth = self.truth(tile)
        wrong = rng.random(truth.shape) < 0.1
        mapped = np.where(wrong, truth % 3 + 1, truth).astype("u1")
        mapped[:3] = 0
        return MapTile(mapped)
