"""OmniCloudMask: networks that find clouds and their shadows, from weights that the user has.

The published networks (version 4) are U-Nets of segmentation-models-pytorch in safetensors, which
eoray installs anyway: they are loaded here from a path and a checksum, and nothing is downloaded.

Source:
    Wright et al. 2025, Remote Sensing of Environment 322; github.com/DPIRD-DMA/OmniCloudMask for
    bands, normalisation and classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from eoray.cube.mask import Cloud
from eoray.errors import ModelError
from eoray.sentinel2 import FILL
from eoray.storage import read_bytes

if TYPE_CHECKING:
    from torch import nn

STRIDE_PX = 32
"""The networks halve a picture five times."""

N_CLASSES = 4


@dataclass(frozen=True, slots=True)
class CloudNetwork:
    """Weights of one network."""

    url: str
    sha256: str
    """64 hex digits: other weights would make other masks under the same name."""
    encoder: str
    """As segmentation-models-pytorch names it: ``tu-regnety_004``, ``tu-edgenext_small``."""


@dataclass(frozen=True, slots=True)
class OmniCloudMask:
    """One or several networks, whose answers are averaged; see ``cube.mask.CloudClassifier``."""

    networks: tuple[CloudNetwork, ...]

    @property
    def bands(self) -> tuple[str, ...]:
        """Red, green and near infrared, in the order in which the networks were trained."""
        return ("B04", "B03", "B8A")

    @property
    def name(self) -> str:
        """Stable name: 8 hex digits of all weights."""
        digests = "".join(sorted(network.sha256 for network in self.networks))
        return f"omnicloudmask-{hashlib.sha256(digests.encode()).hexdigest()[:8]}"

    def load(self) -> Sequence[nn.Module]:
        """Build the networks, once per process.

        Raises:
            ModelError: Weights are missing, not those of the checksum, or of another network.
        """
        return [_load(network) for network in self.networks]

    def __call__(self, reflectance: np.ndarray) -> np.ndarray:
        """Classify a picture, on the CPU in one thread: the same bits everywhere.

        Args:
            reflectance: Dims (band, y, x), int16 as stored, fill -32768. Each band is brought to
                mean 0 and deviation 1 over its valid pixels, so no offset or scale matters.

        Returns:
            Dims (y, x), uint8 of ``Cloud``; ``UNKNOWN`` where a band is missing.
        """
        import torch

        height, width = reflectance.shape[1:]
        valid = reflectance != FILL
        if not valid.all(axis=0).any():
            return np.full((height, width), int(Cloud.UNKNOWN), np.uint8)
        picture = np.zeros(
            (1, 3, -(-height // STRIDE_PX) * STRIDE_PX, -(-width // STRIDE_PX) * STRIDE_PX)
        )
        for band, (values, there) in enumerate(zip(reflectance, valid, strict=True)):
            picture[0, band, :height, :width] = _normalise(values, there)
        with _one_thread(), torch.inference_mode():
            batch = torch.from_numpy(picture.astype(np.float32))
            answers = torch.stack([network(batch)[0] for network in self.load()])
            classes = answers.mean(dim=0).argmax(dim=0).numpy().astype(np.uint8)
        found: np.ndarray = classes[:height, :width]
        return np.where(valid.all(axis=0), found, np.uint8(Cloud.UNKNOWN))


def _normalise(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1 over the valid pixels, 0 elsewhere."""
    chosen = values[valid].astype(np.float64)
    if not chosen.size:
        return np.zeros(values.shape)
    deviation = chosen.std() or 1.0
    return np.where(valid, (values - chosen.mean()) / deviation, 0.0)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of several threads differ in their last bit, which turns a class where two are equal."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=8)
def _load(network: CloudNetwork) -> nn.Module:
    import segmentation_models_pytorch as smp
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = read_bytes(network.url)
    except FileNotFoundError as error:
        raise ModelError(
            f"weights {network.url!r} of cube.mask.weights do not exist; correct the path, which "
            "starts at the run file's folder (they are never downloaded)"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != network.sha256.lower():
        raise ModelError(
            f"weights {network.url!r} have the SHA-256 {found}, cube.mask.weights says "
            f"{network.sha256}; correct it, or take the file that was meant"
        )
    try:
        built = smp.Unet(network.encoder, encoder_weights=None, in_channels=3, classes=N_CLASSES)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"encoder {network.encoder!r} of weights {network.url!r} is unknown; those of "
            "OmniCloudMask 4 are 'tu-regnety_004' and 'tu-edgenext_small'"
        ) from error
    try:
        built.load_state_dict(load(data))
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"weights {network.url!r} are not those of a U-Net on {network.encoder!r} with "
            f"{N_CLASSES} classes ({str(error).splitlines()[0]}); name the encoder that the file "
            "was made with; of OmniCloudMask only version 4 (.safetensors, 'smp') can be read"
        ) from error
    model: nn.Module = built.eval()
    return model
