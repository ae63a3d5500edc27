from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from eoray.errors import ModelError
from eoray.models import registry
from eoray.models.registry import ModelSpec, build_model, hash_weights, register


def test_weights_follow_the_seed_and_leave_torch_alone() -> None:
    spec = ModelSpec("mlp", 6, 3)
    before = torch.get_rng_state()
    first, again, other = (hash_weights(build_model(spec, seed=s).state_dict()) for s in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_that_build_at_once_get_the_weights_of_their_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(n_channels: int, n_classes: int, options: object) -> torch.nn.Module:
        model = torch.nn.Linear(n_channels, n_classes)
        time.sleep(0.01)  # for another thread to draw between these two
        return torch.nn.Sequential(model, torch.nn.Linear(n_classes, n_classes))

    monkeypatch.setitem(registry._BUILDERS, "halting", build)
    spec = ModelSpec("halting", 6, 3)
    alone = [hash_weights(build_model(spec, seed=seed).state_dict()) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        models = pool.map(lambda seed: build_model(spec, seed=seed), range(4))
    assert [hash_weights(model.state_dict()) for model in models] == alone


def test_unet_maps_channels_to_classes_at_full_resolution() -> None:
    model = build_model(ModelSpec("unet", 11, 4), seed=0)
    assert model(torch.zeros(2, 11, 64, 96)).shape == (2, 4, 64, 96)


def test_unet_takes_other_encoders() -> None:
    spec = ModelSpec("unet", 5, 2, {"encoder": "resnet18", "depth": 4, "decoder": [32, 16, 16, 8]})
    assert build_model(spec, seed=0)(torch.zeros(2, 5, 32, 32)).shape == (2, 2, 32, 32)


def test_unknown_model_names_those_there() -> None:
    with pytest.raises(ModelError, match=r"unknown model 'vit'; there are .*mlp, unet"):
        build_model(ModelSpec("vit", 3, 2), seed=0)


def test_unknown_option_is_refused() -> None:
    with pytest.raises(ModelError, match=r"cannot be built with \{'widht': 3\}"):
        build_model(ModelSpec("mlp", 3, 2, {"widht": 3}), seed=0)


def test_name_cannot_be_taken_twice() -> None:
    with pytest.raises(ModelError, match="model name 'unet' is taken"):
        register("unet", lambda n_channels, n_classes, options: torch.nn.Identity())
