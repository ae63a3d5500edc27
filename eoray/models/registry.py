"""Networks by name. A builder takes channels, classes and options, and gives a torch module."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from eoray.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

type Builder = Callable[[int, int, Mapping[str, Any]], nn.Module]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which network, for how many channels and classes."""

    name: str
    n_channels: int
    n_classes: int
    options: Mapping[str, Any] = field(default_factory=dict)
    """Such as ``{"encoder": "mobilenet_v2"}``; what a builder does not know is refused."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "n_channels": self.n_channels,
            "n_classes": self.n_classes,
            "options": dict(self.options),
        }


def _build_unet(n_channels: int, n_classes: int, options: Mapping[str, Any]) -> nn.Module:
    from eoray.models.unet import build_unet

    return build_unet(n_channels, n_classes, **options)


def _build_mlp(n_channels: int, n_classes: int, options: Mapping[str, Any]) -> nn.Module:
    from eoray.models.unet import build_mlp

    return build_mlp(n_channels, n_classes, **options)


_GENERATOR = Lock()
"""Torch's global generator is the process's: who seeds it and draws from it holds this."""
_BUILDERS: dict[str, Builder] = {"unet": _build_unet, "mlp": _build_mlp}


def register(name: str, builder: Builder) -> None:
    """Add a network.

    Raises:
        ModelError: The name is taken by another builder.
    """
    if _BUILDERS.setdefault(name, builder) is not builder:
        raise ModelError(f"model name {name!r} is taken; choose another one")


def build_model(spec: ModelSpec, *, seed: int) -> nn.Module:
    """Build a network with weights drawn from a seed. Never reads the network.

    Args:
        spec: Name, channels, classes, options.
        seed: Of the initial weights; torch's global generator is left as it was.

    Raises:
        ModelError: The name or an option is unknown.
    """
    import torch

    builder = _BUILDERS.get(spec.name)
    if builder is None:
        raise ModelError(f"unknown model {spec.name!r}; there are {', '.join(sorted(_BUILDERS))}")
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return builder(spec.n_channels, spec.n_classes, spec.options)
        except (TypeError, KeyError, ValueError) as error:
            raise ModelError(
                f"model {spec.name!r} cannot be built with {dict(spec.options)!r}: {error}"
            ) from error


def hash_weights(state: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 over names and values of a state dict."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def warm_up() -> None:
    """Import what a U-Net and its optimiser need: 15 to 25 s, once per process.

    Call it in a thread while something else reads or writes, so that fit finds it done.
    """
    import segmentation_models_pytorch
    import torch._dynamo  # AdamW imports it at the first parameter group

    _ = segmentation_models_pytorch.Unet, torch.optim.AdamW
