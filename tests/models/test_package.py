from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pystac
import pytest
import torch

from eoray.chips.labels import Legend
from eoray.chips.recipe import InputRecipe, Normalisation, to_canonical_json
from eoray.errors import ModelError
from eoray.models.package import PackageMeta, load_package, save_package
from eoray.models.registry import ModelSpec, build_model

SPEC = ModelSpec("mlp", 6, 2, {"width": 8})


@pytest.fixture
def meta() -> PackageMeta:
    return PackageMeta(
        name="demo",
        spec=SPEC,
        recipe=InputRecipe(
            "s2-P6M-median", ("B04", "B08"), 2, (1, 1), to_canonical_json({"min_obs": 3})
        ),
        normal=Normalisation((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0)),
        legend=Legend(("crop", "water body")),
        seasons=("2020-01-01/2021-01-01", "2021-01-01/2022-01-01"),
        bbox=(11.0, 51.0, 12.0, 52.0),
        chip_px=64,
        metrics={"overall_accuracy": 0.9, "nearest_mean": {"overall_accuracy": 0.5}},
        training={"seed": 3, "key": "ab12", "options": {"steps": 5}},
    )


def test_package_comes_back_as_it_was(tmp_path: Path, meta: PackageMeta) -> None:
    model = build_model(SPEC, seed=4)
    saved = save_package(str(tmp_path), model, meta)
    loaded = load_package(str(tmp_path))
    assert loaded == saved
    assert loaded == replace(load_package(str(tmp_path / "item.json")))
    x = torch.randn(1, 6, 4, 4)
    assert torch.equal(loaded.build()(x), model(x))
    assert not loaded.build().training


def test_equal_fits_give_equal_bytes(tmp_path: Path, meta: PackageMeta) -> None:
    for name in ("a", "b"):
        save_package(str(tmp_path / name), build_model(SPEC, seed=4), meta)
    for file in ("item.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_item_is_a_stac_item_that_describes_the_model(tmp_path: Path, meta: PackageMeta) -> None:
    save_package(str(tmp_path), build_model(SPEC, seed=4), meta)
    document = json.loads((tmp_path / "item.json").read_text())
    pystac.Item.from_dict(document)
    properties = document["properties"]
    assert document["stac_version"] == "1.1.0"
    assert properties["start_datetime"] == "2020-01-01T00:00:00Z"
    assert properties["mlm:tasks"] == ["semantic-segmentation"]
    (given,) = properties["mlm:input"]
    assert [band["name"] for band in given["bands"]] == ["B04", "B08"]
    assert given["input"]["shape"] == [-1, 6, 64, 64]
    assert len(given["value_scaling"]) == 6
    assert given["value_scaling"][1] == {"type": "z-score", "mean": 2.0, "stddev": 6.0}
    (result,) = properties["mlm:output"]
    assert [c["value"] for c in result["classification:classes"]] == [1, 2]
    assert properties["eoray:recipe_hash"] == meta.recipe.hash
    asset = document["assets"]["model"]
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert asset["file:checksum"] == "1220" + hashlib.sha256(weights).hexdigest()
    assert asset["file:size"] == len(weights)


def test_damaged_weights_are_refused(tmp_path: Path, meta: PackageMeta) -> None:
    package = save_package(str(tmp_path), build_model(SPEC, seed=4), meta)
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match=r"checksum of '.*model\.safetensors' is"):
        load_package(str(tmp_path))
    with pytest.raises(ModelError, match="damaged or of another fit"):
        package.build()


@pytest.mark.parametrize("lost", ["item.json", "model.safetensors"])
def test_half_a_package_is_none(tmp_path: Path, meta: PackageMeta, lost: str) -> None:
    save_package(str(tmp_path), build_model(SPEC, seed=4), meta)
    (tmp_path / lost).unlink()
    with pytest.raises(ModelError, match="no model at"):
        load_package(str(tmp_path))


def test_foreign_items_are_refused(tmp_path: Path, meta: PackageMeta) -> None:
    save_package(str(tmp_path), build_model(SPEC, seed=4), meta)
    item = json.loads((tmp_path / "item.json").read_text())
    del item["properties"]["eoray:recipe"]
    (tmp_path / "item.json").write_text(json.dumps(item))
    with pytest.raises(ModelError, match="does not say which input it reads"):
        load_package(str(tmp_path))


def test_weights_of_another_network_are_refused(tmp_path: Path, meta: PackageMeta) -> None:
    save_package(str(tmp_path), build_model(replace(SPEC, n_channels=7), seed=4), meta)
    with pytest.raises(ModelError, match="do not fit 'mlp'"):
        load_package(str(tmp_path)).build()


def test_hash_follows_what_decides_a_map(tmp_path: Path, meta: PackageMeta) -> None:
    model = build_model(SPEC, seed=4)
    first = save_package(str(tmp_path / "a"), model, meta)
    told = save_package(str(tmp_path / "b"), model, replace(meta, metrics={}, name="other"))
    scaled = save_package(
        str(tmp_path / "c"), model, replace(meta, normal=Normalisation((0.0,) * 4, (1.0,) * 4))
    )
    assert first.hash == told.hash != scaled.hash
