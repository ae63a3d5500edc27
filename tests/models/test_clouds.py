"""OmniCloudMask's weights: loaded from a path in the published layout, or refused."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eoray.errors import ModelError
from eoray.models.clouds import CloudNetwork, OmniCloudMask
from eoray.sentinel2 import FILL

ENCODER = "tu-mobilenetv3_small_050"
"""Small; the published ones are tu-regnety_004 and tu-edgenext_small."""


def write_weights(folder: Path, seed: int) -> CloudNetwork:
    """A U-Net of four classes as the package saves it: the state, in safetensors."""
    import segmentation_models_pytorch as smp
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    network = smp.Unet(ENCODER, encoder_weights=None, in_channels=3, classes=4)
    path = folder / f"clouds_{seed}.safetensors"
    save_file(network.state_dict(), path)
    return CloudNetwork(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), ENCODER)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[CloudNetwork, ...]:
    folder = tmp_path_factory.mktemp("weights")
    return tuple(write_weights(folder, seed) for seed in (1, 2))


def picture(height: int = 64, width: int = 96) -> np.ndarray:
    rng = np.random.default_rng(7)
    blobs = np.kron(rng.uniform(-200, 6000, (3, height // 8, width // 8)), np.ones((8, 8)))
    return np.rint(blobs + rng.normal(0, 30, blobs.shape)).astype(np.int16)


def by_hand(values: np.ndarray, networks: tuple[CloudNetwork, ...]) -> np.ndarray:
    """The package's own steps: bands to mean 0 and deviation 1, mean of the answers, argmax."""
    import segmentation_models_pytorch as smp
    import torch
    from safetensors.torch import load_file

    bands = values.astype("f8")
    bands = (bands - bands.mean(axis=(1, 2), keepdims=True)) / bands.std(axis=(1, 2), keepdims=True)
    batch = torch.from_numpy(bands[None].astype("f4"))
    answers = []
    for one in networks:
        network = smp.Unet(one.encoder, encoder_weights=None, in_channels=3, classes=4)
        network.load_state_dict(load_file(one.url))
        with torch.no_grad():
            answers.append(network.eval()(batch)[0])
    return torch.stack(answers).mean(dim=0).argmax(dim=0).numpy().astype("u1")


def test_classes_are_those_of_the_networks_together(networks: Any) -> None:
    values = picture()
    found = OmniCloudMask(networks)(values)
    expected = by_hand(values, networks)
    assert found.dtype == np.uint8
    assert (found == expected).mean() > 0.999  # sums in another order may turn a tie
    assert len(np.unique(found)) > 1
    assert (found != OmniCloudMask(networks[:1])(values)).any()


def test_neither_offset_nor_scale_of_the_values_matters(networks: Any) -> None:
    values = picture()
    shifted = (values // 2 * 2 + 1000).astype(np.int16)
    halved = (values // 2).astype(np.int16)
    masks = OmniCloudMask(networks)
    assert (masks(shifted) == masks(halved)).mean() > 0.999


def test_the_same_bits_each_time_and_in_any_number_of_threads(networks: Any) -> None:
    import torch

    masks, values = OmniCloudMask(networks), picture()
    first = masks(values)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            np.testing.assert_array_equal(pickle.loads(pickle.dumps(masks))(values), first)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_missing_pixels_are_unknown_and_a_size_need_not_be_a_multiple(networks: Any) -> None:
    values = picture()[:, :50, :70]
    values[1, :10] = FILL
    found = OmniCloudMask(networks)(values)
    assert found.shape == (50, 70)
    assert (found[:10] == 255).all()
    assert (found[10:] < 4).all()
    assert (OmniCloudMask(networks)(np.full((3, 8, 8), FILL, np.int16)) == 255).all()


def test_the_name_follows_the_weights_not_their_order_or_place(networks: Any) -> None:
    first, second = networks
    name = OmniCloudMask((first, second)).name
    assert name.startswith("omnicloudmask-")
    assert len(name) == len("omnicloudmask-") + 8
    assert OmniCloudMask((second, replace(first, url="s3://other/place"))).name == name
    assert OmniCloudMask((first,)).name != name


def test_weights_of_another_checksum_are_refused(networks: Any) -> None:
    other = replace(networks[0], sha256="0" * 64)
    with pytest.raises(
        ModelError, match=r"have the SHA-256 [0-9a-f]{64}, cube.mask.weights says 0"
    ):
        OmniCloudMask((other,)).load()


def test_weights_of_another_network_are_refused(networks: Any) -> None:
    other = replace(networks[0], encoder="tu-regnety_004")
    with pytest.raises(ModelError, match="are not those of a U-Net on 'tu-regnety_004' with 4"):
        OmniCloudMask((other,)).load()
    unknown = replace(networks[0], encoder="regnetx_9")
    with pytest.raises(ModelError, match=r"encoder .regnetx_9. of weights .* is unknown"):
        OmniCloudMask((unknown,)).load()


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"PK not safetensors")
    network = CloudNetwork(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), ENCODER)
    with pytest.raises(ModelError, match=r"only version 4 \(.safetensors, 'smp'\) can be read"):
        OmniCloudMask((network,)).load()
