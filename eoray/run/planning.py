"""From a run file to scenes and tasks: search once, freeze the items, resolve, group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eoray import storage
from eoray.cube.mask import MaskRecipe, clear_classes
from eoray.cube.scenes import CubeRecipe, SceneRow, plan_scenes
from eoray.errors import CatalogError
from eoray.grid import Zone
from eoray.reading.grids import check_grids
from eoray.run.aoi import Aoi, resolve_aoi
from eoray.sentinel2 import resolve_bands
from eoray.timeline import DateRange

if TYPE_CHECKING:
    import pystac

    from eoray.catalog.lineage import LineageReport
    from eoray.catalog.scene import Resolution, Scene
    from eoray.config import MaskSection, RunConfig
    from eoray.cube.layout import TimeEntry
    from eoray.run.session import Run


@dataclass(frozen=True, slots=True)
class CubePlan:
    """Everything that the cube stage reads."""

    aoi: Aoi
    items_hash: str
    """SHA-256 of the frozen items."""
    resolution: Resolution
    lineage: LineageReport
    recipe: CubeRecipe
    entries: dict[Zone, list[TimeEntry]]
    rows: list[SceneRow]

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """Scenes that some row reads."""
        return self.resolution.scenes


def plan_cube(run: Run, *, freeze: bool) -> CubePlan:
    """Plan the cube stage.

    Args:
        run: The run file and its folder. Frozen items of an earlier attempt are read if there.
        freeze: Write the snapshot after a search, so that later attempts never search again.

    Raises:
        ConfigError: The place, time or bands cannot be used.
        CatalogError: No scenes, or items that cannot be used.
        GridError: Files that would have to be resampled.
    """
    from eoray.catalog.lineage import describe_lineage
    from eoray.catalog.scene import resolve_scenes
    from eoray.catalog.snapshot import hash_items, write_snapshot

    config, snapshot_url = run.config, run.paths.snapshot
    grid = config.cube.own_grid
    aoi = resolve_aoi(config.aoi, run.folder, grid)
    days = DateRange.parse(config.time)
    bands = resolve_bands(config.cube.bands)
    items, known_hash = _items(run, aoi, days)
    resolution = resolve_scenes(
        items,
        provider=config.source.provider,
        lineage=_lineage(config),
        bands=bands,
        offset=config.source.offset,
        errors="record",
        require_scl=config.cube.mask.method == "scl",
    )
    check_grids(resolution.scenes, bands, warp=config.cube.warp, grid=grid)
    entries, rows = plan_scenes(resolution.scenes, aoi.tiles)
    if not rows:
        raise CatalogError(
            f"none of the {len(resolution.scenes)} scenes touches a tile of the aoi; check aoi "
            "and source.collection"
        )
    items_hash = known_hash or hash_items(items)
    if freeze and not known_hash:
        write_snapshot(items, snapshot_url)
    start, end = days.bounds
    return CubePlan(
        aoi=aoi,
        items_hash=items_hash,
        resolution=resolution,
        lineage=describe_lineage(resolution.scenes, start=start, end=end),
        recipe=cube_recipe(config, bands),
        entries=entries,
        rows=rows,
    )


def cube_recipe(config: RunConfig, bands: Sequence[str]) -> CubeRecipe:
    """The part of a run file that two cubes must share."""
    return CubeRecipe(
        bands=tuple(bands),
        mask=mask_recipe(config.cube.mask),
        lineage=_lineage_parameters(config),
        collection=config.source.collection,
        warp=config.cube.warp,
        grid=config.cube.own_grid,
    )


def mask_recipe(mask: MaskSection) -> MaskRecipe:
    """How the run file says that SCL becomes a mask."""
    if mask.method == "none":
        return MaskRecipe(clear=tuple(range(1, 12)), cloud_m=0, shadow_m=0)
    return MaskRecipe(clear_classes(mask.scl_clear), mask.dilate_cloud_m, mask.dilate_shadow_m)


def _lineage_parameters(config: RunConfig) -> dict[str, Any]:
    lineage = config.source.lineage
    return {
        "provider": config.source.provider,
        "baseline_min": lineage.baseline_min,
        "mixed": lineage.mixed,
    }


def _lineage(config: RunConfig) -> Any:
    from eoray.catalog.lineage import Lineage

    lineage = config.source.lineage
    return Lineage(baseline_min=lineage.baseline_min, mixed=lineage.mixed)


def _items(run: Run, aoi: Aoi, days: DateRange) -> tuple[list[pystac.Item], str]:
    """Frozen items and their hash, or a fresh search and no hash yet."""
    from eoray.catalog.search import search_items
    from eoray.catalog.snapshot import read_snapshot

    source = run.config.source
    if storage.exists(run.paths.snapshot):
        return read_snapshot(run.paths.snapshot)
    start, end = days.bounds
    items = search_items(
        run.resolve(source.catalog),
        aoi=aoi.geometry,
        start=start,
        end=end,
        collection=source.collection,
        max_cloud_pct=source.max_cloud_pct,
        query=source.query,
    )
    return items, ""
