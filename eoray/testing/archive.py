"""A synthetic Sentinel-2 L2A archive: STAC catalogue, COGs, truth and labels, from one seed.

The archive is a fair opponent, not a kind one: each difficulty of real data is in it, and each
is a switch of ``ArchiveOptions``. Drawing and detecting share no code; seasons here are
double-logistic.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from eoray.errors import ConfigError, StoreError
from eoray.sentinel2 import BANDS_10M, COMMON_NAMES
from eoray.testing.cog import CogLayout, encode_cog, write_bytes
from eoray.testing.frame import Granule, aoi_polygons, ground_frame, list_granules
from eoray.testing.items import asset_file, item_path, make_item, write_catalog, write_json
from eoray.testing.land import build_land
from eoray.testing.options import ArchiveOptions
from eoray.testing.passes import Job, plan_jobs
from eoray.testing.patches import ChangedLand, add_changes
from eoray.testing.render import Picture, Renderer, Site, draw_texture
from eoray.testing.signals import Signals
from eoray.testing.truth import (
    truth_frames,
    write_labels,
    write_legend,
    write_patches,
    write_truth,
)

FORMAT = 2
"""Raised whenever the same options would give other bytes."""

_MARKER, _BUILDING = "archive.json", ".building.json"

Progress = Callable[[int, int], None]
"""Called with the number of items that are complete, and of all."""


def write_archive(
    folder: str | Path,
    options: ArchiveOptions,
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> Path:
    """Draw an archive, or go on with one that was interrupted.

    Files are written under temporary names and renamed; an item's JSON is its last file, and
    ``archive.json`` the archive's. The bytes depend on the options alone, not on the number of
    workers nor on interruptions.

    Args:
        folder: Where the archive stands; made if missing.
        options: What to draw.
        workers: Processes, this one included.
        progress: Told how far the items have got.

    Returns:
        Path of ``catalog.json``.

    Raises:
        ConfigError: The folder holds an archive of other options.
        StoreError: A worker process failed.
    """
    folder = Path(folder)
    stamp = {"format": FORMAT, "options": options.to_dict()}
    if _is_complete(folder, stamp):
        return folder / "catalog.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _BUILDING, stamp)
    studio = Studio(folder, options)
    helpers = [_start_helper(folder, options, i, workers) for i in range(1, workers)]
    try:
        for _ in studio.draw(0, workers):
            if progress is not None:
                progress(studio.n_complete(), len(studio.jobs))
        studio.write_truth()
        failures = [_wait_for(helper) for helper in helpers]
    finally:
        for helper in helpers:
            helper.kill()
            helper.wait()
    if any(failures):
        raise StoreError(
            f"a helper process failed while drawing the archive in {str(folder)!r}: "
            f"{next(filter(None, failures))}; run it again: finished items are kept"
        )
    for leftover in folder.rglob(".*.part"):  # of a process that was killed
        leftover.unlink(missing_ok=True)
    write_catalog(folder, studio.jobs, "eoray synthetic archive")
    write_json(folder / _MARKER, stamp | studio.describe())
    (folder / _BUILDING).unlink()
    return folder / "catalog.json"


def _is_complete(folder: Path, stamp: dict[str, Any]) -> bool:
    for name in (_MARKER, _BUILDING):
        path = folder / name
        if not path.is_file():
            continue
        found = json.loads(path.read_bytes())
        if {key: found.get(key) for key in stamp} != stamp:
            raise ConfigError(
                f"folder {str(folder)!r} holds an archive of other options or of another format "
                f"({name}); choose another folder or delete this one"
            )
        if name == _MARKER:
            return True
    return False


class Studio:
    """Draws the items of one archive; what costs time is made when first needed."""

    def __init__(self, folder: Path, options: ArchiveOptions) -> None:
        """Plan the items.

        Args:
            folder: Of the archive.
            options: What to draw.
        """
        self.folder, self.options = folder, options
        self.granules = list_granules(options)
        self.jobs = plan_jobs(options, self.granules)
        self._renderers: dict[str, Renderer] = {}
        self._sites: dict[str, Site] = {}

    @cached_property
    def layout(self) -> CogLayout:
        """How the files are packed."""
        return CogLayout(block_px=self.options.block_px)

    def draw(self, index: int, workers: int) -> Iterator[Job]:
        """Write the missing items: the own share first, then what others have left.

        Args:
            index: Of this worker.
            workers: How many there are.

        Yields:
            Each job after its item is complete.
        """
        # the few of the other site first: one worker alone lays out its land
        jobs = sorted(self.jobs, key=lambda job: job.granule.site != "south")
        n = len(jobs)
        shares = [jobs[n * i // workers : n * (i + 1) // workers] for i in range(workers)]
        # the others' shares from their far ends: workers meet in the middle, each item is drawn
        # once but for the last
        rest = [job for i, share in enumerate(shares) if i != index for job in share[::-1]]
        for job in shares[index] + rest:
            if not item_path(self.folder, job).is_file():
                self._write_item(job)
                yield job

    def n_complete(self) -> int:
        """How many items are complete."""
        return sum(item_path(self.folder, job).is_file() for job in self.jobs)

    def picture(self, job: Job) -> Picture:
        """Render one item without writing it."""
        return self.renderer(job.granule).draw(job)

    def renderer(self, granule: Granule) -> Renderer:
        """What draws the items of a granule, and knows what stood before it."""
        if granule.mgrs not in self._renderers:
            self._renderers[granule.mgrs] = Renderer(granule, self.site(granule.site))
        return self._renderers[granule.mgrs]

    def site(self, name: str) -> Site:
        """Ground, signals and texture of a site."""
        if name not in self._sites:
            seed = self.options.seed * 2 + (name == "south")
            land = build_land(ground_frame(self.granules, name), seed)
            changed = add_changes(land, self.options, seed)
            signals = Signals.build(changed, self.options, seed, is_south=name == "south")
            texture = draw_texture(land.frame, seed)
            self._sites[name] = Site(signals, texture, self.options)
        return self._sites[name]

    def ground(self, site: str) -> ChangedLand:
        """Segments and changes of a site."""
        return self.site(site).signals.changed

    def _write_item(self, job: Job) -> None:
        picture = self.picture(job)
        path = item_path(self.folder, job)
        path.parent.mkdir(parents=True, exist_ok=True)
        granule = job.granule
        sizes: dict[str, int] = {}
        layers = [(COMMON_NAMES[band], pixels) for band, pixels in picture.bands.items()]
        fine = {COMMON_NAMES[band] for band in BANDS_10M}
        for asset, pixels in [*layers, ("scl", picture.scl)]:
            content = encode_cog(
                pixels,
                origin=(granule.x0, granule.y0),
                resolution_m=10 if asset in fine else 20,
                epsg=granule.epsg,
                layout=self.layout,
            )
            write_bytes(path.parent / asset_file(asset), content)
            sizes[asset] = len(content)
        write_json(path, make_item(job, picture.scl, sizes, self.options.block_px))

    def write_truth(self) -> None:
        """Write truth, labels, areas of interest and legend."""
        truth = self.folder / "truth"
        truth.mkdir(exist_ok=True)
        for frame, site in truth_frames(self.granules):
            write_truth(truth, frame, self.ground(site))
        for site in sorted({granule.site for granule in self.granules}):
            write_patches(truth / f"patches_{site}.csv", self.ground(site))
        frame, site = truth_frames(self.granules[:2])[0]
        write_labels(self.folder / "labels.geojson", frame, self.ground(site), self.options)
        write_legend(self.folder / "legend.json")
        for name, polygon in aoi_polygons(self.granules).items():
            write_json(self.folder / f"{name}.geojson", _feature(name, polygon))

    def describe(self) -> dict[str, Any]:
        """Summary for ``archive.json``."""
        specials: dict[str, list[str]] = {}
        for job in self.jobs:
            if job.special:
                specials.setdefault(job.special, []).append(job.id)
        years = self.options.years
        return {
            "items": len(self.jobs),
            "datatakes": len({job.taken.key for job in self.jobs}),
            "time": f"{years[0]}-01-01/{years[-1]}-12-31",
            "granules": [_describe(granule) for granule in self.granules],
            "areas": sorted(aoi_polygons(self.granules)),
            "specials": specials,
        }


def _describe(granule: Granule) -> dict[str, Any]:
    return {
        "mgrs": granule.mgrs,
        "epsg": granule.epsg,
        "bounds": list(granule.bounds),
        "site": granule.site,
    }


def _feature(name: str, polygon: Any) -> dict[str, Any]:
    from shapely.geometry import mapping

    feature = {"type": "Feature", "properties": {"name": name}, "geometry": mapping(polygon)}
    return {"type": "FeatureCollection", "features": [feature]}


_BOOT = """
import json, sys
order = json.load(sys.stdin)
sys.path[:] = order["path"]
from eoray.testing.archive import help_drawing
help_drawing(order)
"""


def _start_helper(
    folder: Path, options: ArchiveOptions, index: int, workers: int
) -> subprocess.Popen[bytes]:
    """Start a plain interpreter: forking would copy the threads of whoever calls us."""
    helper = subprocess.Popen(  # noqa: S603 - our own interpreter on our own code
        [sys.executable, "-c", _BOOT], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    order = {
        "path": sys.path,
        "folder": str(folder.resolve()),
        "options": options.to_dict(),
        "index": index,
        "workers": workers,
    }
    if helper.stdin is not None:
        helper.stdin.write(json.dumps(order).encode())
        helper.stdin.close()
        helper.stdin = None
    return helper


def _wait_for(helper: subprocess.Popen[bytes]) -> str:
    """Wait for a helper; the end of its complaint, or nothing.

    A helper that was killed by a signal left its items to this process, which drew them.
    """
    _, complaint = helper.communicate()
    return complaint.decode(errors="replace").strip()[-500:] if helper.returncode > 0 else ""


def help_drawing(order: dict[str, Any]) -> None:
    """Run as a helper process: draw a share of the items, and end when the parent is gone."""
    import os

    parent = os.getppid()
    studio = Studio(Path(order["folder"]), ArchiveOptions.from_dict(order["options"]))
    for _ in studio.draw(order["index"], order["workers"]):
        if os.getppid() != parent:
            return
