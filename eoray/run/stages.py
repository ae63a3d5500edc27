"""The stages of a run, in order: what each plans, runs and leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import StoreError
from eoray.execute import Executor
from eoray.grid import Tile
from eoray.reading.usage import READS, ReadUsage
from eoray.run.aoi import resolve_aoi
from eoray.run.driver import Driver, StagePlan, StageReport
from eoray.run.failures import FailedShareError, FailureLimit
from eoray.run.heal import HoleFilter, count_holes, find_holes
from eoray.run.probe import probe_inputs

if TYPE_CHECKING:
    from eoray.config import RunConfig
    from eoray.run.planning import CubePlan
    from eoray.run.record import RunPaths
    from eoray.run.session import Run

STAGES = ("cube", "fit", "predict", "change", "assess", "publish", "report")
"""Stages in the order in which they run; the report ends every run."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How an execution differs from what the run file says."""

    errors: str | None = None
    """``record`` or ``raise``; None as the run file says."""
    heal: HoleFilter | None = None
    """Read these holes again, and nothing else, in the cube stage."""


@dataclass(slots=True)
class StageContext:
    """What the stages of one execution share."""

    run: Run
    paths: RunPaths
    stages: Sequence[str] = STAGES
    """Those of this execution."""
    driver: Driver | None = None
    manner: Manner = field(default_factory=Manner)
    _cube: CubePlan | None = field(default=None, repr=False)

    @property
    def config(self) -> RunConfig:
        """The run file."""
        return self.run.config

    @property
    def cube(self) -> CubePlan:
        """The cube stage's plan; items are frozen when it is first made."""
        if self._cube is None:
            self._cube = self.run.plan_cube(freeze=True)
        return self._cube

    @property
    def source(self) -> CubeSource:
        """The store as it stands now, pinned, so that all tasks of a stage see the same."""
        return CubeSource(self.paths.repository, self.reader().snapshot)

    def reader(self) -> CubeReader:
        """A reader of the newest commit."""
        return CubeReader(CubeSource(self.paths.repository))

    def n_tasks(self) -> int:
        """Tasks of the largest stage, as far as the plan knows."""
        return len(self._cube.rows) if self._cube is not None else 1

    @property
    def executor(self) -> Executor:
        """Where tasks run."""
        return self.held.executor

    @property
    def held(self) -> Driver:
        """The driver that holds the store.

        Raises:
            StoreError: The stage was called without one.
        """
        if self.driver is None:
            raise StoreError("no driver holds the store; call Run.execute, not a stage alone")
        return self.driver

    def run_stage(self, plan: StagePlan) -> StageReport:
        """Hand a plan to the driver."""
        return self.held.run(plan)

    def aoi_tiles(self, product: str) -> list[Tile]:
        """Tiles of the run's place that a product holds."""
        place = resolve_aoi(self.config.aoi, self.run.folder, self.config.cube.own_grid)
        return sorted(set(place.tiles) & set(self.reader().tiles(product)))


def run_cube(context: StageContext) -> dict[str, Any]:
    """Read the scenes of the run into the store, then make composites of them."""
    from eoray.cube.scenes import SceneWorker, scene_product
    from eoray.run.planning import cloud_classifier
    from eoray.run.screen_stages import run_screen

    plan = context.cube
    settings = context.config
    clouds = cloud_classifier(settings, context.run.resolve)
    probed = _record_plan(context, plan)
    errors = context.manner.errors or settings.cube.errors or settings.run.errors
    raise_errors = errors == "raise"
    worker = SceneWorker(
        plan.recipe,
        raise_errors=raise_errors,
        retries=settings.run.retries,
        seconds=settings.run.read_seconds,
        clouds=clouds,
    )
    spec = scene_product(plan.recipe)
    if context.manner.heal is None:
        limit = FailureLimit(settings.cube.max_failed_share)
        report = context.run_stage(
            StagePlan("cube", spec, plan.entries, plan.rows, worker, probe_inputs, limit=limit)
        )
        _check_failed_share(context, report)
    else:  # some holes stay for ever: they neither stop a run nor speak for the source
        holes = find_holes(context.reader(), plan.rows, context.manner.heal)
        report = context.run_stage(
            StagePlan("cube", spec, plan.entries, holes.rows, worker, again=holes.again)
        )
    outcome = outcome_of(report, context.paths.repository)
    outcome["reads"] = (report.reads + probed).to_dict()
    left = count_holes(context.reader(), plan.rows)
    if left["tiles"]:
        outcome["holes"] = left
    screen = run_screen(context, _tiles_seen(context))
    if screen is not None:
        outcome["tasks"] += screen.tasks
        outcome["skipped"] += screen.skipped
        outcome["screen"] = screen.product
    composite = _run_composites(context)
    if composite is not None:
        outcome["tasks"] += composite.tasks
        outcome["skipped"] += composite.skipped
        outcome["composite"] = composite.product
    return outcome


def _record_plan(context: StageContext, plan: CubePlan) -> ReadUsage:
    """Leave what the report says about the input; what was read to forecast it is returned."""
    from eoray.run.estimate import scenes_of
    from eoray.run.forecast import PROBE, forecast_cube
    from eoray.run.record import merge_record

    READS.drain()
    forecast, minutes = forecast_cube(plan, PROBE, context.executor.workers)
    probed = READS.drain()
    merge_record(
        context.paths,
        plan={
            "scenes": len(scenes_of(plan.rows)),
            "tasks": len(plan.rows),
            **forecast.to_dict(),
            "minutes": round(minutes, 2),
            "items_hash": plan.items_hash,
            "lineage": plan.lineage.to_dict(),
            "audit": plan.audit.summary(),
            "skipped": [
                {"item": one.item_id, "reason": one.reason} for one in plan.resolution.skipped
            ],
        },
    )
    return probed


def outcome_of(report: StageReport, *outputs: str) -> dict[str, Any]:
    """What a stage leaves in the record: outputs, counts, seconds."""
    return {
        "outputs": list(outputs),
        "product": report.product,
        "tasks": report.tasks,
        "skipped": report.skipped,
        "failed_reads": report.failed_reads,
        "seconds": round(report.seconds, 2),
        "reads": report.reads.to_dict(),
    }


def _check_failed_share(context: StageContext, report: StageReport) -> None:
    plan = context.cube
    reads = plan.rows.n_places * (len(plan.recipe.bands) + 1)
    limit = context.config.cube.max_failed_share
    if reads and report.failed_reads / reads > limit:
        raise FailedShareError(
            f"{report.failed_reads} of about {reads} reads failed, more than "
            f"cube.max_failed_share = {limit:g}. Nothing is lost: what was read is kept and the "
            "holes are recorded, `eoray heal --list` names them. Mend the source and heal the run, "
            "or raise the limit"
        )


def _run_composites(context: StageContext) -> StageReport | None:
    from eoray.cube.composite import CompositeWorker, composite_product, plan_composites
    from eoray.timeline import DateRange

    recipe = composite_recipe(context.config)
    if recipe is None:
        return None
    reader, tiles = context.reader(), _tiles_seen(context)
    entries, rows = plan_composites(recipe, reader, tiles, DateRange.parse(context.config.time))
    spec = composite_product(recipe, reader, sorted(entries))
    worker = CompositeWorker(context.source, recipe)
    return context.run_stage(StagePlan("composite", spec, entries, rows, worker))


def _tiles_seen(context: StageContext) -> list[Tile]:
    """Tiles of the place in zones that hold scenes."""
    zones = context.reader().zones("s2")
    return [tile for tile in context.cube.aoi.tiles if tile.zone in zones]


def composite_recipe(config: RunConfig) -> Any:
    """The composite that a run file asks for, or None."""
    from eoray.cube.composite import CompositeRecipe
    from eoray.timeline import parse_month_day

    composite = config.cube.composite
    if composite.method == "none":
        return None
    return CompositeRecipe(
        composite.method,
        composite.period,
        composite.min_obs,
        season_start=parse_month_day(composite.season_start),
        by_solar_day=composite.group == "solar-day",
        percentiles=composite.percentiles,
        nbar=config.cube.nbar,
        screen=config.cube.mask.screen == "temporal",
    )
