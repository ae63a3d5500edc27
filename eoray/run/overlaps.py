"""How far the granules of a cube's datatakes differ where they overlap, by sampling."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import EorayError
from eoray.reading.overlaps import Overlap, compare_granules, pairs_of
from eoray.run.source_check import places_of

if TYPE_CHECKING:
    from eoray.catalog.scene import Scene
    from eoray.grid import Tile


def measure_overlaps(url: str, *, samples: int, seed: int = 0) -> tuple[list[Overlap], list[str]]:
    """Read overlaps of a cube's granules from the source, one for each datatake.

    Args:
        url: The store folder.
        samples: Most datatakes that are read.
        seed: Chooses them, and their tiles.

    Returns:
        Overlaps in order of their datatakes, and what could not be read now.

    Raises:
        StoreError: There is no cube.
    """
    reader = CubeReader(CubeSource(url))
    chance = random.Random(seed)  # noqa: S311 - a sample, no secret
    places: dict[str, list[tuple[Scene, Scene, Tile]]] = {}
    for row, tile in places_of(url, reader):
        for pair in pairs_of(row.scenes, tile):
            places.setdefault(row.entry, []).append((*pair, tile))
    found, unread = [], []
    for entry in sorted(chance.sample(sorted(places), min(samples, len(places)))):
        first, second, tile = chance.choice(places[entry])
        bands = [b for m in tile.lattice.levels for b in reader.bands("s2", tile.zone, m)]
        try:
            found.append(compare_granules(first, second, tile, bands))
        except (EorayError, OSError) as error:
            unread.append(f"{tile.id} at {entry}: {' '.join(str(error).split())[:200]}")
    return [one for one in found if one.pixels], unread
