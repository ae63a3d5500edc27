"""The change stage: breaks in the series of the cube."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from eoray.run.driver import StagePlan
from eoray.run.sources import DigestLines, SourcedWorker, with_sources
from eoray.run.stages import StageContext, outcome_of
from eoray.timeline import DateRange

if TYPE_CHECKING:
    from eoray.change.parameters import ChangeParameters
    from eoray.config import RunConfig


def change_parameters(config: RunConfig) -> ChangeParameters:
    """The run file's ``change`` section as parameters of the engine."""
    from eoray.change.parameters import DEFAULT_BANDS, ChangeParameters

    change = config.change
    bands = change.bands or tuple(b for b in DEFAULT_BANDS if b in config.cube.bands)
    fixed = {}
    if change.conse != "auto":
        fixed = {"min_run": change.conse, "max_run": change.conse, "reference_run": change.conse}
    return ChangeParameters(
        bands=bands or config.cube.bands, probability=change.probability, **fixed
    )


def _views(config: RunConfig) -> dict[str, Any]:
    """What the run file says of sun and view; nothing where it says nothing."""
    from eoray.cube.nbar import METHOD

    change, said = config.change, dict[str, Any]()
    if change.nbar is not False:
        said["nbar"] = f"{METHOD}, where several orbits see" if change.nbar == "auto" else METHOD
    if change.max_sun_zenith is not None:
        said["max_sun_zenith"] = change.max_sun_zenith
    return said


def run_change(context: StageContext) -> dict[str, Any]:
    """Find breaks in every tile of the place."""
    from eoray.change.product import change_product
    from eoray.change.stage import ChangeWorker, plan_change

    config = context.config
    parameters = change_parameters(config)
    reader, source = context.reader(), context.source
    days = config.days
    if config.change.start is not None:
        days = DateRange(date.fromisoformat(config.change.start), days.end)
    entries, rows = plan_change(
        reader,
        context.aoi_tiles("s2"),
        days=days,
        allow_mixed=config.change.allow_mixed,
        nbar=config.change.nbar,
        max_sun_zenith=config.change.max_sun_zenith,
    )
    lines = DigestLines(reader, "s2", neighbours=False)
    sourced = with_sources(rows, lambda tile, row: lines.line(tile, row.scenes))
    grid = config.cube.own_grid
    resolution_m = config.change.resolution_m if grid is None else grid.coarse
    spec = change_product(
        config.name,
        parameters,
        resolution_m=resolution_m,
        of=reader.attrs("s2"),
        views=_views(config),
    )
    # a place of few tiles leaves threads idle, and kernels release the interpreter lock
    executor = context.executor
    threads = 1 if executor.name == "ray" else max(1, executor.workers // max(1, len(rows)))
    worker = ChangeWorker(source, parameters, resolution_m, threads)
    report = context.run_stage(StagePlan("change", spec, entries, sourced, SourcedWorker(worker)))
    return outcome_of(report, context.paths.repository)
