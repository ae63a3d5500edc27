"""Dates of a real picture that were moved by known parts of a pixel, through the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eoray.change.stage import ChangeRow, drop_displaced
from eoray.cube.check import check_cube
from eoray.cube.layout import DONE, NO_SCENE, TileResult
from eoray.cube.mask import MaskRecipe
from eoray.cube.read import CubeSource
from eoray.cube.registration import (
    RegistrationWorker,
    read_registration,
    registration_band,
    registration_product,
)
from eoray.cube.scenes import CubeRecipe, count_tile, scene_product
from eoray.cube.spans import SpanRow, plan_spans
from eoray.errors import ConfigError
from eoray.grid import Tile
from eoray.sentinel2 import FILL, Mask, Quality
from eoray.testing.pixels import resample

TILE = Tile(32, 400, 50)
EDGE = 320
"""Pixels of the tile that were observed."""
MOVED = [(0.0, 0.0), (0.2, -0.1), (-0.3, 0.2), (0.1, 0.3), (-0.1, -0.3), (0.3, 0.1), (1.1, -0.9)]
CLOUDED = 7
"""Place of a date without a clear pixel."""


@dataclass(frozen=True)
class Made:
    """A store with the moved dates, measured."""

    store: Any
    keys: list[str]
    row: SpanRow


def scene(picture: np.ndarray, *, is_clear: bool) -> dict[str, np.ndarray]:
    values = np.full((1, 1024, 1024), FILL, np.int16)
    values[0, 100 : 100 + EDGE, 60 : 60 + EDGE] = picture
    quality = np.where(values[0] == FILL, np.uint8(Quality.NO_DATA), np.uint8(0))
    mask = np.where(quality[::2, ::2] > 0, np.uint8(Mask.INVALID), np.uint8(0))
    if not is_clear:
        mask[mask == 0] = int(Mask.CLOUD)
    return {
        "10m/reflectance": values,
        "10m/quality": quality,
        "20m/quality": quality[::2, ::2].copy(),
        "20m/scl": np.zeros_like(mask),
        "20m/mask": mask,
    }


@pytest.fixture(scope="module")
def made(
    store_at: Callable[..., Any],
    make_entry: Any,
    shared_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Made:
    """Read it only: all tests share it."""
    import rasterio

    folder = tmp_path_factory.mktemp("moved")
    (path,) = (shared_data / "sentinel2" / "majortom_48QUE").glob("*/B08.tif")
    with rasterio.open(path) as file:
        ground = file.read(1, window=((0, EDGE + 16), (300, 316 + EDGE))).astype(np.float32)
    recipe = CubeRecipe(("B08",), MaskRecipe(), {"mixed": False}, "toy")
    store = store_at(folder, scene_product(recipe))
    entries = [make_entry(day + 1, refined=1) for day in range(len(MOVED) + 1)]
    store.append(entries[4:])  # stored in another order than that of time
    store.append(entries[:4])
    for place, one in enumerate(entries):
        down, right = MOVED[place] if place < len(MOVED) else (0.0, 0.0)
        picture = np.rint(resample(ground[None], down, right, 8, blur=True)[0])
        arrays = scene(picture, is_clear=place != CLOUDED)
        n_valid, n_masked = count_tile(arrays, TILE)
        source = f"scene {place}"
        store.write(TileResult(TILE, one.key, arrays, DONE, n_valid, 0, source, n_masked=n_masked))
    reader = store.reader()
    entries_of, (row,) = plan_spans(reader, [TILE], n_reference=36)
    measured = store_at(folder, registration_product(reader, [32]))
    measured.append(entries_of[32])
    worker = RegistrationWorker(CubeSource(store.url, reader.snapshot))
    measured.write(*worker(row))
    return Made(measured, [one.key for one in entries], row)


def test_shifts_are_those_that_were_made(made: Made) -> None:
    reader = made.store.reader()
    shown = {
        name: reader.read(
            "registration", 32, name, window=TILE.window(10_240), resolution_m=10_240, index=None
        )[:, 0, 0]
        for name in ("shift_x", "shift_y", "n_windows")
    }
    at = {key: i for i, key in enumerate(reader.ledger("registration", 32).entries)}
    order = [at[key] for key in made.keys[: len(MOVED)]]
    east, north = shown["shift_x"][order] / 10, shown["shift_y"][order] / 10
    down, right = np.array(MOVED).T
    # the reference lies where its dates lie in the middle: one constant for all
    near = slice(0, 6)
    east -= np.median((east - right)[near])
    north -= np.median((north + down)[near])
    np.testing.assert_allclose(east, right, atol=0.1)
    np.testing.assert_allclose(north, -down, atol=0.1)
    clouded = at[made.keys[CLOUDED]]
    assert np.isnan(shown["shift_x"][clouded])
    assert shown["n_windows"][clouded] == 0
    ledger = reader.ledger("registration", 32)
    assert ledger.get(TILE, made.keys[CLOUDED]).status == NO_SCENE
    assert ledger.get(TILE, made.keys[0]).n_valid == 1


def test_the_store_reads_back_as_written(made: Made) -> None:
    assert check_cube(made.store.url).ok


def test_only_dates_surely_beyond_the_limit_are_left_out(made: Made) -> None:
    found = read_registration(made.store.reader(), TILE, made.keys)
    assert np.flatnonzero(found.beyond(0.5)).tolist() == [6]
    assert not found.beyond(2.0).any()
    unsure = read_registration(made.store.reader(), TILE, [*made.keys, "never measured"])
    assert np.isnan(unsure.shift_m[[CLOUDED, -1]]).all()


def test_change_does_without_a_displaced_date(made: Made) -> None:
    n = len(made.keys)
    row = ChangeRow(
        key="all/t",
        entry="all",
        tiles=(TILE,),
        scenes=tuple(made.keys),
        positions=tuple(range(n)),
        days=tuple(range(n)),
        orbits=(1,) * n,
        steps=(),
    )
    kept = drop_displaced(made.store.reader(), row, 0.5)
    assert kept.days == (0, 1, 2, 3, 4, 5, 7)
    assert kept.scenes == tuple(key for i, key in enumerate(made.keys) if i != 6)
    assert len(drop_displaced(made.store.reader(), row, 1e-6).days) >= 1


def test_a_cube_without_bands_has_nothing_to_compare() -> None:
    assert registration_band(["B02", "B8A"]) == "B8A"
    with pytest.raises(ConfigError, match="the cube has none; add nir"):
        registration_band(["B05"])
