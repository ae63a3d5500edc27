from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eoray.chips.recipe import is_observed, prepare_input
from eoray.cube.layout import TileResult
from eoray.errors import ModelError
from eoray.grid import Tile
from eoray.infer.blend import Blend, shared_part
from eoray.infer.plan import PredictOptions, plan_predict, predict_product
from eoray.infer.predict import PredictWorker, to_layers
from eoray.models.package import ModelPackage
from eoray.sentinel2 import FILL
from tests.chips.fake_reader import FakeReader
from tests.chips.landscape import TILE, Landscape

YEAR = ("2021-01-01", "2021-12-31")
OPTIONS = PredictOptions(core_px=64, halo_px=16, batch_size=4)


def predict(
    reader: FakeReader, package: ModelPackage, options: PredictOptions = OPTIONS
) -> list[TileResult]:
    worker = PredictWorker(reader, package.url, package.hash, options)
    _, rows = plan_predict(package, reader, YEAR)
    return [result for row in rows for result in worker(row)]


def moved(land: Landscape, rows: int, cols: int) -> FakeReader:
    """The same land, moved within the zone."""
    row, col, values = land.reader.planes[32]
    return FakeReader({32: (row + rows, col + cols, values)}, land.reader.periods)


@pytest.fixture(scope="module")
def result(land: Landscape, package: ModelPackage) -> TileResult:
    (only,) = predict(land.reader, package)
    return only


def test_result_fills_whole_shards_of_the_product(
    result: TileResult, package: ModelPackage
) -> None:
    spec = predict_product("m", package)
    for path, values in result.arrays.items():
        assert values.shape == (1024, 1024)
        assert values.dtype == spec.array(path).dtype
    assert sorted(result.arrays) == ["10m/class", "10m/entropy", "10m/probability"]
    assert package.hash in result.source


def test_pixels_are_mapped_where_input_exists(result: TileResult, land: Landscape) -> None:
    values = land.reader.planes[32][2]
    expected = np.zeros((1024, 1024), bool)
    expected[:192, :192] = is_observed(values)
    assert np.array_equal(result.arrays["10m/class"] > 0, expected)
    assert np.array_equal(result.arrays["10m/probability"] != 255, expected)
    assert np.array_equal(result.arrays["10m/entropy"] != 255, expected)
    assert result.n_valid == expected.sum()


def test_blending_equals_four_lines_of_numpy(
    result: TileResult, land: Landscape, package: ModelPackage
) -> None:
    window = replace(TILE.window(10), height=192, width=192)
    blend, model, total = Blend(64, 16), package.build(), np.zeros((3, 192, 192))
    weight = np.outer(blend.weights(), blend.weights())
    for place in blend.windows(window):
        values = land.reader.read_bands(
            "p", 32, bands=land.reader.names, window=place, resolution_m=10, index=range(4)
        )
        with torch.inference_mode():
            x = torch.from_numpy(prepare_input(values, package.meta.normal))[None]
            share = torch.softmax(model(x), dim=1)[0].numpy()
        to, of = shared_part(window, place)
        total[(slice(None), *to)] += (share * weight)[(slice(None), *of)]
    arrays = {name: values[:192, :192] for name, values in result.arrays.items()}
    mapped = arrays["10m/class"] > 0
    agree = (total.argmax(axis=0) + 1 == arrays["10m/class"])[mapped]
    assert agree.mean() > 0.9999  # rounding decides a tie in float32
    stored = arrays["10m/probability"][mapped] / 200
    assert np.abs(stored - total.max(axis=0)[mapped]).max() <= 0.0025 + 1e-5


def test_neighbouring_tiles_meet_without_a_seam(land: Landscape, package: ModelPackage) -> None:
    """Each side of a tile edge equals the same land inside one tile, to the stored step."""
    half = 64 * 14  # a multiple of the lattice, so that windows fall alike on the land
    inside = predict(moved(land, 64, 64), package)[0].arrays
    parts = {r.tile: r.arrays for r in predict(moved(land, half + 64, 64), package)}
    below = Tile(32, TILE.row + 1, TILE.col)
    assert set(parts) == {TILE, below}
    for name in ("10m/class", "10m/probability", "10m/entropy"):
        joined = np.concatenate([parts[TILE][name][half + 64 :], parts[below][name][:128]])
        assert np.array_equal(joined[:192, 64:256], inside[name][64:256, 64:256])


def test_same_bytes_again_whatever_torch_is_set_to(
    result: TileResult, land: Landscape, package: ModelPackage
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        (again,) = predict(land.reader, package)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    for name, values in result.arrays.items():
        assert np.array_equal(again.arrays[name], values)


def test_values_outside_the_halo_do_not_matter(
    result: TileResult, land: Landscape, package: ModelPackage
) -> None:
    row, col, values = land.reader.planes[32]
    changed = values.copy()
    changed[..., 160:] = FILL
    (other,) = predict(FakeReader({32: (row, col, changed)}, land.reader.periods), package)
    name = "10m/probability"
    # Windows of 96 px on a lattice of 64: columns below 112 lie in no window that reaches 160.
    assert np.array_equal(other.arrays[name][:, :111], result.arrays[name][:, :111])
    assert not np.array_equal(other.arrays[name][:, :160], result.arrays[name][:, :160])


def test_worker_travels(land: Landscape, package: ModelPackage, result: TileResult) -> None:
    worker = pickle.loads(
        pickle.dumps(PredictWorker(land.reader, package.url, package.hash, OPTIONS))
    )
    _, rows = plan_predict(package, land.reader, YEAR)
    (again,) = worker(rows[0])
    assert np.array_equal(again.arrays["10m/class"], result.arrays["10m/class"])


def test_model_fitted_again_since_planning_is_refused(
    land: Landscape, package: ModelPackage
) -> None:
    _, rows = plan_predict(package, land.reader, YEAR)
    with pytest.raises(ModelError, match=r"the plan was made with 0000; .* plan again"):
        PredictWorker(land.reader, package.url, "0000", OPTIONS)(rows[0])


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 6))
def test_layers_follow_their_definitions(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(n, 0.5), (3, 4)).transpose(2, 0, 1).astype(np.float32)
    observed = rng.random((3, 4)) < 0.7
    layers = to_layers(shares, observed)
    assert np.array_equal(layers["class"][observed], shares.argmax(axis=0)[observed] + 1)
    best = layers["probability"][observed] / 200
    assert np.allclose(best, shares.max(axis=0)[observed], atol=0.0026)
    log = np.log(np.maximum(shares, 1e-30))
    entropy = -(shares * log).sum(axis=0) / np.log(n)
    assert np.allclose(layers["entropy"][observed] / 200, entropy[observed], atol=0.0026)
    assert (layers["class"][~observed] == 0).all()
    assert (layers["entropy"][~observed] == 255).all()


def test_certain_and_open_pixels_span_the_scale() -> None:
    shares = np.array([[1.0, 0.5], [0.0, 0.5]], np.float32)[:, None, :]
    layers = to_layers(shares, np.ones((1, 2), bool))
    assert layers["probability"].tolist() == [[200, 100]]
    assert layers["entropy"].tolist() == [[0, 200]]


def test_other_season_gives_another_entry(land: Landscape, package: ModelPackage) -> None:
    _, rows = plan_predict(package, land.reader, YEAR)
    row = replace(rows[0], entry="2020-01-01/2021-01-01")
    (result,) = PredictWorker(land.reader, package.url, package.hash, OPTIONS)(row)
    assert result.entry == "2020-01-01/2021-01-01"
