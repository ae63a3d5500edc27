"""From a run file to scenes and tasks: search once, freeze the items, resolve, group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from eoray import storage
from eoray.cube.mask import MaskRecipe, clear_classes
from eoray.cube.plan import SceneRows, plan_scenes
from eoray.cube.scenes import CubeRecipe
from eoray.errors import CatalogError, ConfigError
from eoray.grid import Zone
from eoray.reading.grids import check_grids
from eoray.reading.overviews import reads_overviews
from eoray.run.aoi import Aoi, resolve_aoi
from eoray.run.fallback import add_fallback
from eoray.sentinel2 import resolve_bands
from eoray.timeline import DateRange

if TYPE_CHECKING:
    import pystac

    from eoray.catalog.audit import Audit
    from eoray.catalog.lineage import LineageReport
    from eoray.catalog.scene import Resolution, Scene
    from eoray.config import RunConfig
    from eoray.cube.layout import TimeEntry
    from eoray.models.clouds import OmniCloudMask
    from eoray.run.session import Run


@dataclass(frozen=True, slots=True)
class CubePlan:
    """Everything that the cube stage reads."""

    aoi: Aoi
    items_hash: str
    """SHA-256 of the frozen items."""
    resolution: Resolution
    lineage: LineageReport
    audit: Audit
    """Passes that the catalogue lacks."""
    recipe: CubeRecipe
    entries: dict[Zone, list[TimeEntry]]
    rows: SceneRows

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
    from eoray.catalog.audit import audit_scenes
    from eoray.catalog.lineage import describe_lineage
    from eoray.catalog.snapshot import hash_items, write_snapshot
    from eoray.cube.terrain import check_dem

    config, snapshot_url = run.config, run.paths.snapshot
    grid = config.cube.own_grid
    aoi = resolve_aoi(config.aoi, run.folder, grid)
    days = DateRange.parse(config.time)
    bands = resolve_bands(config.cube.bands)
    terrain = None
    if config.cube.dem is not None:
        terrain = check_dem(
            run.resolve(config.cube.dem),
            aoi.tiles,
            retries=config.run.retries,
            seconds=config.run.read_seconds,
        )
    clouds = cloud_classifier(config, run.resolve)
    context = [] if clouds is None else [band for band in clouds.bands if band not in bands]
    read = (*bands, *context)
    items, known_hash = _items(run, aoi, days)
    resolution = resolve_items(config, items, context)
    resolution = _under_the_sun(resolution, config.cube.max_sun_zenith)
    check_grids(resolution.scenes, read, warp=config.cube.warp, grid=grid)
    overviews = reads_overviews(resolution.scenes, bands, grid)
    if grid is not None and overviews and config.source.fallback:
        raise ConfigError(
            f"cube.grid {grid.name!r} is so coarse that overviews are read, which "
            "source.fallback's catalogues may have made otherwise; leave source.fallback out"
        )
    resolution = add_fallback(run, resolution, aoi, read, freeze=freeze)
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
        lineage=describe_lineage(resolution.scenes),
        audit=audit_scenes(
            resolution.scenes,
            aoi.tiles,
            start=start,
            end=min(end, datetime.now(UTC)),  # passes to come are not missing
            aoi=aoi.geometry,
        ),
        recipe=replace(cube_recipe(config, bands), terrain=terrain, overviews=overviews),
        entries=entries,
        rows=rows,
    )


def resolve_items(
    config: RunConfig, items: Sequence[pystac.Item], context: Sequence[str] = ()
) -> Resolution:
    """Scenes of some items, by the rules of a run file, with bands that a mask looks at."""
    from eoray.catalog.scene import resolve_scenes

    return resolve_scenes(
        items,
        provider=config.source.provider,
        lineage=_lineage(config),
        bands=(*resolve_bands(config.cube.bands), *context),
        offset=config.source.offset,
        errors="record",
        require_scl=config.cube.mask.method.startswith("scl"),
    )


def _under_the_sun(resolution: Resolution, limit_deg: float | None) -> Resolution:
    """Leave out scenes under a low sun; one that states no sun stays.

    Raises:
        CatalogError: None is left.
    """
    from eoray.catalog.scene import Skipped

    if limit_deg is None:
        return resolution
    kept = tuple(s for s in resolution.scenes if not s.sun_zenith > limit_deg)
    low = [
        Skipped(s.item_id, f"its sun zenith is {s.sun_zenith:.1f}, beyond {limit_deg:g} degrees")
        for s in resolution.scenes
        if s.sun_zenith > limit_deg
    ]
    if not kept:
        raise CatalogError(
            f"the sun zenith of all {len(low)} scenes, such as {low[0].item_id}, lies beyond "
            f"cube.max_sun_zenith {limit_deg:g}; choose other months, or a higher limit"
        )
    skipped = sorted([*resolution.skipped, *low], key=lambda one: (one.item_id, one.reason))
    return replace(resolution, scenes=kept, skipped=tuple(skipped))


def audit_elsewhere(run: Run, plan: CubePlan, also: Sequence[str] = ()) -> tuple[Audit, list[str]]:
    """Ask the catalogue again for the passes that a plan lacks, without the run's filters.

    Its own collection is asked first, then the others in which the provider keeps Sentinel-2.

    Args:
        run: The run file.
        plan: Its plan.
        also: Further collections of the same catalogue.

    Returns:
        The audit with ``found_in`` of every gap, and lines on what was asked.
    """
    from eoray.catalog.audit import ask_elsewhere
    from eoray.catalog.providers import sibling_collections

    source = run.config.source
    siblings = sibling_collections(source.catalog, source.collection)
    words = {
        source.collection: "left out by the run's own filters or lineage",
        **{name: f"in collection {name}" for name in (*siblings, *also)},
    }
    found: dict[str, list[pystac.Item]] = {}
    lines = []
    for collection, what in words.items():
        try:
            found[what] = _search(run, plan.aoi, collection)
            lines.append(f"asked     {collection}, unfiltered: {len(found[what])} items")
        except CatalogError as error:
            lines.append(f"asked     {collection}, unfiltered: {error}")
    return ask_elsewhere(plan.audit, found), lines


def _search(run: Run, aoi: Aoi, collection: str) -> list[pystac.Item]:
    """What a collection lists of the run's place and time, whatever its quality."""
    from eoray.catalog.search import search_items

    start, end = run.config.days.bounds
    return search_items(
        run.resolve(run.config.source.catalog),
        aoi=aoi.geometry,
        start=start,
        end=end,
        collection=collection,
    )


def cube_recipe(config: RunConfig, bands: Sequence[str]) -> CubeRecipe:
    """The part of a run file that two cubes must share."""
    return CubeRecipe(
        bands=tuple(bands),
        mask=mask_recipe(config),
        lineage=_lineage_parameters(config),
        collection=config.source.collection,
        warp=config.cube.warp,
        grid=config.cube.own_grid,
    )


def mask_recipe(config: RunConfig) -> MaskRecipe:
    """How the run file says that a scene becomes a mask."""
    mask = config.cube.mask
    if mask.method == "none":
        return MaskRecipe(clear=tuple(range(1, 12)), cloud_m=0, shadow_m=0)
    clouds = cloud_classifier(config)
    return MaskRecipe(
        clear_classes(mask.scl_clear),
        mask.dilate_cloud_m,
        mask.dilate_shadow_m,
        learned="" if clouds is None else clouds.name,
        with_scl=mask.method.startswith("scl"),
    )


def cloud_classifier(
    config: RunConfig, resolve: Callable[[str], str] = str
) -> OmniCloudMask | None:
    """The networks that the mask of a run file asks for; None where SCL tells."""
    mask = config.cube.mask
    if "omnicloudmask" not in mask.method:
        return None
    from eoray.models.clouds import CloudNetwork, OmniCloudMask

    return OmniCloudMask(
        tuple(CloudNetwork(resolve(w.path), w.sha256.lower(), w.encoder) for w in mask.weights)
    )


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
