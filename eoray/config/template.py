"""The commented run file that ``eoray init`` writes."""

from __future__ import annotations

from pathlib import Path

from eoray.config.models import TASKS
from eoray.errors import ConfigError

_TEMPLATE = """\
# A run of eoray. Three values matter: aoi, time and task. The rest has good defaults;
# what is commented out shows them. `eoray plan {file}` says what the run would cost,
# `eoray run {file}` carries it out and goes on where it was interrupted.
version: 1
name: {name}                   # names the outputs inside the store

# 1. Where: [west, south, east, north] in degrees, a vector file, or tile ids.
aoi: [11.50, 48.10, 11.60, 48.16]

# 2. When: first and last day, both included, UTC.
time: 2021-01-01/2023-12-31

# 3. What: cube | land-cover | change | land-cover-change. {hint}
task: {task}

# Relative paths start at the folder of this file.
store: out                       # folder or s3://bucket/prefix; a cube grows in place

# source:
#   catalog: https://earth-search.aws.element84.com/v1    # or a catalog.json
#   collection: sentinel-2-c1-l2a
#   lineage: {{baseline_min: "05.00", mixed: false}}
#   max_cloud_pct: 100
#   fallback:                    # where the same products are read when a provider fails
#     - {{catalog: "https://planetarycomputer.microsoft.com/api/stac/v1"}}

# cube:
#   bands: [blue, green, red, nir, rededge1, rededge2, rededge3, nir08, swir16, swir22]
#   mask: {{scl_clear: [4, 5, 6], dilate_cloud_m: 100, dilate_shadow_m: 60, screen: none}}
#   composite: {{method: geomedian, period: P3M, min_obs: 3}}    # docs/composites.md
#   nbar: false                  # true makes composites as seen from straight above
#   dem: dem.tif                 # elevation: flags steep land, masks land in its shadow
#   warp: false                  # true resamples scenes that lie on another lattice
#   grid: world                  # or your own, on which scenes are warped:
#     # {{name: eu20, crs: "EPSG:3035", origin: [4000000, 3500000], resolution: 20}}

{fit}

# predict:
#   model: model/                # a fitted model, instead of fitting one
#   time: 2023-01-01/2023-12-31

# change:
#   resolution_m: 20
#   probability: 0.99
#   nbar: auto                   # from straight above where several orbits see; or false
#   max_shift_px: 0.5            # dates further off the tile's reference are left out

# assess:
#   n_samples: 400
#   reference: truth/            # rasters that answer the sample

# run:                           # never changes results
#   executor: auto               # inline | threads | ray
#   workers: auto
#   address: null                # auto: the Ray cluster this runs in; ray://host:10001
#   lease: refuse                # wait | take-over: while another run writes the store

# cluster:                       # for `eoray submit`; never changes results either
#   image: registry/eoray@sha256:...
#   namespace: maps
#   workers: [{{name: readers, cpu: 4, memory_gi: 16, max: 10}}]
#   deadline_minutes: 720
#   network: {{proxy: "http://proxy.example:3128", ca: {{config_map: corporate-ca}}}}
"""

_FIT = """\
fit:
  labels: labels.geojson         # labelled polygons, in any CRS
  class_property: class
  # time: 2021-01-01/2021-12-31  # the days that the labels describe
  # steps: 300"""

_NEEDS_LABELS = "The land-cover tasks need labels: see fit."


def write_template(path: str | Path, *, task: str = "change", overwrite: bool = False) -> Path:
    """Write a commented run file in which three values matter.

    Args:
        path: Where to; its stem becomes the run's name.
        task: What is wanted.
        overwrite: Replace a file that is there.

    Raises:
        ConfigError: The file exists, its folder does not, or the task is unknown.
    """
    target = Path(path)
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}; take one of {', '.join(TASKS)}")
    if target.exists() and not overwrite:
        raise ConfigError(
            f"{str(target)!r} exists already; give another name, or --force to replace it"
        )
    if not target.absolute().parent.is_dir():
        raise ConfigError(
            f"folder {str(target.absolute().parent)!r} does not exist; create it first"
        )
    target.write_text(_render(target, task), encoding="utf-8")
    return target


def _render(target: Path, task: str) -> str:
    fits = "fit" in TASKS[task]
    shown = _FIT if fits else "\n".join(f"# {line}" for line in _FIT.splitlines())
    return _TEMPLATE.format(
        file=target.name, name=_slug(target.stem), hint=_NEEDS_LABELS, task=task, fit=shown
    )


def _slug(stem: str) -> str:
    letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in stem.lower())
    return letters.strip("-")[:40] or "run"
