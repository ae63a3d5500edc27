"""U-Net of segmentation-models-pytorch beside a per-pixel path."""

from __future__ import annotations

import torch
from torch import nn


class PixelContextNet(nn.Module):
    """Join what a pixel's own spectra say with what its surroundings say.

    The decoder of the U-Net has no skip at full resolution, so that a pixel's own values reach
    the head only blurred. A per-pixel path of 1 x 1 convolutions keeps them.
    """

    def __init__(self, context: nn.Module, n_channels: int, n_context: int, n_classes: int) -> None:
        """Put the two paths together.

        Args:
            context: Maps (n, n_channels, y, x) to (n, n_context, y, x).
            n_channels: Input channels.
            n_context: Channels of the context path, and of the pixel path.
            n_classes: Output channels.
        """
        super().__init__()
        self.context = context
        self.pixel = nn.Sequential(
            nn.Conv2d(n_channels, 2 * n_context, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * n_context, n_context, 1),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(2 * n_context, n_classes, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, dims (n, class, y, x), of input with dims (n, channel, y, x)."""
        out: torch.Tensor = self.head(torch.cat([self.pixel(x), self.context(x)], dim=1))
        return out


def build_unet(
    n_channels: int,
    n_classes: int,
    *,
    encoder: str = "mobilenet_v2",
    depth: int = 3,
    decoder: tuple[int, ...] | list[int] = (32, 16, 8),
    n_context: int = 16,
) -> nn.Module:
    """Build a small U-Net with random weights.

    Args:
        n_channels: Input channels.
        n_classes: Classes.
        encoder: An encoder of segmentation-models-pytorch, such as ``mobilenet_v2``, ``resnet18``.
        depth: Halvings of the resolution; input edges are multiples of ``2 ** depth``.
        decoder: Channels of the decoder's stages, coarse to fine, one per halving.
        n_context: Width of the pixel path and of the decoder's output.

    Returns:
        A module from (n, channel, y, x) to logits (n, class, y, x).
    """
    import segmentation_models_pytorch as smp

    context = smp.Unet(
        encoder_name=encoder,
        encoder_depth=depth,
        encoder_weights=None,
        decoder_channels=tuple(decoder),
        in_channels=n_channels,
        classes=n_context,
    )
    return PixelContextNet(context, n_channels, n_context, n_classes)


def build_mlp(n_channels: int, n_classes: int, *, width: int = 64) -> nn.Module:
    """Build a per-pixel network of two layers: no context, no normalisation layers."""
    return nn.Sequential(nn.Conv2d(n_channels, width, 1), nn.ReLU(), nn.Conv2d(width, n_classes, 1))
