"""The stages that learn and map: fit and predict."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from eoray.errors import ConfigError
from eoray.grid import Zone
from eoray.run.driver import StagePlan
from eoray.run.sources import DigestLines, SourcedWorker, with_sources
from eoray.run.stages import StageContext, composite_recipe, outcome_of
from eoray.timeline import NEW_YEAR, DateRange, parse_month_day

if TYPE_CHECKING:
    from eoray.models.package import ModelPackage
    from eoray.train.plan import FitOptions


def fit_options(context: StageContext) -> FitOptions:
    """The run file's ``fit`` section as the options of a fit.

    Raises:
        ConfigError: No labels are named, or the cube has no composite to learn from.
    """
    from eoray.chips.split import SplitOptions
    from eoray.train.plan import FitOptions

    config, fit = context.config, context.config.fit
    recipe = composite_recipe(config)
    if fit.labels is None or recipe is None:
        what = "fit.labels" if fit.labels is None else "cube.composite.method other than none"
        raise ConfigError(f"task {config.task!r} fits a model and needs {what}; set it")
    days = DateRange.parse(fit.time or config.time)
    split = fit.split
    return FitOptions(
        labels=context.run.resolve(fit.labels),
        product=recipe.product,
        time=(days.start.isoformat(), days.end.isoformat()),
        season_start=None if recipe.season_start == NEW_YEAR else recipe.season_start,
        bands=fit.bands or config.cube.bands,
        class_property=fit.class_property,
        classes=fit.classes,
        model=fit.model,
        # the per-pixel network has none; other names are refused where they are built
        model_options={} if fit.model == "mlp" else {"encoder": fit.encoder},
        chip_px=fit.chip_px,
        batch_size=fit.batch_size,
        steps=fit.steps,
        learning_rate=fit.learning_rate,
        seed=fit.seed,
        split=SplitOptions(
            block_m=split.block_m,
            validation_share=split.validation_share,
            buffer_m=split.buffer_m,
            gap_m=split.gap_m,
        ),
        border_m=fit.border_m,
        checkpoint_every=fit.checkpoint_every,
        precision=fit.precision,
        torch_threads=fit.threads,
    )


def run_fit(context: StageContext) -> dict[str, Any]:
    """Fit the model of the run, or find it fitted."""
    from eoray.train.plan import plan_fit
    from eoray.train.trainer import fit

    options = fit_options(context)
    workers = context.config.fit.workers
    on_ray = context.executor.name == "ray"
    plan = plan_fit(
        options, context.source, context.aoi_tiles(options.product), name=context.config.name
    )
    report = context.held.progress

    def show(step: int, steps: int, *_: Any) -> None:
        if report is not None:
            report("fit", step, steps)

    result = fit(
        plan,
        out=context.paths.model,
        workers=workers,
        executor="ray" if on_ray else "inline",
        progress=show,
        check=context.held.watch.check,
    )
    return {
        "outputs": [result.path],
        "tasks": result.steps - result.resumed_from,
        "skipped": result.resumed_from,
        "failed_reads": 0,
        "metrics": result.metrics,
        "chips_per_second": round(result.chips_per_second, 1),
        "plan": plan.to_dict(),
    }


def load_model(context: StageContext) -> ModelPackage:
    """The model that maps: a named package, or the one that this run fitted."""
    from eoray.models.package import load_package

    named = context.config.predict.model
    return load_package(context.run.resolve(named) if named else context.paths.model)


def run_predict(context: StageContext) -> dict[str, Any]:
    """Map the place with the model."""
    from eoray.infer.plan import PredictOptions, plan_predict, predict_product
    from eoray.infer.predict import PredictWorker

    package = load_model(context)
    settings = context.config.predict
    options = PredictOptions(
        core_px=settings.chip_px - 2 * settings.halo_px,
        halo_px=settings.halo_px,
        batch_size=settings.batch_size,
    )
    product = package.meta.recipe.product
    source, days = context.source, predict_days(context)
    entries, rows = plan_predict(package, source, days, context.aoi_tiles(product))
    reader = context.reader()
    lines = DigestLines(reader, product, neighbours=True)
    keys = {zone: _stored_keys(reader, product, zone) for zone in reader.zones(product)}
    sourced = with_sources(
        rows,
        lambda tile, row: lines.line(
            tile, [keys[tile.zone][i] for i in row.index], also=package.hash
        ),
    )
    zones = sorted({tile.zone for row in rows for tile in row.tiles})
    worker = PredictWorker(source, package.url, package.hash, options)
    report = context.run_stage(
        StagePlan(
            "predict",
            predict_product(context.config.name, package, options),
            dict.fromkeys(zones, entries),
            sourced,
            SourcedWorker(worker),
        )
    )
    return outcome_of(report, context.paths.repository)


def _stored_keys(reader: Any, product: str, zone: Zone) -> dict[int, str]:
    table = reader.entries(product, zone)
    return {int(i): str(key) for i, key in zip(table.index, table.key, strict=True)}


def predict_days(context: StageContext) -> tuple[str, str]:
    """Days to map: those of the run file, or the run's last complete year of composites."""
    config = context.config
    if config.predict.time is not None:
        days = DateRange.parse(config.predict.time)
        return days.start.isoformat(), days.end.isoformat()
    days = config.days
    last = last_year(days, parse_month_day(config.cube.composite.season_start))
    return (last or days).start.isoformat(), (last or days).end.isoformat()


def last_year(days: DateRange, season_start: tuple[int, int] = NEW_YEAR) -> DateRange | None:
    """The last whole year within a range that begins on a (month, day); None without one."""
    after = days.end + timedelta(days=1)
    end = date(after.year, *season_start)
    if end > after:
        end = date(after.year - 1, *season_start)
    start = date(end.year - 1, *season_start)
    return DateRange(start, end - timedelta(days=1)) if start >= days.start else None
