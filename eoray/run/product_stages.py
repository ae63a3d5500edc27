"""The stages for readers: assess, publish, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray import storage
from eoray.cube.layout import group_path
from eoray.run.record import read_record, versions
from eoray.run.stages import StageContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from eoray.assess.sample import MapTile
    from eoray.cube.read import CubeReader
    from eoray.grid import Tile
    from eoray.publish.maps import PublishedCog


def map_product(context: StageContext) -> str | None:
    """Name of the run's map, where it was made."""
    name = f"map-{context.config.name}"
    return name if name in context.reader().products() else None


def change_name(context: StageContext) -> str | None:
    """Name of the run's change product, where it was made."""
    name = f"change-{context.config.name}"
    return name if name in context.reader().products() else None


def run_assess(context: StageContext) -> dict[str, Any]:
    """Draw a probability sample of the map; where a reference is named, estimate from it."""
    from eoray.assess.assessment import assess_map
    from eoray.assess.design import SamplePlan
    from eoray.assess.reference import RasterReference
    from eoray.assess.sample import draw_sample

    product = map_product(context)
    if product is None:
        return _nothing("this run has no map to assess")
    reader = context.reader()
    settings = context.config.assess
    plan = SamplePlan(settings.n_samples, settings.min_per_stratum, settings.seed)
    tiles = [tile for tile in reader.tiles(product) if tile in context.aoi_tiles(product)]
    names = class_names(reader, product)
    read = map_reader(reader, product)
    sample_url = storage.join(context.paths.outputs, "sample.geojson")
    if settings.reference is None:
        draw_sample(tiles, read, plan, names=names).write(sample_url)
        return {**_nothing("no assess.reference: the sample is drawn, not answered")} | {
            "outputs": [sample_url]
        }
    place = Path(context.run.resolve(settings.reference))
    reference = RasterReference.of_folder(place) if place.is_dir() else RasterReference((place,))
    assessment = assess_map(tiles, read, reference, classes=names, plan=plan)
    assessment.sample.write(sample_url)
    url = storage.join(context.paths.outputs, "assess.json")
    storage.write_json(url, assessment.to_dict())
    return {
        "outputs": [url, sample_url],
        "tasks": len(assessment.sample),
        "skipped": 0,
        "failed_reads": 0,
        "overall_accuracy": assessment.table.overall.to_dict(),
    }


def _nothing(why: str) -> dict[str, Any]:
    return {"outputs": [], "tasks": 0, "skipped": 0, "failed_reads": 0, "note": why}


def class_names(reader: CubeReader, product: str) -> dict[int, str]:
    """Class id to name of a map."""
    names = reader.attrs(product)["classes"]
    return {i: str(name) for i, name in enumerate(names, start=1)}


def map_reader(reader: CubeReader, product: str) -> Callable[[Tile], MapTile]:
    """Give the newest classes of a tile."""
    from eoray.assess.sample import MapTile

    def read(tile: Tile) -> MapTile:
        newest = int(reader.entries(product, tile.zone).index[-1])
        classes = reader.read(
            product,
            tile.zone,
            "class",
            window=tile.window(10),
            resolution_m=10,
            index=[newest],
        )
        return MapTile(classes[0])

    return read


def run_publish(context: StageContext) -> dict[str, Any]:
    """Write COGs of the map and of change, and a STAC collection beside them."""
    from eoray.publish.maps import publish_change, publish_map
    from eoray.publish.stac import write_stac

    reader, paths, config = context.reader(), context.paths, context.config
    cogs: list[PublishedCog] = []
    tags = {"notice": notice(context), "run": paths.key}
    product, change = map_product(context), change_name(context)
    if product is not None:
        cogs += publish_map(reader, product, paths.outputs, name=config.name, tags=tags)
    if change is not None:
        days = config.days
        period = (days.start.isoformat(), days.end.isoformat())
        cogs += publish_change(
            reader, change, paths.outputs, name=config.name, period=period, tags=tags
        )
    if not cogs:
        return _nothing("this run has neither a map nor a change product to publish")
    outputs = [storage.join(paths.outputs, part) for part in sorted({_folder(c) for c in cogs})]
    if config.publish.stac:
        card = _card(context, product)
        outputs.append(write_stac(cogs, storage.join(paths.outputs, "stac"), card))
    return {"outputs": outputs, "tasks": len(cogs), "skipped": 0, "failed_reads": 0}


def _folder(cog: PublishedCog) -> str:
    return cog.url.rsplit("/", 2)[-2]


def _card(context: StageContext, product: str | None) -> Any:
    from eoray.publish.legend import legend_of
    from eoray.publish.stac import CollectionCard

    config, reader = context.config, context.reader()
    legend: tuple[Any, ...] = ()
    if product is not None:
        zone = reader.zones(product)[0]
        legend = legend_of(dict(reader.root[f"{group_path(product, zone, 10)}/class"].attrs))
    lineage = config.source.lineage
    return CollectionCard(
        id=config.name,
        title=f"{config.name}: land cover and change from Sentinel-2",
        description=(
            f"Made by eoray from {config.source.collection}, {config.time}. "
            "Sizes of classes in the map are biased by its errors; see assess.json."
        ),
        years=years(context),
        legend=legend,
        license=config.publish.license,
        model_href="../model/item.json" if product is not None else None,
        lineage=f"{config.source.collection}, baseline >= {lineage.baseline_min}",
        software={"eoray": versions()["eoray"]},
        is_synthetic=is_synthetic(context),
    )


def years(context: StageContext) -> tuple[int, ...]:
    """Years of the scenes in the store that the run asked for."""
    reader, days = context.reader(), context.config.days
    found: set[int] = set()
    for zone in reader.zones("s2"):
        times = reader.entries("s2", zone).time.astype("datetime64[Y]").astype(int) + 1970
        found.update(int(year) for year in np.unique(times))
    return tuple(y for y in sorted(found) if days.start.year <= y <= days.end.year)


def is_synthetic(context: StageContext) -> bool:
    """Tell whether the scenes come from the package's own archive."""
    catalog = Path(context.run.resolve(context.config.source.catalog))
    return (catalog.parent / "archive.json").is_file()


def notice(context: StageContext) -> str:
    """The notice that the terms of Sentinel data ask for."""
    from eoray.publish.stac import copernicus_notice

    return copernicus_notice(years(context), is_synthetic=is_synthetic(context))


def run_report(context: StageContext) -> dict[str, Any]:
    """Write the page of the run and its JSON twin from what the stages left."""
    from eoray.report import write_report
    from eoray.run.collect import collect_report

    data = collect_report(context, read_record(context.paths))
    path = write_report(data, storage.join(context.paths.outputs, "report"))
    return {"outputs": [str(path)], "tasks": 1, "skipped": 0, "failed_reads": 0}
