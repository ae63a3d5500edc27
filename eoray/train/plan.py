"""Plan a fit: chips, split, input recipe and options, before a pixel is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from eoray.chips.dataset import polygons_of
from eoray.chips.index import Chip, plan_chips
from eoray.chips.labels import LabelSet, Legend, read_labels
from eoray.chips.recipe import (
    InputRecipe,
    Season,
    find_observed,
    find_seasons,
    to_canonical_json,
    view_of,
)
from eoray.chips.split import Split, SplitOptions, split_by_place
from eoray.errors import ConfigError, DataError
from eoray.grid import Tile
from eoray.models.registry import ModelSpec
from eoray.sentinel2 import resolve_bands

EVALUATION_PX, EVALUATION_HALO_PX = 128, 32
"""Validation windows and the margin read around them: as in prediction, not as in training."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to fit. Names are those of the run file's ``fit`` section."""

    labels: str
    """Vector file of polygons."""
    product: str
    """Composite product to read."""
    time: tuple[str, str]
    """(first, last) day of the composites, both included."""
    bands: tuple[str, ...] = ()
    """Band ids or common names; empty takes all that the product has."""
    class_property: str = "class"
    classes: tuple[str, ...] = ()
    """Legend in order; empty takes the classes that occur, by name."""
    n_periods: int | None = None
    """Composites per sample; None takes one year."""
    season_start: tuple[int, int] | None = None
    """(month, day) on which a sample begins; None takes that of the first composite in time."""
    model: str = "unet"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    """Such as ``{"encoder": "resnet18"}``."""
    chip_px: int = 64
    batch_size: int = 16
    """Chips per step over all workers."""
    steps: int = 120
    learning_rate: float = 4e-3
    """Peak of the one-cycle schedule."""
    weight_decay: float = 1e-2
    seed: int = 0
    split: SplitOptions = field(default_factory=SplitOptions)
    border_m: float = 10.0
    """Pixels nearer to a polygon's outline are not used."""
    checkpoint_every: int = 50
    precision: str = "auto"
    """``fp32``, ``bf16``, or ``auto``: bf16 on a GPU."""
    torch_threads: int = 1
    """Threads of torch in each worker; fixed, because sums depend on it."""
    augment: bool = True


@dataclass(frozen=True, slots=True)
class FitPlan:
    """Everything that decides a fit. Two fits of one plan give the same weights."""

    name: str
    source: Any
    """Address of the cube."""
    options: FitOptions
    recipe: InputRecipe
    seasons: tuple[Season, ...]
    labels: LabelSet
    split: Split
    training: tuple[Chip, ...]
    validation: tuple[Chip, ...]
    spec: ModelSpec
    tiles: tuple[Tile, ...]
    """Tiles that hold something of a season."""
    input_digest: str
    """16 hex digits over the composites of these tiles: equal means equal pixels."""

    @property
    def key(self) -> str:
        """8 hex digits over all that decides the weights; names the checkpoints' folder."""
        options = asdict(self.options)
        for name in ("labels", "checkpoint_every", "season_start"):  # the recipe has the last
            options.pop(name)
        digest = hashlib.sha256()
        digest.update(to_canonical_json([self.recipe.to_dict(), options]).encode())
        digest.update(to_canonical_json([self.labels_hash, self.input_digest]).encode())
        return digest.hexdigest()[:8]

    @property
    def labels_hash(self) -> str:
        """16 hex digits over outlines and classes of the labels."""
        digest = hashlib.sha256()
        for polygon in self.labels.polygons:
            digest.update(bytes([polygon.zone, polygon.class_id]) + polygon.wkb)
        return digest.hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """What ``plan`` prints about the fit."""
        names = self.labels.legend.names
        return {
            "polygons": len(self.labels.polygons),
            "polygons_outside": self.labels.n_outside,
            "polygons_training": len(self.split.training),
            "polygons_validation": len(self.split.validation),
            "polygons_in_buffer": len(self.split.dropped),
            "chips_training": len(self.training),
            "chips_validation": len(self.validation),
            "channels": self.recipe.n_channels,
            "seasons": [season.key for season in self.seasons],
            "steps": self.options.steps,
            "classes": {
                name: {
                    "blocks_training": blocks[0],
                    "blocks_validation": blocks[1],
                    "pixels_training": sum(chip.counts[i] for chip in self.training),
                    "pixels_validation": sum(chip.counts[i] for chip in self.validation),
                }
                for i, (name, blocks) in enumerate(zip(names, self.split.class_blocks, strict=True))
            },
        }


def plan_fit(
    options: FitOptions, source: Any, tiles: Sequence[Tile] | None = None, *, name: str = "model"
) -> FitPlan:
    """Decide what a fit reads and how it is checked.

    Args:
        options: See FitOptions.
        source: Address of the cube, or something that answers like its reader.
        tiles: Tiles to use; None takes all of the product.
        name: Of the model.

    Returns:
        The plan. Labels and time tables were read, no pixel.

    Raises:
        DataError: Labels or composites cannot be used; a class has no training sample.
        ConfigError: An option is out of range, or the cube lacks the product or a band.
    """
    _check_options(options)
    view = view_of(source)
    if options.product not in view.products():
        raise ConfigError(
            f"fit reads product {options.product!r} but the cube holds "
            f"{', '.join(view.products()) or 'nothing'}; run the cube stage with a composite, or "
            "name one of these"
        )
    seasons = find_seasons(
        view,
        options.product,
        options.time,
        n_periods=options.n_periods,
        season_start=options.season_start,
    )
    observed = _observed(view, options, seasons, tiles)
    tiles = tuple(sorted({tile for season in observed for tile in season}))
    legend = Legend(tuple(options.classes)) if options.classes else None
    labels = read_labels(
        options.labels, tiles, class_property=options.class_property, legend=legend
    )
    n_classes = len(labels.legend.names)
    split = split_by_place(labels.polygons, n_classes, options.split, seed=options.seed)
    recipe = _recipe(options, view, seasons[0])
    spec = ModelSpec(options.model, recipe.n_channels, n_classes, dict(options.model_options))
    plan = FitPlan(
        name=name,
        source=source,
        options=options,
        recipe=recipe,
        seasons=tuple(seasons),
        labels=labels,
        split=split,
        training=(),
        validation=(),
        spec=spec,
        tiles=tiles,
        input_digest=_digest(seasons, observed),
    )
    plan = replace(
        plan,
        training=_chips(plan, "training", options.chip_px, observed),
        validation=_chips(plan, "validation", EVALUATION_PX, observed),
    )
    _check_samples(plan)
    return plan


def _check_options(options: FitOptions) -> None:
    for name in ("chip_px", "batch_size", "steps", "checkpoint_every", "torch_threads"):
        value = getattr(options, name)
        if value < 1:
            raise ConfigError(f"fit.{name} is {value!r}; it must be at least 1")
    if options.chip_px % 32:
        raise ConfigError(f"fit.chip_px is {options.chip_px}; give a multiple of 32 pixels")
    if options.precision not in ("auto", "fp32", "bf16"):
        raise ConfigError(f"fit.precision is {options.precision!r}; give auto, fp32 or bf16")


def _recipe(options: FitOptions, view: Any, season: Season) -> InputRecipe:
    zone, index = season.index[0]
    there = view.bands(options.product, zone)
    bands = resolve_bands(options.bands) or tuple(there)
    missing = [band for band in bands if band not in there]
    if missing:
        raise ConfigError(
            f"fit.bands names {', '.join(missing)} but product {options.product!r} has "
            f"{', '.join(there)}; take these, or build the cube with more bands"
        )
    return InputRecipe(
        product=options.product,
        bands=bands,
        n_periods=len(index),
        season_start=(int(season.start[5:7]), int(season.start[8:10])),
        parameters=to_canonical_json(view.attrs(options.product)),
    )


def _observed(
    view: Any, options: FitOptions, seasons: Sequence[Season], tiles: Sequence[Tile] | None
) -> list[dict[Tile, str]]:
    """Tiles to use, with the digest of their pixels, by season."""
    wanted = None if tiles is None else set(tiles)
    observed = [
        {
            tile: digest
            for tile, digest in find_observed(view, options.product, season).items()
            if wanted is None or tile in wanted
        }
        for season in seasons
    ]
    if not any(observed):
        raise DataError(
            f"product {options.product!r} holds no pixel from {options.time[0]} to "
            f"{options.time[1]} in the tiles of this run; choose a time that the cube covers"
        )
    return observed


def _digest(seasons: Sequence[Season], observed: Sequence[Mapping[Tile, str]]) -> str:
    lines = [
        f"{season.key} {tile.id} {digest}"
        for season, tiles in zip(seasons, observed, strict=True)
        for tile, digest in tiles.items()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _chips(
    plan: FitPlan, side: str, size: int, observed: Sequence[Mapping[Tile, str]]
) -> tuple[Chip, ...]:
    return tuple(
        plan_chips(
            polygons_of(plan.labels.polygons, plan.split, side),
            observed,
            len(plan.labels.legend.names),
            size=size,
            resolution_m=plan.recipe.resolution_m,
            border_m=plan.options.border_m,
        )
    )


def _check_samples(plan: FitPlan) -> None:
    for i, name in enumerate(plan.labels.legend.names):
        if not any(chip.counts[i] for chip in plan.training):
            raise DataError(
                f"class {name!r} has no training pixel: its polygons are narrower than twice "
                f"border_m ({plan.options.border_m:g} m) or lie outside the tiles; draw larger "
                "ones or lower fit.border_m"
            )
    if not any(sum(chip.counts) for chip in plan.validation):
        raise DataError(
            f"no pixel is left to validate {Path(plan.options.labels).name!r}; draw larger "
            "polygons, or change fit.split"
        )
