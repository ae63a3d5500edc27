"""The change stage: breaks in the series of the cube."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from eoray.config.models import ChangeSection
from eoray.cube.read import SCREEN
from eoray.cube.registration import NAME
from eoray.run.driver import StagePlan
from eoray.run.screen_stages import is_screened, max_shift_px, run_registration
from eoray.run.sources import DigestLines, SourcedWorker, with_sources
from eoray.run.stages import StageContext, outcome_of
from eoray.timeline import DateRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from eoray.change.parameters import ChangeParameters
    from eoray.change.stage import ChangeRow
    from eoray.config import RunConfig
    from eoray.cube.read import CubeReader
    from eoray.grid import Tile


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
    reader = context.reader()
    days = config.days
    if config.change.start is not None:
        days = DateRange(date.fromisoformat(config.change.start), days.end)
    tiles = context.aoi_tiles("s2")
    entries, rows = plan_change(
        reader,
        tiles,
        days=days,
        allow_mixed=config.change.allow_mixed,
        nbar=config.change.nbar,
        max_sun_zenith=config.change.max_sun_zenith,
    )
    run_registration(context, tiles)
    reader, source = context.reader(), context.source
    sourced = with_sources(rows, _line_maker(reader, config))
    grid = config.cube.own_grid
    resolution_m = config.change.resolution_m if grid is None else grid.coarse
    spec = change_product(
        config.name,
        parameters,
        resolution_m=resolution_m,
        of=reader.attrs("s2"),
        also={**_views(config), **_also(reader, config)},
    )
    # a place of few tiles leaves threads idle, and kernels release the interpreter lock
    executor = context.executor
    threads = 1 if executor.name == "ray" else max(1, executor.workers // max(1, len(rows)))
    worker = ChangeWorker(
        source, parameters, resolution_m, threads, is_screened(config), max_shift_px(config)
    )
    report = context.run_stage(StagePlan("change", spec, entries, sourced, SourcedWorker(worker)))
    return outcome_of(report, context.paths.repository)


def _line_maker(reader: CubeReader, config: RunConfig) -> Callable[[Tile, ChangeRow], str]:
    """Lines over the scenes of a row, and over what else decides which of them are used."""
    scenes = DigestLines(reader, "s2", neighbours=False)
    others = [SCREEN] if is_screened(config) else []
    others += [NAME] if max_shift_px(config) is not None else []
    also = [DigestLines(reader, name, neighbours=False) for name in others]

    def line(tile: Tile, row: ChangeRow) -> str:
        extra = " ".join(one.line(tile, row.scenes) for one in also)
        return scenes.line(tile, row.scenes, also=extra)

    return line


def _also(reader: CubeReader, config: RunConfig) -> dict[str, Any]:
    """Parameters that are not at their default; products made before them go on."""
    found: dict[str, Any] = {}
    if is_screened(config):
        found |= {"mask": "scl+screen", SCREEN: reader.attrs(SCREEN)}
    if config.change.max_shift_px != ChangeSection().max_shift_px:
        found["max_shift_px"] = config.change.max_shift_px
    return found
