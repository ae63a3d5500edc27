from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.chips.dataset import (
    CELL_PX,
    ChipReader,
    Collate,
    Draw,
    draw_batch,
    measure_labels,
    prefetch,
    turn_array,
)
from eoray.chips.index import plan_chips
from eoray.chips.labels import IGNORE, LabelBurner, read_labels, to_classes
from eoray.chips.recipe import InputRecipe, Normalisation, find_seasons, to_canonical_json
from eoray.grid import PixelWindow
from eoray.sentinel2 import FILL
from tests.chips.fake_reader import BANDS, PARAMETERS, PRODUCT
from tests.chips.landscape import TILE, Landscape, make_landscape

ROW, COL = TILE.row * 1024, TILE.col * 1024
RECIPE = InputRecipe(PRODUCT, BANDS, 4, (1, 1), to_canonical_json(PARAMETERS))


@pytest.fixture(scope="module")
def land() -> Landscape:
    return make_landscape()


@pytest.fixture
def reader(land: Landscape, tmp_path: Path) -> ChipReader:
    labels = read_labels(land.write_labels(tmp_path / "l.gpkg"), [TILE])
    seasons = find_seasons(land.reader, PRODUCT, ("2021-01-01", "2021-12-31"))
    return ChipReader(land.reader, RECIPE, seasons, labels.polygons)


@given(
    n_chips=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    seed=st.integers(0, 1000),
    world=st.integers(1, 4),
)
def test_epochs_visit_every_chip_once_whatever_the_batch(
    n_chips: int, batch_size: int, seed: int, world: int
) -> None:
    n_steps = -(-2 * n_chips // batch_size)
    order: list[int] = []
    for step in range(n_steps):
        parts = [
            draw_batch(
                n_chips,
                step,
                batch_size=batch_size,
                seed=seed,
                size=64,
                rank=rank,
                world=world,
            )
            for rank in range(world)
        ]
        whole = draw_batch(n_chips, step, batch_size=batch_size, seed=seed, size=64)
        assert [
            draw
            for k in range(batch_size)
            for draw in parts[k % world][k // world : k // world + 1]
        ] == whole
        order += [draw.chip for draw in whole]
    assert sorted(order[:n_chips]) == sorted(order[n_chips : 2 * n_chips]) == list(range(n_chips))


def test_draws_move_and_turn_unless_told_not_to() -> None:
    draws = draw_batch(10, 3, batch_size=64, seed=0, size=64)
    assert {draw.turn for draw in draws} == set(range(8))
    assert max(abs(s) for draw in draws for s in draw.shift) <= 32
    plain = draw_batch(10, 3, batch_size=64, seed=0, size=64, augment=False)
    assert {(draw.shift, draw.turn) for draw in plain} == {((0, 0), 0)}


def test_eight_turns_differ_and_keep_input_and_label_together() -> None:
    square = np.arange(9).reshape(3, 3)
    turned = [turn_array(square, turn) for turn in range(8)]
    assert len({t.tobytes() for t in turned}) == 8
    stack = np.stack([square, square])
    assert all(np.array_equal(turn_array(stack, k)[1], turned[k]) for k in range(8))


@given(row=st.integers(-20, 300), col=st.integers(-20, 300), height=st.integers(1, 300))
def test_window_from_cells_equals_the_cube(row: int, col: int, height: int) -> None:
    land = make_landscape(size_px=64)
    seasons = find_seasons(land.reader, PRODUCT, ("2021-01-01", "2021-12-31"))
    reader = ChipReader(land.reader, RECIPE, seasons, [], cache_bytes=0)
    window = PixelWindow(ROW + row, COL + col, height, 40)
    direct = land.reader.read_bands(
        PRODUCT, 32, bands=BANDS, window=window, resolution_m=10, index=(0, 1, 2, 3)
    )
    assert np.array_equal(reader.values(32, 0, window), direct)


def test_cells_are_read_once_and_dropped_above_the_limit(land: Landscape) -> None:
    seasons = find_seasons(land.reader, PRODUCT, ("2021-01-01", "2021-12-31"))
    cell_bytes = 4 * len(BANDS) * CELL_PX**2 * 2
    window = PixelWindow(ROW + 10, COL + 10, 64, 64)
    away = PixelWindow(ROW + 600, COL + 10, 64, 64)
    for limit, expected in ((4 * cell_bytes, 2), (cell_bytes, 3)):
        reader = ChipReader(land.reader, RECIPE, seasons, [], cache_bytes=limit)
        land.reader.reads.clear()
        for place in (window, window, away, window):
            reader.values(32, 0, place)
        assert len(land.reader.reads) == expected


def test_batch_holds_turned_input_and_label_of_the_shifted_window(
    reader: ChipReader, land: Landscape, tmp_path: Path
) -> None:
    labels = read_labels(land.write_labels(tmp_path / "m.gpkg"), [TILE])
    chips = plan_chips(labels.polygons, [[TILE]], 3, size=64)
    normal = Normalisation((0.0,) * 20, (1.0,) * 20)
    batch = Collate(reader, chips, labels.class_of, normal)([Draw(5, (7, -3), 6)])
    window = PixelWindow(chips[5].row_off + 7, chips[5].col_off - 3, 64, 64)
    values = reader.values(32, 0, window).reshape(20, 64, 64)
    assert np.array_equal(batch.x[0, :20], turn_array(values, 6))
    classes = to_classes(
        LabelBurner(labels.polygons, 32, border_m=10).burn(window), labels.class_of
    )
    assert np.array_equal(batch.y[0], turn_array(classes, 6))
    assert (batch.y != IGNORE).any()


def test_statistics_equal_plain_numpy_and_ignore_what_is_not_trained(
    land: Landscape, tmp_path: Path
) -> None:
    labels = read_labels(land.write_labels(tmp_path / "l.gpkg"), [TILE])
    training = labels.polygons[: len(labels.polygons) // 2]
    seasons = find_seasons(land.reader, PRODUCT, ("2021-01-01", "2021-12-31"))
    chips = plan_chips(training, [[TILE]], 3, size=64)

    def measure(source: object) -> tuple[np.ndarray, np.ndarray]:
        reader = ChipReader(source, RECIPE, seasons, training)
        s = measure_labels(reader, chips, labels.class_of, n_classes=3, seed=0)
        return np.array(s.normalisation().mean), s.class_means()

    mean, class_means = measure(land.reader)
    window = PixelWindow(ROW, COL, 256, 256)
    used = LabelBurner(training, 32, border_m=10).burn(window) >= 0
    pixels = land.reader.planes[32][2].reshape(20, 256, 256)[:, used].astype(float)
    pixels[pixels == FILL] = np.nan
    assert np.allclose(mean, np.nanmean(pixels, axis=1))
    expected = (pixels - mean[:, None]) / np.nanstd(pixels, axis=1)[:, None]
    forest = land.classes[used] == 2
    assert np.allclose(class_means[1], np.nanmean(expected[:, forest], axis=1))

    other = make_landscape()
    other.reader.planes[32][2][..., ~used] = 9000
    assert np.array_equal(measure(other.reader)[0], mean)


def test_prefetch_keeps_order_raises_in_place_and_ends_its_thread() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise ValueError("broken")

    stream = prefetch(items())
    assert [next(stream) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ValueError, match="broken"):
        next(stream)


def test_prefetch_stops_reading_when_left_early() -> None:
    made = []

    def items() -> Iterator[int]:
        for k in range(1000):
            made.append(k)
            yield k

    stream = prefetch(items(), depth=2)
    assert next(stream) == 0
    cast("Generator[int]", stream).close()
    count = len(made)
    time.sleep(0.05)
    assert len(made) == count < 10
