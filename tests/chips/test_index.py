from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eoray.chips.index import plan_chips
from eoray.chips.labels import LabelBurner, read_labels, to_classes
from eoray.grid import PixelWindow, Tile
from tests.chips.landscape import TILE, make_landscape


@pytest.mark.parametrize("size", [32, 64, 96])
def test_every_labelled_pixel_is_in_one_chip(tmp_path: Path, size: int) -> None:
    labels = read_labels(make_landscape().write_labels(tmp_path / "l.gpkg", every=3), [TILE])
    chips = plan_chips(labels.polygons, [[TILE]], 3, size=size)
    burner = LabelBurner(labels.polygons, 32, border_m=10)
    whole = burner.burn(PixelWindow(TILE.row * 1024, TILE.col * 1024, 256, 256))
    classes = to_classes(whole, labels.class_of)
    counts = np.sum([chip.counts for chip in chips], axis=0)
    assert counts.tolist() == [(classes == c).sum() for c in range(3)]
    assert len({(chip.row_off, chip.col_off) for chip in chips}) == len(chips)
    assert all(chip.row_off % size == 0 and chip.col_off % size == 0 for chip in chips)


def test_chips_repeat_by_season_where_tiles_hold_something(tmp_path: Path) -> None:
    labels = read_labels(make_landscape().write_labels(tmp_path / "l.gpkg"), [TILE])
    elsewhere = Tile(32, TILE.row + 5, TILE.col)
    chips = plan_chips(labels.polygons, [[TILE], [elsewhere], [TILE]], 3, size=128)
    assert [chip.season for chip in chips] == [0] * 4 + [2] * 4


def test_no_polygons_give_no_chips() -> None:
    assert plan_chips([], [[TILE]], 3, size=64) == []
