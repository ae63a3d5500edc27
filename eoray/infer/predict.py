"""Map one tile: read with a halo, predict overlapping windows, blend, store class and doubt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.chips.recipe import is_observed, prepare_input, view_of
from eoray.cube.layout import DONE, NO_SCENE, TileResult
from eoray.errors import ModelError
from eoray.grid import PixelWindow
from eoray.infer.blend import Blend, shared_part
from eoray.infer.plan import CLASS_FILL, SHARE_FILL, SHARE_STEPS, PredictOptions, PredictRow
from eoray.models.package import ModelPackage, load_package

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class PredictWorker:
    """Map rows of a plan. Small and picklable; the model is loaded once per process."""

    source: Any
    """Address of the cube."""
    package_url: str
    """Folder of the model package; every worker must reach it."""
    model_hash: str
    """Of the package at planning time; another one found there is refused."""
    options: PredictOptions = PredictOptions()  # noqa: RUF009  frozen, so it can be shared

    def __call__(self, row: PredictRow) -> list[TileResult]:
        """Map one tile at one season.

        Returns:
            One result; its arrays are whole shards. ``n_valid`` counts mapped pixels.

        Raises:
            ModelError: The package changed since planning.
        """
        package, model = _load(self.package_url, self.options.device)
        if package.hash != self.model_hash:
            raise ModelError(
                f"model {self.package_url!r} is {package.hash} but the plan was made with "
                f"{self.model_hash}; it was fitted again in between, so plan again"
            )
        (tile,) = row.tiles
        meta, blend = package.meta, Blend(self.options.core_px, self.options.halo_px)
        target = tile.window(meta.recipe.resolution_m)
        cover = blend.cover(target)
        values = view_of(self.source).read_bands(
            meta.recipe.product,
            tile.utm_zone,
            bands=meta.recipe.bands,
            window=cover,
            resolution_m=meta.recipe.resolution_m,
            index=list(row.index),
        )
        _, inside = shared_part(target, cover)
        observed = is_observed(values[(..., *inside)])
        shares = _blend_windows(model, package, values, (cover, target), self.options)
        return [
            TileResult(
                tile=tile,
                entry=row.entry,
                arrays={
                    f"{meta.recipe.resolution_m}m/{k}": v
                    for k, v in to_layers(shares, observed).items()
                },
                status=DONE if observed.any() else NO_SCENE,
                n_valid=int(observed.sum()),
                n_failed=0,
                source=f"{meta.recipe.product} {row.entry} model {package.hash}",
            )
        ]


@lru_cache(maxsize=2)
def _load(url: str, device: str) -> tuple[ModelPackage, nn.Module]:
    import torch

    package = load_package(url)
    model = package.build().to(device)
    return package, model.to(memory_format=torch.channels_last)


def _blend_windows(
    model: nn.Module,
    package: ModelPackage,
    values: np.ndarray,
    windows: tuple[PixelWindow, PixelWindow],
    options: PredictOptions,
) -> np.ndarray:
    """Weighted sum of class probabilities of a target.

    Args:
        model: In evaluation mode.
        package: Its description.
        values: Stored reflectance of the cover, dims (time, band, y, x).
        windows: (cover, target).
        options: Geometry and batch.

    Returns:
        Dims (class, y, x) of the target, float32. Windows without a single value are left out;
        no mapped pixel lies in one.
    """
    cover, target = windows
    blend = Blend(options.core_px, options.halo_px)
    edge = blend.weights().astype(np.float32)
    weight = edge[:, None] * edge[None, :]
    n_classes = len(package.meta.legend.names)
    total = np.zeros((n_classes, target.height, target.width), np.float32)
    for group, shares in _predict_groups(model, package, values, cover, target, options):
        for window, share in zip(group, shares, strict=True):
            to, of = shared_part(target, window)
            total[(slice(None), *to)] += share[(slice(None), *of)] * weight[of]
    return total


def _predict_groups(
    model: nn.Module,
    package: ModelPackage,
    values: np.ndarray,
    cover: PixelWindow,
    target: PixelWindow,
    options: PredictOptions,
) -> Iterator[tuple[list[PixelWindow], np.ndarray]]:
    """Class probabilities of windows, a batch at a time, dims (window, class, y, x), float32."""
    blend = Blend(options.core_px, options.halo_px)
    waiting: list[tuple[PixelWindow, np.ndarray]] = []
    for window in blend.windows(target):
        _, of = shared_part(window, cover)
        part = values[(..., *of)]
        if is_observed(part).any():
            waiting.append((window, prepare_input(part, package.meta.normal)))
        if len(waiting) == options.batch_size:
            yield [w for w, _ in waiting], _forward(model, [x for _, x in waiting], options)
            waiting = []
    if waiting:
        yield [w for w, _ in waiting], _forward(model, [x for _, x in waiting], options)


def _forward(model: nn.Module, inputs: list[np.ndarray], options: PredictOptions) -> np.ndarray:
    import torch

    # A short last batch is filled up: kernels may sum in another order for another batch size.
    padded = inputs + [inputs[-1]] * (options.batch_size - len(inputs))
    before = torch.get_num_threads()
    torch.set_num_threads(options.torch_threads)
    try:
        with torch.inference_mode():
            x = torch.from_numpy(np.stack(padded)).to(
                options.device, memory_format=torch.channels_last
            )
            shares = torch.softmax(model(x).float(), dim=1).cpu().numpy()
    finally:
        torch.set_num_threads(before)
    return np.asarray(shares[: len(inputs)])


def to_layers(shares: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
    """Turn class probabilities into what is stored.

    Args:
        shares: Dims (class, y, x), float32, summing to 1 where observed.
        observed: Pixels to map, dims (y, x).

    Returns:
        ``class`` (id from 1, the lower one of equals; 0 not mapped), ``probability`` of it and
        ``entropy`` divided by the logarithm of the number of classes: uint8, 0 to 200, 255 not
        mapped; dims (y, x).
    """
    best = shares.max(axis=0)
    n_classes = shares.shape[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, shares * np.log(shares), 0.0)
    entropy = -terms.sum(axis=0) / np.log(max(n_classes, 2))
    return {
        "class": np.where(observed, shares.argmax(axis=0) + 1, CLASS_FILL).astype(np.uint8),
        "probability": _to_steps(best, observed),
        "entropy": _to_steps(entropy, observed),
    }


def _to_steps(share: np.ndarray, observed: np.ndarray) -> np.ndarray:
    steps = np.rint(np.clip(share, 0.0, 1.0) * SHARE_STEPS)
    return np.where(observed, steps, SHARE_FILL).astype(np.uint8)
