"""Look products up at other providers once, when a run is planned, so that workers need not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from eoray import storage
from eoray.errors import CatalogError
from eoray.log import get_logger
from eoray.timeline import DateRange

if TYPE_CHECKING:
    import pystac

    from eoray.catalog.scene import Resolution, Scene
    from eoray.config.models import FallbackSection
    from eoray.run.aoi import Aoi
    from eoray.run.session import Run

_SLACK = timedelta(hours=1)
"""Providers date an item by its datatake or by its granule."""


def add_fallback(
    run: Run, resolution: Resolution, aoi: Aoi, bands: Sequence[str], *, freeze: bool
) -> Resolution:
    """Tell the scenes of a run where else their files lie, by ``source.fallback``.

    A catalogue that cannot be asked is left out with a note; the run goes on without it.

    Args:
        run: The run file. Items frozen by an earlier attempt are read if there.
        resolution: The run's scenes.
        aoi: The place.
        bands: Band ids that are read.
        freeze: Keep what was found, so that later attempts never ask again.
    """
    from eoray.catalog.fallback import add_elsewhere
    from eoray.catalog.scene import resolve_products

    others: dict[str, Sequence[Scene]] = {}
    notes = []
    for number, section in enumerate(run.config.source.fallback):
        name = f"source.fallback[{number}] ({section.catalog})"
        try:
            items = _items(run, section, number, aoi)
        except CatalogError as error:
            notes.append(f"{name} is left out: {error}")
            get_logger().warning("fallback", catalog=section.catalog, error=str(error))
            continue
        found = resolve_products(
            items,
            bands=bands,
            provider=section.provider,
            require_scl=run.config.cube.mask.method == "scl",
        )
        others[name] = found
        if freeze:
            _freeze(run, number, items, {scene.item_id for scene in found})
    if not others:
        return replace(resolution, notes=(*resolution.notes, *notes))
    scenes = add_elsewhere(resolution.scenes, others)
    n_there = sum(bool(scene.elsewhere) for scene in scenes)
    notes.append(f"{n_there} of {len(scenes)} items can be read elsewhere too")
    return replace(resolution, scenes=scenes, notes=(*resolution.notes, *notes))


def _items(run: Run, section: FallbackSection, number: int, aoi: Aoi) -> list[pystac.Item]:
    from eoray.catalog.search import search_items
    from eoray.catalog.snapshot import read_snapshot

    frozen = run.paths.fallback(number)
    if storage.exists(frozen):
        return read_snapshot(frozen)[0]
    start, end = DateRange.parse(run.config.time).bounds
    return search_items(
        run.resolve(section.catalog),
        aoi=aoi.geometry,
        start=start - _SLACK,
        end=end + _SLACK,
        collection=section.collection,
    )


def _freeze(run: Run, number: int, items: Sequence[pystac.Item], ids: set[str]) -> None:
    from eoray.catalog.snapshot import write_snapshot

    place = run.paths.fallback(number)
    used = [item for item in items if item.id in ids]
    if used and not storage.exists(place):
        write_snapshot(used, place)
