"""Plan a map: the product's layout, its time entries, one row per tile and season."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from eoray.chips.labels import Legend
from eoray.chips.recipe import Season, check_recipe, find_observed, find_seasons, view_of
from eoray.cube.layout import ArraySpec, GroupSpec, ProductSpec, TimeEntry
from eoray.errors import DataError
from eoray.grid import Tile
from eoray.models.package import ModelPackage

CLASS_FILL = 0
"""Not mapped: no composite of the season has all bands there."""

SHARE_FILL = 255
"""Fill of probability and entropy."""

SHARE_STEPS = 200
"""Stored value of 1: steps of 0.005."""


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """How to map. What changes a pixel's value is part of the product's parameters."""

    core_px: int = 128
    """Step between windows."""
    halo_px: int = 32
    batch_size: int = 8
    """Windows per forward pass; fixed with the threads, so that sums come out the same."""
    torch_threads: int = 1
    """Threads of torch in each worker."""
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class PredictRow:
    """One task: one tile at one season."""

    key: str
    """Unique among the rows: tile and season."""
    tiles: tuple[Tile, ...]
    """The one tile."""
    entry: str
    """Key of the season."""
    index: tuple[int, ...]
    """Positions of its composites on the product's time axis."""
    periods: tuple[str, ...]
    """Keys of these composites: the entries that the row reads, there and in the tiles around."""


def predict_product(
    name: str, package: ModelPackage, options: PredictOptions | None = None
) -> ProductSpec:
    """Describe the map that a model makes: ``map-NAME`` at 10 m.

    Args:
        name: Of the map.
        package: The model; its hash, recipe and legend become parameters, so that a map of
            another model cannot be mixed in.
        options: Geometry of the windows.

    Returns:
        Arrays ``class`` (uint8, 0 not mapped), ``probability`` of that class and ``entropy`` of
        all classes (uint8, 0 to 200 for 0 to 1, 255 not mapped); dims (time, y, x).
    """
    options = options or PredictOptions()
    meta = package.meta
    return ProductSpec(
        name=f"map-{name}",
        groups=(GroupSpec(meta.recipe.resolution_m, _arrays(meta.legend)),),
        parameters={
            "model": meta.name,
            "model_hash": package.hash,
            "recipe_hash": meta.recipe.hash,
            "input": meta.recipe.product,
            "bands": list(meta.recipe.bands),
            "classes": list(meta.legend.names),
            "colours": list(meta.legend.colours),
            "core_px": options.core_px,
            "halo_px": options.halo_px,
        },
        title=f"Land cover by {meta.name}",
    )


def _arrays(legend: Legend) -> tuple[ArraySpec, ...]:
    share = {"scale_factor": 1 / SHARE_STEPS, "units": "1", "valid_range": [0, SHARE_STEPS]}
    return (
        ArraySpec(
            "class",
            "uint8",
            fill=CLASS_FILL,
            attrs={
                "long_name": "land-cover class",
                "flag_values": list(legend.ids),
                "flag_meanings": " ".join(_word(name) for name in legend.names),
                "flag_colors": " ".join(legend.colours),
            },
        ),
        ArraySpec(
            "probability",
            "uint8",
            fill=SHARE_FILL,
            attrs={"long_name": "probability of the mapped class", **share},
        ),
        ArraySpec(
            "entropy",
            "uint8",
            fill=SHARE_FILL,
            attrs={"long_name": "entropy of the class probabilities, 1 for all equal", **share},
        ),
    )


def _word(name: str) -> str:
    """CF flag meanings are words divided by blanks."""
    return "_".join(name.split())


def plan_predict(
    package: ModelPackage,
    source: Any,
    days: tuple[str, str],
    tiles: Iterable[Tile] | None = None,
) -> tuple[list[TimeEntry], list[PredictRow]]:
    """List what to map.

    Args:
        package: The model.
        source: Address of the cube, or something that answers like its reader.
        days: (first, last) day, both included; every season of the model's calendar inside it
            becomes a map.
        tiles: Tiles to map; None takes all of the product.

    Returns:
        Time entries (one per season, the same in every zone), and rows in order of season and
        tile: one for each tile in which a composite of the season holds something.

    Raises:
        ModelError: The cube's bands, composites or parameters are not the model's.
        DataError: No season lies inside ``days``, or it holds nothing in these tiles.
    """
    view, recipe = view_of(source), package.meta.recipe
    check_recipe(recipe, view, model=package.meta.name)
    seasons = find_seasons(
        view,
        recipe.product,
        days,
        n_periods=recipe.n_periods,
        season_start=recipe.season_start,
    )
    wanted = None if tiles is None else set(tiles)
    rows = [
        PredictRow(f"{season.key}/{tile.id}", (tile,), season.key, index, season.periods)
        for season in seasons
        for tile in find_observed(view, recipe.product, season)
        if (wanted is None or tile in wanted)
        and (index := season.index_of(tile.utm_zone)) is not None
    ]
    if not rows:
        raise DataError(
            f"product {recipe.product!r} holds no pixel from {days[0]} to {days[1]} in the tiles "
            "to map; choose a time and an aoi that the cube covers"
        )
    return [_entry(season) for season in seasons], rows


def _entry(season: Season) -> TimeEntry:
    return TimeEntry(season.key, f"{season.start}T00:00:00.000Z", {"period_end": season.end})
