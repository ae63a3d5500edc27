"""What would stop a later stage, found before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eoray import storage
from eoray.config.agree import unable_on_own_grid
from eoray.cube.scenes import scene_product
from eoray.cube.store import check_product, open_repository, read_root
from eoray.errors import ConfigError
from eoray.run.planning import cloud_classifier

if TYPE_CHECKING:
    from eoray.run.stages import StageContext


def check_stages(context: StageContext, stages: Sequence[str]) -> None:
    """Check the stages of an execution against the run file and what stands in the store.

    Raises:
        EorayError: The first thing that would stop a stage.
    """
    unable = unable_on_own_grid(stages) if context.config.cube.own_grid is not None else None
    if unable is not None:
        raise ConfigError(f"{unable}; leave it out, or say cube.grid: world")
    exists = storage.exists(storage.join(context.paths.repository, "repo"))
    if "cube" not in stages and not exists:
        raise ConfigError(
            f"stage {stages[0]!r} reads the cube at {context.paths.repository!r}, and there is "
            "none; run the cube stage first (`eoray cube`), or correct store"
        )
    if "cube" in stages:
        clouds = cloud_classifier(context.config, context.run.resolve)
        if clouds is not None:
            clouds.load()
        plan = context.cube  # place, time, items and grids are refused here
        if exists:
            root = read_root(open_repository(context.paths.repository))
            for zone in plan.entries:
                check_product(root, scene_product(plan.recipe), zone)
    if "fit" in stages:
        _check_labels(context)
    if "predict" in stages and "fit" not in stages:
        from eoray.run.learn_stages import load_model

        load_model(context)
    if "assess" in stages:
        _check_file(context, context.config.assess.reference, "assess.reference")


def _check_labels(context: StageContext) -> None:
    """Read the labels against the place: CRS, classes and extent are known before any pixel."""
    from eoray.chips.labels import Legend, read_labels
    from eoray.run.learn_stages import fit_options

    options = fit_options(context)
    _check_file(context, options.labels, "fit.labels")
    tiles = context.cube.aoi.tiles if "cube" in context.stages else None
    legend = Legend(tuple(options.classes)) if options.classes else None
    if tiles:
        read_labels(options.labels, tiles, class_property=options.class_property, legend=legend)


def _check_file(context: StageContext, path: str | None, key: str) -> None:
    if path is None:
        return
    found = context.run.resolve(path)
    if "://" not in found and not Path(found).exists():
        raise ConfigError(f"{key} names {path!r}, which does not exist; correct the path")
