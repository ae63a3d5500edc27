"""Windows of scenes as the cube would hold them, read from their files when they are asked for.

The rows of the plan, the choice of granules, offsets, masks and fills are those of the cube stage,
so that a pixel read here is the pixel that a run writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from eoray.cube import resample
from eoray.cube.layout import TimeEntry
from eoray.cube.mask import mask_scl
from eoray.cube.plan import SceneRow
from eoray.cube.scenes import CubeRecipe, parts_of
from eoray.errors import ConfigError
from eoray.grid import Lattice, PixelWindow, Tile, Zone, lattice_of
from eoray.reading.cog import BlockMemory
from eoray.reading.mosaic import Mosaic, ReadOptions, read_mosaic
from eoray.reading.window import Engine
from eoray.sentinel2 import FILL, Mask, Quality

_FILLS = {"quality": int(Quality.NO_DATA), "scl": 0, "mask": int(Mask.INVALID)}


@dataclass(frozen=True, slots=True)
class SceneReader:
    """Scenes of one zone as a product that stands in no store; pickles into tasks of dask."""

    recipe: CubeRecipe
    zone: Zone
    entries: tuple[TimeEntry, ...]
    """In the order of time; ``index`` counts in it."""
    rows: tuple[tuple[SceneRow, ...], ...]
    """Rows of each entry."""
    key: str
    """What the scenes and their recipe are, as a digest."""
    engine: Engine | None = None
    raise_errors: bool = True
    retries: int = 2

    @property
    def token(self) -> tuple[str, ...]:
        """What is read, in a few words."""
        return self.key, "" if self.engine is None else self.engine.__name__, str(self.raise_errors)

    @property
    def lattice(self) -> Lattice:
        """Whose pixels are read."""
        return lattice_of(self.zone)

    def bands(self, level: int) -> tuple[str, ...]:
        """Bands of a level, in the order of the cube."""
        return tuple(b for b in self.recipe.bands if self.recipe.level(b) == level)

    def read(
        self,
        product: str,  # noqa: ARG002 - scenes are one product, in one zone
        zone: Zone,  # noqa: ARG002
        array: str = "reflectance",
        *,
        window: PixelWindow,
        resolution_m: int,
        index: Sequence[int] | np.ndarray | None = None,
    ) -> np.ndarray:
        """Read a window of one array.

        Args:
            product: Not used.
            zone: Not used.
            array: ``reflectance``, ``quality``, ``scl`` or ``mask``. Quality reads the files of
                all bands of its level, for it says where each of them was.
            window: Pixels of ``resolution_m``.
            resolution_m: A level of the lattice; SCL and mask have the coarsest only.
            index: Positions in ``entries``; None reads all.

        Returns:
            Values as the cube stores them, dims (time, ..., y, x).

        Raises:
            ReadError: A file cannot be read and ``raise_errors`` is on.
        """
        positions = range(len(self.entries)) if index is None else [int(i) for i in index]
        if array == "reflectance":
            return self._reflectance(self.bands(resolution_m), window, resolution_m, positions)
        shape = len(positions), window.height, window.width
        out = np.full(shape, _FILLS[array], np.uint8)
        read = self.bands(resolution_m) if array == "quality" else ()
        for place, position in enumerate(positions):
            for mosaic, tiles, halo in self._mosaics(position, window, resolution_m, read):
                for tile in tiles:
                    values = self._layer(mosaic, array, resolution_m, tile, halo)
                    _overlay(out[place], window, values, mosaic.frame, tile, resolution_m)
        return out

    def read_bands(
        self,
        product: str,  # noqa: ARG002
        zone: Zone,  # noqa: ARG002
        *,
        bands: Sequence[str],
        window: PixelWindow,
        resolution_m: int,
        index: Sequence[int] | np.ndarray,
    ) -> np.ndarray:
        """Read any bands on one lattice, resampled by the one rule of ``cube.resample``.

        Args:
            product: Not used.
            zone: Not used.
            bands: Band ids, in the order wanted.
            window: Pixels of ``resolution_m``.
            resolution_m: The pixel of the answer.
            index: Positions in ``entries``.

        Returns:
            Dims (time, band, y, x), int16 as stored, fill -32768.

        Raises:
            ConfigError: The scenes were opened without a band.
            ReadError: A file cannot be read and ``raise_errors`` is on.
        """
        missing = [b for b in bands if b not in self.recipe.bands]
        if missing:
            raise ConfigError(
                f"the scenes were opened without band {missing[0]}; they have "
                f"{', '.join(self.recipe.bands)}: name it in bands="
            )
        positions = [int(i) for i in index]

        def read(wanted: Sequence[str], window: PixelWindow, level: int) -> np.ndarray:
            return self._reflectance(wanted, window, level, positions)

        return resample.join_levels(read, bands, len(positions), window, resolution_m, self.lattice)

    def _reflectance(
        self, bands: Sequence[str], window: PixelWindow, level: int, positions: Sequence[int]
    ) -> np.ndarray:
        shape = len(positions), len(bands), window.height, window.width
        out = np.full(shape, FILL, np.int16)
        planes = [self.bands(level).index(band) for band in bands]
        for place, position in enumerate(positions):
            for mosaic, tiles, _ in self._mosaics(position, window, level, tuple(bands)):
                values = mosaic.reflectance[level][planes]
                for tile in tiles:
                    _overlay(out[place], window, values, mosaic.frame, tile, level)
        return out

    def _mosaics(
        self, position: int, window: PixelWindow, level: int, read: tuple[str, ...]
    ) -> Iterator[tuple[Mosaic, list[Tile], int]]:
        """Read the parts of the entry's rows that lie in a window, with their planned tiles."""
        lattice = self.lattice
        coarse = _coarse(window, lattice.coarse // level)
        for row in self.rows[position]:
            parts = [(p, t) for p, t in parts_of(row) if _meet(p.window(lattice.coarse), coarse)]
            memory = BlockMemory(reach=len({part.col for part, _ in parts}))
            for part, tiles in parts:
                halo = self._halo(tiles)
                options = ReadOptions(
                    bands=self.recipe.bands,
                    halo_px=halo,
                    warp=self.recipe.warp,
                    raise_errors=self.raise_errors,
                    retries=self.retries,
                    read=read,
                    engine=self.engine,
                )
                yield read_mosaic(row.scenes, part, options, memory, coarse), list(tiles), halo
                memory.next_part()

    def _halo(self, tiles: Sequence[Tile] | dict[Tile, str]) -> int:
        mask, lattice = self.recipe.mask, self.lattice
        return max(mask.halo_at(lattice.ground_m(tile.row, tile.col)) for tile in tiles)

    def _layer(self, mosaic: Mosaic, array: str, level: int, tile: Tile, halo: int) -> np.ndarray:
        """A layer over the frame of a mosaic; masks grow as the ground of the tile says."""
        if array == "quality":
            return mosaic.quality[level]
        height, width = (size - 2 * halo for size in mosaic.scl.shape)
        inside = np.s_[halo : halo + height, halo : halo + width]
        if array == "scl":
            return mosaic.scl[inside]
        ground = self.lattice.ground_m(tile.row, tile.col)
        return mask_scl(mosaic.scl, self.recipe.mask, ground)[inside]


def _coarse(window: PixelWindow, factor: int) -> PixelWindow:
    """Pixels of SCL that enclose a window of finer ones."""
    top, left = window.row_off // factor, window.col_off // factor
    bottom = -(-(window.row_off + window.height) // factor)
    right = -(-(window.col_off + window.width) // factor)
    return PixelWindow(top, left, bottom - top, right - left)


def _meet(one: PixelWindow, other: PixelWindow) -> bool:
    rows = _shared(one.row_off, one.height, other.row_off, other.height)
    cols = _shared(one.col_off, one.width, other.col_off, other.width)
    return rows[0] < rows[1] and cols[0] < cols[1]


def _shared(start: int, length: int, other: int, extent: int) -> tuple[int, int]:
    return max(start, other), min(start + length, other + extent)


def _overlay(
    out: np.ndarray,
    window: PixelWindow,
    values: np.ndarray,
    frame: PixelWindow,
    tile: Tile,
    level: int,
) -> None:
    """Put what a frame (in pixels of SCL) holds of a tile into a window of a level."""
    factor, own = tile.lattice.coarse // level, tile.window(level)
    top, left = frame.row_off * factor, frame.col_off * factor
    r0, r1 = _shared(own.row_off, own.height, top, frame.height * factor)
    c0, c1 = _shared(own.col_off, own.width, left, frame.width * factor)
    r0, r1 = _shared(r0, r1 - r0, window.row_off, window.height)
    c0, c1 = _shared(c0, c1 - c0, window.col_off, window.width)
    if r0 < r1 and c0 < c1:
        target = np.s_[
            ...,
            r0 - window.row_off : r1 - window.row_off,
            c0 - window.col_off : c1 - window.col_off,
        ]
        out[target] = values[..., r0 - top : r1 - top, c0 - left : c1 - left]
