"""The stages of a run, in order: what each plans, runs and leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import StoreError
from eoray.run.driver import Driver, StagePlan, StageReport

if TYPE_CHECKING:
    from eoray.config import RunConfig
    from eoray.run.planning import CubePlan
    from eoray.run.record import RunPaths
    from eoray.run.session import Run

STAGES = ("cube", "fit", "predict", "change", "assess", "publish", "report")
"""Stages in the order in which they run."""


@dataclass(slots=True)
class StageContext:
    """What the stages of one execution share."""

    run: Run
    paths: RunPaths
    driver: Driver | None = None
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

    def check(self, stages: Sequence[str]) -> None:
        """Find what would stop a stage later, before anything is written."""
        if "cube" in stages:
            _ = self.cube
        for stage in stages:
            if stage in CHECKS:
                CHECKS[stage](self, stages)

    def n_tasks(self) -> int:
        """Tasks of the largest stage, as far as the plan knows."""
        return len(self._cube.rows) if self._cube is not None else 1

    def run_stage(self, plan: StagePlan) -> StageReport:
        """Hand a plan to the driver."""
        if self.driver is None:
            raise StoreError("no driver holds the store; call Run.execute, not a stage alone")
        return self.driver.run(plan)


def run_cube(context: StageContext) -> dict[str, Any]:
    """Read the scenes of the run into the store, then make composites of them."""
    from eoray.cube.scenes import SceneWorker, scene_product

    plan = context.cube
    settings = context.config
    raise_errors = (settings.cube.errors or settings.run.errors) == "raise"
    worker = SceneWorker(plan.recipe, raise_errors=raise_errors, retries=settings.run.retries)
    report = context.run_stage(
        StagePlan("cube", scene_product(plan.recipe), plan.entries, plan.rows, worker)
    )
    _check_failed_share(context, report)
    outcome = _outcome(report, context.paths.repository)
    composite = _run_composites(context)
    if composite is not None:
        outcome["tasks"] += composite.tasks
        outcome["skipped"] += composite.skipped
        outcome["composite"] = composite.product
    return outcome


def _outcome(report: StageReport, *outputs: str) -> dict[str, Any]:
    return {
        "outputs": list(outputs),
        "product": report.product,
        "tasks": report.tasks,
        "skipped": report.skipped,
        "failed_reads": report.failed_reads,
        "seconds": round(report.seconds, 2),
    }


def _check_failed_share(context: StageContext, report: StageReport) -> None:
    plan = context.cube
    reads = sum(len(row.tiles) * (len(plan.recipe.bands) + 1) for row in plan.rows)
    limit = context.config.cube.max_failed_share
    if reads and report.failed_reads / reads > limit:
        raise StoreError(
            f"{report.failed_reads} of about {reads} reads failed, more than "
            f"cube.max_failed_share = {limit}; see the log for items and assets, mend the source "
            "and run again (done tiles are kept), or raise the limit"
        )


def _run_composites(context: StageContext) -> StageReport | None:
    from eoray.cube.composite import CompositeWorker, composite_product, plan_composites
    from eoray.timeline import DateRange

    recipe = composite_recipe(context.config)
    if recipe is None:
        return None
    reader = context.reader()
    tiles = [tile for tile in context.cube.aoi.tiles if tile.zone in reader.zones("s2")]
    entries, rows = plan_composites(recipe, reader, tiles, DateRange.parse(context.config.time))
    spec = composite_product(recipe, reader, sorted(entries))
    worker = CompositeWorker(context.source, recipe)
    return context.run_stage(StagePlan("composite", spec, entries, rows, worker))


def composite_recipe(config: RunConfig) -> Any:
    """The composite that a run file asks for, or None."""
    from eoray.cube.composite import CompositeRecipe

    composite = config.cube.composite
    if composite.method == "none":
        return None
    return CompositeRecipe(composite.method, composite.period, composite.min_obs)


CHECKS: dict[str, Callable[[StageContext, Sequence[str]], None]] = {}

RUNNERS: dict[str, Callable[[StageContext], dict[str, Any]]] = {"cube": run_cube}
