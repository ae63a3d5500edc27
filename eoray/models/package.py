"""Trained models on disk: ``model.safetensors`` and a STAC item (MLM) that describes it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eoray.chips.labels import Legend
from eoray.chips.recipe import InputRecipe, Normalisation, to_canonical_json
from eoray.errors import ModelError
from eoray.models.registry import ModelSpec, build_model
from eoray.storage import join, read_bytes, read_json, write_bytes, write_json

if TYPE_CHECKING:
    from torch import nn

WEIGHTS, ITEM = "model.safetensors", "item.json"

MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
FILE_SCHEMA = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
CLASSIFICATION_SCHEMA = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"


@dataclass(frozen=True, slots=True)
class PackageMeta:
    """All that a package says beside the weights."""

    name: str
    """Name of the model; the id of its STAC item."""
    spec: ModelSpec
    recipe: InputRecipe
    normal: Normalisation
    legend: Legend
    seasons: tuple[str, ...]
    """``start/end`` of the composites that it was trained on."""
    bbox: tuple[float, float, float, float]
    """West, south, east, north of the training land, degrees."""
    chip_px: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Validation score and the baseline beside it."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Options, seeds, hash of the labels, cube snapshot, code version: how it was made."""


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A package as read: what it says, where it lies, and what its bytes are."""

    url: str
    meta: PackageMeta
    sha256: str
    """Hex digest of the weights file."""

    @property
    def hash(self) -> str:
        """First 16 hex digits over weights, recipe and normalisation: what decides a map."""
        text = to_canonical_json(
            [
                self.sha256,
                self.meta.recipe.hash,
                self.meta.spec.to_dict(),
                [self.meta.normal.mean, self.meta.normal.std],
                self.meta.legend.names,
            ]
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def build(self) -> nn.Module:
        """Build the network and load its weights, in evaluation mode.

        Raises:
            ModelError: The weights are not those that the item describes.
        """
        from safetensors.torch import load

        data = read_bytes(join(self.url, WEIGHTS))
        _check_digest(data, self.sha256, self.url)
        model = build_model(self.meta.spec, seed=0)
        try:
            model.load_state_dict(load(data))
        except RuntimeError as error:
            raise ModelError(
                f"weights of {self.url!r} do not fit {self.meta.spec.name!r}: {error}; fit again"
            ) from error
        return model.eval()


def save_package(url: str, model: nn.Module, meta: PackageMeta) -> ModelPackage:
    """Write weights and item. The item comes last and carries the weights' checksum.

    Args:
        url: Folder or object-store prefix; what it held is replaced file by file.
        model: The trained network.
        meta: What to say about it.

    Returns:
        The package, as ``load_package`` would read it.
    """
    from safetensors.torch import save

    data = save({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()})
    n_parameters = sum(p.numel() for p in model.parameters())
    write_bytes(join(url, WEIGHTS), data)
    digest = hashlib.sha256(data).hexdigest()
    write_json(join(url, ITEM), to_item(meta, digest, len(data), n_parameters))
    return ModelPackage(url, meta, digest)


def load_package(url: str) -> ModelPackage:
    """Read a package and verify the checksum of its weights.

    Args:
        url: Folder or prefix of the package, or its ``item.json``.

    Raises:
        ModelError: There is none, it is not eoray's, or its weights are others.
    """
    url = url.removesuffix(f"/{ITEM}")
    try:
        item = read_json(join(url, ITEM))
        data = read_bytes(join(url, WEIGHTS))
    except FileNotFoundError as error:
        raise ModelError(
            f"no model at {url!r}: {ITEM} or {WEIGHTS} is missing; run fit, or correct the path"
        ) from error
    except ValueError as error:
        raise ModelError(f"{ITEM} of model {url!r} is no JSON: {error}; run fit again") from error
    properties = item.get("properties", {})
    if "eoray:recipe" not in properties:
        raise ModelError(
            f"model {url!r} does not say which input it reads (no 'eoray:recipe' in {ITEM}); "
            "only packages written by eoray can be used"
        )
    digest = item["assets"]["model"]["file:checksum"].removeprefix("1220")
    _check_digest(data, digest, url)
    return ModelPackage(url, _from_item(item), digest)


def _check_digest(data: bytes, digest: str, url: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise ModelError(
            f"checksum of {join(url, WEIGHTS)!r} is {found[:12]} but {ITEM} says {digest[:12]}; "
            "the file is damaged or of another fit: run fit again or copy both files"
        )


def to_item(meta: PackageMeta, digest: str, n_bytes: int, n_parameters: int) -> dict[str, Any]:
    """Describe a model as a STAC 1.1 item with the MLM extension.

    Args:
        meta: What to say.
        digest: SHA-256 of the weights, hex.
        n_bytes: Size of the weights file.
        n_parameters: Parameters of the network.

    Returns:
        A dict ready for JSON. It holds no clock time: equal fits give equal items.
    """
    from datetime import datetime

    import pystac
    import shapely

    start, end = meta.seasons[0].split("/")[0], meta.seasons[-1].split("/")[1]
    item = pystac.Item(
        id=meta.name,
        geometry=shapely.geometry.mapping(shapely.box(*meta.bbox)),
        bbox=list(meta.bbox),
        datetime=None,
        start_datetime=datetime.fromisoformat(f"{start}T00:00:00+00:00"),
        end_datetime=datetime.fromisoformat(f"{end}T00:00:00+00:00"),
        properties=_properties(meta, n_parameters),
        stac_extensions=[MLM_SCHEMA, FILE_SCHEMA, CLASSIFICATION_SCHEMA],
    )
    item.add_asset(
        "model",
        pystac.Asset(
            href=f"./{WEIGHTS}",
            title=f"Weights of {meta.name}",
            media_type="application/vnd.safetensors",
            roles=["mlm:model", "mlm:weights", "data"],
            extra_fields={
                "mlm:artifact_type": "safetensors.torch.save_file",
                "file:checksum": f"1220{digest}",
                "file:size": n_bytes,
            },
        ),
    )
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def _properties(meta: PackageMeta, n_parameters: int) -> dict[str, Any]:
    recipe = meta.recipe
    return {
        "description": (
            f"Land-cover segmentation of {recipe.n_periods} consecutive composites "
            f"({recipe.product}); {len(meta.legend.names)} classes"
        ),
        "mlm:name": meta.name,
        "mlm:architecture": "U-Net" if meta.spec.name == "unet" else meta.spec.name,
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "pytorch",
        "mlm:pretrained": False,
        "mlm:pretrained_source": None,
        "mlm:total_parameters": n_parameters,
        "mlm:accelerator": None,
        "mlm:accelerator_constrained": False,
        "mlm:hyperparameters": dict(meta.training.get("options", {})),
        "mlm:input": [_input(meta)],
        "mlm:output": [_output(meta)],
        "eoray:recipe": recipe.to_dict(),
        "eoray:recipe_hash": recipe.hash,
        "eoray:normalisation": {"mean": list(meta.normal.mean), "std": list(meta.normal.std)},
        "eoray:legend": {"names": list(meta.legend.names), "colours": list(meta.legend.colours)},
        "eoray:model": meta.spec.to_dict(),
        "eoray:seasons": list(meta.seasons),
        "eoray:chip_px": meta.chip_px,
        "eoray:metrics": dict(meta.metrics),
        "eoray:training": dict(meta.training),
    }


def _input(meta: PackageMeta) -> dict[str, Any]:
    recipe = meta.recipe
    scaling: list[dict[str, Any]] = [
        {"type": "z-score", "mean": mean, "stddev": std}
        for mean, std in zip(meta.normal.mean, meta.normal.std, strict=True)
    ]
    flags = {
        "type": "processing",
        "format": "text",
        "expression": "1 where all bands exist, else 0",
    }
    return {
        "name": f"{recipe.n_periods} composites x {len(recipe.bands)} bands, then visible flags",
        "bands": [{"name": band} for band in recipe.bands],
        "input": {
            "shape": [-1, recipe.n_channels, meta.chip_px, meta.chip_px],
            "dim_order": ["batch", "channel", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [*scaling, *[flags] * recipe.n_periods],
        "resize_type": None,
        "pre_processing_function": {
            "format": "python",
            "expression": "eoray.chips.recipe:prepare_input",
        },
        "description": f"channels in order: {', '.join(recipe.channel_names)}",
    }


def _output(meta: PackageMeta) -> dict[str, Any]:
    legend = meta.legend
    return {
        "name": "land cover",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, len(legend.names), meta.chip_px, meta.chip_px],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": [
            {"value": i, "name": name, "color_hint": colour.lstrip("#").upper()}
            for i, name, colour in zip(legend.ids, legend.names, legend.colours, strict=True)
        ],
        "post_processing_function": {
            "format": "text",
            "expression": "softmax over class; class id = position of the largest + 1; 0 unmapped",
        },
    }


def _from_item(item: Mapping[str, Any]) -> PackageMeta:
    p = item["properties"]
    spec, normal, legend = p["eoray:model"], p["eoray:normalisation"], p["eoray:legend"]
    west, south, east, north = item["bbox"]
    return PackageMeta(
        name=item["id"],
        spec=ModelSpec(spec["name"], spec["n_channels"], spec["n_classes"], spec["options"]),
        recipe=InputRecipe.from_dict(p["eoray:recipe"]),
        normal=Normalisation(tuple(normal["mean"]), tuple(normal["std"])),
        legend=Legend(tuple(legend["names"]), tuple(legend["colours"])),
        seasons=tuple(p["eoray:seasons"]),
        bbox=(west, south, east, north),
        chip_px=p["eoray:chip_px"],
        metrics=p["eoray:metrics"],
        training=p["eoray:training"],
    )
