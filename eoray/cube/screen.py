"""The ``screen`` product: what a pixel's own dates say about its mask.

The mask of a date stays what it is. The screen stands beside it, one entry per datatake, and
whoever asks for ``mask: scl+screen`` gets both: dates that stand out are not clear, dates on which
a bright target looks as always are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.cube.layout import DONE, NO_SCENE, ArraySpec, GroupSpec, ProductSpec, TileResult, tile_px
from eoray.cube.mask import MaskRecipe
from eoray.cube.read import SCREEN, CubeReader, CubeSource, PixelWindow, open_reader
from eoray.cube.scenes import PRODUCT
from eoray.cube.screening import (
    CLEAR,
    CLOUD,
    GROWN,
    OTHER,
    SHADOW,
    UNUSABLE,
    Dates,
    ScreenRule,
    disc,
    release_grown,
    rescue_targets,
    screen_dates,
)
from eoray.grid import Zone, lattice_of
from eoray.sentinel2 import FILL, Mask, Screen
from eoray.sentinel2 import UNUSABLE as UNUSABLE_BITS

if TYPE_CHECKING:
    from eoray.cube.spans import SpanRow

METHOD = "temporal/1"
"""Name and version; part of the parameters of what is made with it."""

BANDS = ("B02", "B04", "B08")
"""What is compared. B8A stands in for B08."""

_STRIP_BYTES = 96 << 20
"""Reflectance of all dates of a strip."""

_DATES_AT_ONCE = 16
"""Dates read together: averaging 10 m to 20 m takes several times their bytes."""


@dataclass(frozen=True, slots=True)
class ScreenRecipe:
    """How dates are judged."""

    mask: MaskRecipe
    """How the mask grew, to take back what grew from a rescued pixel."""
    rule: ScreenRule = field(default_factory=ScreenRule)

    def parameters(self) -> dict[str, Any]:
        """As stored attributes."""
        return {"method": METHOD, "mask": self.mask.name, **self.rule._asdict()}


def screen_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """Blue, red and near infrared of a cube; fewer than three where it lacks one."""
    found = [band for band in BANDS[:2] if band in bands]
    nir = next((band for band in ("B08", "B8A") if band in bands), None)
    return (*found, nir) if nir else tuple(found)


def screen_product(recipe: ScreenRecipe, reader: CubeReader, zones: Sequence[Zone]) -> ProductSpec:
    """Layout of the product: bits at the level of the mask."""
    array = ArraySpec(
        "screen",
        "uint8",
        attrs={
            "long_name": "what the pixel's other dates say about the mask; 0 agrees with it",
            "flag_masks": [int(bit) for bit in Screen],
            "flag_meanings": " ".join(str(bit.name).lower() for bit in Screen),
        },
    )
    parameters = {**recipe.parameters(), "of": reader.attrs(PRODUCT)}
    group = GroupSpec(lattice_of(zones[0]).coarse, (array,))
    return ProductSpec(SCREEN, (group,), parameters, title="Temporal screen of the mask")


@dataclass(frozen=True, slots=True)
class ScreenWorker:
    """Judges half a year of a tile, strip by strip."""

    source: CubeSource
    recipe: ScreenRecipe

    def __call__(self, row: SpanRow) -> Iterator[TileResult]:
        """Judge the dates of a row; ``n_valid`` counts the pixels observed."""
        reader = open_reader(self.source)
        (tile,) = row.tiles
        level = tile.lattice.coarse
        px = tile_px(level, tile.zone)
        out = np.zeros((row.stop - row.first, px, px), np.uint8)
        n_valid = np.zeros(len(out), int)
        ground_m = tile.lattice.ground_m(tile.row, tile.col)
        halo = self.recipe.mask.halo_at(ground_m)
        height = _strip_rows(len(row.keys), px)
        dates = Dates(np.array(row.days, np.int64), row.first, row.stop)
        whole = tile.window(level)
        for top in range(0, px, height):
            rows = min(height, px - top)
            kept = PixelWindow(whole.row_off + top, whole.col_off, rows, px)
            values, state = read_strip(reader, tile.zone, kept.buffered(halo), row.positions)
            bits = judge_strip(values, state, dates, self.recipe, ground_m)
            inside = np.s_[:, halo : halo + rows, halo : halo + px]
            out[:, top : top + rows] = bits[inside]
            seen = state[row.first : row.stop][inside] != UNUSABLE
            n_valid += seen.sum(axis=(1, 2))
        for i, key in enumerate(row.written):
            yield TileResult(
                tile=tile,
                entry=key,
                arrays={f"{level}m/screen": out[i]},
                status=DONE if n_valid[i] else NO_SCENE,
                n_valid=int(n_valid[i]),
                n_failed=0,
                source=f"{len(row.keys)} entries of {PRODUCT}",
            )


def _strip_rows(n_time: int, px: int) -> int:
    """Rows held at once: whole rows of chunks, as many as the memory allows."""
    rows = _STRIP_BYTES // max(n_time * 3 * 2 * px, 1) // 64 * 64
    return int(min(max(rows, 64), px))


def read_strip(
    reader: CubeReader, zone: Zone, window: PixelWindow, positions: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Read what the screen looks at.

    Args:
        reader: The store.
        zone: Of the ``s2`` product.
        window: Pixels of the mask's level; outside of what was read, nothing is usable.
        positions: Stored positions of the dates, in order of time.

    Returns:
        Blue, red and near infrared, dims (time, 3, y, x), int16; and states as
        ``screening`` names them, dims (time, y, x), uint8.
    """
    level = lattice_of(zone).coarse
    bands = screen_bands(reader.bands(PRODUCT, zone))
    values = np.empty((len(positions), len(bands), window.height, window.width), np.int16)
    state = np.empty((len(positions), window.height, window.width), np.uint8)
    for start in range(0, len(positions), _DATES_AT_ONCE):
        some = slice(start, start + _DATES_AT_ONCE)
        where: dict[str, Any] = {"window": window, "resolution_m": level, "index": positions[some]}
        values[some] = reader.read_bands(PRODUCT, zone, bands=bands, **where)
        mask = reader.read(PRODUCT, zone, "mask", **where)
        quality = reader.read(PRODUCT, zone, "quality", **where)
        whole = (values[some] != FILL).all(axis=1) & ((quality & UNUSABLE_BITS) == 0)
        state[some] = _states(mask, whole)
    return values, state


def _states(mask: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """What the mask says, as the kernels' states."""
    of_mask = np.full(256, OTHER, np.uint8)
    for bits in range(256):
        if bits & Mask.CLOUD:
            of_mask[bits] = CLOUD
        elif bits & Mask.SHADOW:
            of_mask[bits] = SHADOW
    of_mask[0], of_mask[int(Mask.DILATED)] = CLEAR, GROWN
    return np.where(usable, of_mask[mask], np.uint8(UNUSABLE))


def judge_strip(
    values: np.ndarray,
    state: np.ndarray,
    dates: Dates,
    recipe: ScreenRecipe,
    ground_m: tuple[float, float],
) -> np.ndarray:
    """Judge a strip with its halo.

    Args:
        values: From :func:`read_strip`.
        state: The same.
        dates: Days, and which dates to write.
        recipe: Thresholds, and how the mask grew.
        ground_m: (y, x) metres under a pixel.

    Returns:
        ``Screen`` bits of the dates to write, dims (time, y, x), uint8. Within the halo the
        release of grown pixels is not complete.
    """
    out = np.zeros((dates.stop - dates.first, *state.shape[1:]), np.uint8)
    seen = (state != UNUSABLE).any(axis=0)
    if seen.any():
        box = _extent(seen.any(axis=1)), _extent(seen.any(axis=0))
        seen_values, seen_state = (
            np.ascontiguousarray(stack[(..., *box)]) for stack in (values, state)
        )
        out[(..., *box)] = _judge(seen_values, seen_state, dates, recipe, ground_m)
    return out


def _extent(any_of: np.ndarray) -> slice:
    """From the first to the last True."""
    found = np.flatnonzero(any_of)
    return slice(int(found[0]), int(found[-1]) + 1)


def _judge(
    values: np.ndarray,
    state: np.ndarray,
    dates: Dates,
    recipe: ScreenRecipe,
    ground_m: tuple[float, float],
) -> np.ndarray:
    """Run the kernels; rescued pixels are entered into ``state``."""
    rescue_targets(values, state, recipe.rule)
    reach = disc(recipe.mask.cloud_m, ground_m), disc(recipe.mask.shadow_m, ground_m)
    release_grown(state, *reach)
    out = np.zeros((dates.stop - dates.first, *state.shape[1:]), np.uint8)
    screen_dates(values, state, dates, recipe.rule, out)
    return out


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache on disk."""
    values, state = np.zeros((1, 3, 1, 1), np.int16), np.full((1, 1, 1), CLEAR, np.uint8)
    dates = Dates(np.zeros(1, np.int64), 0, 1)
    judge_strip(values, state, dates, ScreenRecipe(MaskRecipe()), (20.0, 20.0))
