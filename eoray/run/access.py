"""Whether what a run file names is reached from where this is asked: outputs, catalogue, scenes.

The driver finds out too, before any work; this is for a pod with the account of the runs, before
the first run, and for a laptop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from eoray import storage
from eoray.buckets import use_buckets
from eoray.errors import EorayError
from eoray.k8s.doctor import Finding
from eoray.masking import mask
from eoray.run.aoi import resolve_aoi
from eoray.run.planning import resolve_items
from eoray.run.probe import probe_inputs, probe_store
from eoray.run.session import Run

if TYPE_CHECKING:
    from pathlib import Path

    import pystac

    from eoray.catalog.scene import Scene
    from eoray.config import RunConfig

_TIMEOUT_S = 20.0
"""Of a request to the catalogue, which is tried twice."""


def examine_access(config: RunConfig, folder: Path) -> list[Finding]:
    """Try what a run needs of the outside, in a few requests; nothing is left behind.

    Args:
        config: The run.
        folder: Where its relative paths start.

    Returns:
        A finding each for the store, the catalogue and the scenes.
    """
    use_buckets({url: section.bucket() for url, section in config.storage.items()})
    run = Run(config, folder)
    catalog, items = _catalog(run)
    return [_store(run.paths.store), catalog, _scenes(config, items)]


def _store(url: str) -> Finding:
    """Write, read, replace and delete what a run would."""
    if storage.is_local(url):
        return Finding(
            "store", "unknown", f"{url!r} is a folder, which pods see by a claim alone",
            "the driver tries it before any work",
        )  # fmt: skip
    try:
        probe_store(url)
    except EorayError as error:
        return _bad("store", error)
    return Finding("store", "ok", f"{url!r} can be written, read and deleted from")


def _catalog(run: Run) -> tuple[Finding, list[pystac.Item]]:
    """Ask for the items over one point of the place, and give them."""
    from eoray.catalog.search import Limits, search_items

    source, (start, end) = run.config.source, run.config.days.bounds
    url = run.resolve(source.catalog)
    try:
        place = resolve_aoi(run.config.aoi, run.folder, run.config.cube.own_grid).geometry
        items = search_items(
            url,
            aoi=place.representative_point(),
            start=start,
            end=end,
            collection=source.collection,
            limits=Limits(timeout_s=_TIMEOUT_S, retries=1),
        )
    except (EorayError, OSError) as error:
        return _bad("catalogue", error), []
    said = f"{mask(url)!r} has {len(items)} items over a point of the place"
    return Finding("catalogue", "ok", said), items


@dataclass(frozen=True, slots=True)
class _Read:
    """Stands for a row of the plan."""

    scenes: tuple[Scene]


def _scenes(config: RunConfig, items: Sequence[pystac.Item]) -> Finding:
    """Read the header of a file of the first, the middle and the last of the items."""
    if not items:
        return Finding("scenes", "unknown", "no items to look at", "mend the catalogue's line")
    try:
        scenes = resolve_items(config, items).scenes
        probe_inputs([_Read((scene,)) for scene in scenes])
    except EorayError as error:
        return _bad("scenes", error)
    host = urlsplit(scenes[0].assets[0].href)
    return Finding("scenes", "ok", f"{host.scheme or 'file'}://{host.netloc} gives them out")


def _bad(what: str, error: BaseException) -> Finding:
    """An error whose text ends with its remedy."""
    said, _, remedy = mask(" ".join(str(error).split())).rpartition("; ")
    return Finding(what, "bad", said or remedy, remedy if said else "run `eoray plan` to see more")
