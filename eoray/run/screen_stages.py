"""Products between the cube and what is made of it: the temporal screen, and registration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eoray.cube.read import SCREEN
from eoray.run.driver import StagePlan, StageReport
from eoray.run.sources import DigestLines, SourcedWorker, with_sources
from eoray.timeline import DateRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eoray.config import RunConfig
    from eoray.cube.layout import ProductSpec
    from eoray.cube.write import Worker
    from eoray.grid import Tile
    from eoray.run.stages import StageContext


def is_screened(config: RunConfig) -> bool:
    """Whether the temporal screen joins the mask of this run."""
    return config.cube.mask.screen == "temporal"


def run_screen(context: StageContext, tiles: Sequence[Tile]) -> StageReport | None:
    """Judge the mask of the run's dates, where the run file asks for it."""
    from eoray.cube.screen import ScreenRecipe, ScreenWorker, screen_product
    from eoray.cube.spans import plan_spans
    from eoray.run.planning import mask_recipe

    if not is_screened(context.config):
        return None
    reader = context.reader()
    recipe = ScreenRecipe(mask_recipe(context.config))
    entries, rows = plan_spans(
        reader, tiles, days=_days(context), reach_days=recipe.rule.reach_days
    )
    spec = screen_product(recipe, reader, sorted(entries))
    # a rescued roof frees what grew from it, across the edge of a tile too
    lines = DigestLines(reader, "s2", neighbours=True)
    worker = ScreenWorker(context.source, recipe)
    return _run(context, SCREEN, spec, (entries, rows), lines, worker)


def run_registration(context: StageContext, tiles: Sequence[Tile]) -> StageReport | None:
    """Measure how far the run's dates lie from each tile's reference, where that is used."""
    from eoray.cube.registration import (
        N_REFERENCE,
        NAME,
        RegistrationWorker,
        registration_product,
    )
    from eoray.cube.spans import plan_spans

    if max_shift_px(context.config) is None:
        return None
    reader = context.reader()
    entries, rows = plan_spans(reader, tiles, days=_days(context), n_reference=N_REFERENCE)
    spec = registration_product(reader, sorted(entries))
    lines = DigestLines(reader, "s2", neighbours=False)
    worker = RegistrationWorker(context.source)
    return _run(context, NAME, spec, (entries, rows), lines, worker)


def max_shift_px(config: RunConfig) -> float | None:
    """How far off a date may lie for change; None where no date is left out."""
    limit = config.change.max_shift_px
    return None if limit == "none" else float(limit)


def _days(context: StageContext) -> DateRange:
    return DateRange.parse(context.config.time)


def _run(
    context: StageContext,
    name: str,
    spec: ProductSpec,
    plan: tuple[Any, Any],
    lines: DigestLines,
    worker: Worker,
) -> StageReport:
    entries, rows = plan

    def line(tile: Tile, row: Any) -> str:
        read = [*row.keys, *row.reference_keys]
        return lines.line(tile, read, also=" ".join((*row.reference_keys, *row.written)))

    sourced = with_sources(rows, line)
    return context.run_stage(StagePlan(name, spec, entries, sourced, SourcedWorker(worker)))
