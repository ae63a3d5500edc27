"""Gather what a report says from the store, the outputs and the record of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray import storage
from eoray.cube.layout import group_path
from eoray.errors import StoreError
from eoray.grid import TILE_M, owner_mask, pixel_area_m2
from eoray.publish.legend import legend_of
from eoray.report import figures
from eoray.report.data import (
    ArchiveAudit,
    CadenceRow,
    ChangeSummary,
    FalseAlarms,
    ForecastRow,
    InputSummary,
    LineageRow,
    ReportData,
    SkippedRow,
    StageRow,
    ValidationScore,
)
from eoray.run.collect_screen import registration_summary, screen_summary
from eoray.run.record import versions
from eoray.run.screen_stages import max_shift_px
from eoray.run.stages import composite_recipe

if TYPE_CHECKING:
    from eoray.cube.read import CubeReader, TimeTable
    from eoray.grid import Tile
    from eoray.run.stages import StageContext

LABEL = "demo"
"""Key of the record under which the demo leaves figures that need the truth."""


def collect_report(context: StageContext, record: Mapping[str, Any]) -> ReportData:
    """Fill a report from what the stages of a run left.

    Args:
        context: The run; its store is read at the newest commit.
        record: ``record.json`` of the run.

    Raises:
        StoreError: The store holds no scenes yet.
    """
    from eoray.report.views import ViewRequest, read_views
    from eoray.run.product_stages import change_name, is_synthetic, map_product, notice

    reader, config = context.reader(), context.config
    if "s2" not in reader.products():
        raise StoreError(
            f"{context.paths.store!r} holds no scenes to report on; run the cube stage first"
        )
    product, change = map_product(context), change_name(context)
    recipe = composite_recipe(config)
    shown = recipe is not None and recipe.is_spectral and recipe.product in reader.products()
    composite = recipe.product if shown else None
    views = read_views(
        reader,
        ViewRequest(
            composite=composite,
            composite_entry=_summer(reader, composite),
            land_cover=product,
            change=change,
            scenes="s2",
        ),
    )
    legend: Sequence[Any] = ()
    if product is not None:
        zone = reader.zones(product)[0]
        legend = legend_of(dict(reader.root[f"{group_path(product, zone, 10)}/class"].attrs))
    measured = record.get(LABEL, {})
    days = config.days
    return ReportData(
        name=config.name,
        title=f"{config.name}: {config.task.replace('-', ' ')}",
        period=(days.start.isoformat(), days.end.isoformat()),
        place=_place(reader),
        is_synthetic=is_synthetic(context),
        input=_input(context, reader, record, views.clear_by_year),
        notice=notice(context),
        legend=tuple(legend),
        views=views.views,
        validation=_validation(record.get("stages", {}).get("fit")),
        assessment=_json(context, "assess.json"),
        change=_change(reader, change, measured),
        screen=screen_summary(reader),
        registration=registration_summary(reader, max_shift_px(config)),
        stages=_stages(record.get("stages", {})),
        forecast=forecast_rows(record),
        skipped=_skipped(record),
        licenses={"products": config.publish.license},
        provenance=_provenance(context, record),
        peak_memory_bytes=measured.get("peak_memory_bytes"),
        files=_files(context),
    )


def _place(reader: CubeReader) -> str:
    tiles = reader.tiles("s2")
    zones = ", ".join(f"{z}" for z in sorted({t.zone for t in tiles}))
    named = ", ".join(t.id for t in tiles[:4]) + (" ..." if len(tiles) > 4 else "")
    where = f"UTM zone {zones}" if not tiles or tiles[0].lattice.overlaps else f"grid {zones}"
    return f"{figures.count(len(tiles), 'tile')} in {where} ({named})"


def _summer(reader: CubeReader, composite: str | None) -> str | None:
    """Entry of the last July that is stored: leaves are out and snow is gone (in the north)."""
    if composite is None:
        return None
    zone = reader.zones(composite)[0]
    ledger = reader.ledger(composite, zone)
    table = reader.entries(composite, zone)
    done = [str(k) for k in table.key if (ledger.field("n_valid", str(k)) > 0).any()]
    summer = [key for key in done if "-07-" in key.split("/", maxsplit=1)[0]]
    chosen = summer or done
    return chosen[-1] if chosen else None


def _input(
    context: StageContext,
    reader: CubeReader,
    record: Mapping[str, Any],
    clear: Mapping[int, tuple[float, float, float]],
) -> InputSummary:
    tiles = reader.tiles("s2")
    plan = record.get("plan", {})
    dates = {
        str(key)
        for zone in reader.zones("s2")
        for key in reader.entries("s2", zone).key
        if reader.ledger("s2", zone).field("n_valid", str(key)).any()
    }
    return InputSummary(
        collection=context.config.source.collection,
        n_scenes=int(plan.get("scenes", 0)),
        n_dates=len(dates),
        n_tiles=len(tiles),
        tile_km=max((tile.lattice.edge_m for tile in tiles), default=TILE_M) / 1000,
        area_m2=sum(_owned_m2(tile, tile.lattice.coarse) for tile in tiles),
        bytes_read=int(plan.get("bytes", 0)),
        bands=tuple(reader.attrs("s2")["bands"]),
        lineage=_lineage(reader),
        missing_share=plan.get("audit", {}).get("missing_share"),
        audit=_audit(plan.get("audit")),
        clear_by_year=clear,
    )


def _audit(found: Mapping[str, Any] | None) -> ArchiveAudit | None:
    if found is None:
        return None
    return ArchiveAudit(
        rows=tuple(
            CadenceRow(one["relative_orbit"], one["satellite"], one["found"], one["expected"])
            for one in found["by_orbit"]
        ),
        by_year={int(y): (n["found"], n["expected"]) for y, n in found["by_year"].items()},
        longest=tuple(found["longest"]),
    )


def _owned_m2(tile: Tile, resolution_m: int) -> float:
    return float(pixel_area_m2(tile, resolution_m)[owner_mask(tile, resolution_m)].sum())


def _lineage(reader: CubeReader) -> tuple[LineageRow, ...]:
    """Dates by satellite, baseline, refinement and provider."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    words = {1: "yes", 0: "no", -1: "unknown"}
    for zone in reader.zones("s2"):
        table: TimeTable = reader.entries("s2", zone)
        for i in range(len(table)):
            columns = table.columns
            key = (
                str(columns["satellite"][i]),
                str(columns["baseline"][i]),
                words[int(columns["refined"][i])],
                str(columns["provider"][i]),
            )
            found.setdefault(key, []).append(str(table.time[i])[:10])
    return tuple(
        LineageRow(*key, n_dates=len(days), first=min(days), last=max(days))
        for key, days in sorted(found.items())
    )


def _validation(fit: Mapping[str, Any] | None) -> ValidationScore | None:
    if not fit or "metrics" not in fit:
        return None
    metrics, plan = fit["metrics"], fit.get("plan", {})
    per_class = {
        str(one["class"]): {
            key: float(one[key] or 0.0) for key in ("precision", "recall", "f1", "n")
        }
        for one in metrics["per_class"]
    }
    return ValidationScore(
        overall=float(metrics["overall_accuracy"]),
        mean_iou=float(metrics["miou"] or 0.0),
        per_class=per_class,
        baseline_overall=float(metrics["nearest_mean"]["overall_accuracy"]),
        n_pixels=int(metrics["n_pixels"]),
        n_polygons=int(plan.get("polygons_validation", 0)),
        split=f"by place, {metrics.get('n_blocks', '?')} validation blocks",
    )


def _json(context: StageContext, name: str) -> Any:
    url = storage.join(context.paths.outputs, name)
    return storage.read_json(url) if storage.exists(url) else None


def _change(
    reader: CubeReader, product: str | None, measured: Mapping[str, Any]
) -> ChangeSummary | None:
    if product is None:
        return None
    totals = np.zeros(4)
    by_year: dict[int, float] = {}
    widths: list[np.ndarray] = []
    for tile in reader.tiles(product):
        _add_tile(reader, product, tile, totals, by_year, widths)
    bracket = np.concatenate(widths) if widths else np.zeros(0)
    alarms = measured.get("false_alarms")
    return ChangeSummary(
        monitored_m2=float(totals[0]),
        not_monitored_m2=float(totals[1]),
        never_observed_m2=float(totals[2]),
        changed_m2=float(totals[3]),
        by_year=dict(sorted(by_year.items())),
        median_bracket_days=float(np.median(bracket)) if len(bracket) else None,
        scores=measured.get("change_scores", {}),
        recall_by_patch=measured.get("recall_by_patch", {}),
        false_alarms=FalseAlarms(**alarms) if alarms else None,
    )


def _add_tile(
    reader: CubeReader,
    product: str,
    tile: Tile,
    totals: np.ndarray,
    by_year: dict[int, float],
    widths: list[np.ndarray],
) -> None:
    """Add one tile's owned pixels to the sums, in true area."""
    resolution_m = reader.resolutions(product, tile.zone)[0]
    window = tile.window(resolution_m)

    def read(name: str) -> np.ndarray:
        return reader.read(product, tile.zone, name, window=window, resolution_m=resolution_m)

    area = np.where(owner_mask(tile, resolution_m), pixel_area_m2(tile, resolution_m), 0.0)
    monitored, observed = read("monitored_from") > 0, read("n_obs") > 0
    low, high, estimate = read("date_lo"), read("date_hi"), read("date_est")
    last = estimate.max(axis=0)
    changed = last > 0
    totals += [
        area[monitored].sum(),
        area[observed & ~monitored].sum(),
        area[~observed & ~monitored].sum(),
        area[changed].sum(),
    ]
    years = last[changed].astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
    for year in np.unique(years):
        by_year[int(year)] = by_year.get(int(year), 0.0) + float(area[changed][years == year].sum())
    widths.append((high - low)[estimate > 0])


def _stages(stages: Mapping[str, Any]) -> tuple[StageRow, ...]:
    from eoray.run.stages import STAGES

    return tuple(
        StageRow(
            name,
            float(stages[name].get("seconds", 0.0)),
            int(stages[name].get("tasks", 0)),
            int(stages[name].get("skipped", 0)),
            int(stages[name].get("failed_reads", 0)),
        )
        for name in STAGES
        if name in stages and name != "report"
    )


def forecast_rows(record: Mapping[str, Any]) -> tuple[ForecastRow, ...]:
    """What the plan in a record forecast of the reading, against what its newest execution read."""
    plan, cube = record.get("plan", {}), record.get("stages", {}).get("cube", {})
    reads = cube.get("reads")
    if not reads or not cube.get("tasks") or "requests" not in plan:
        return ()
    return (
        ForecastRow("Tasks", plan.get("tasks"), cube["tasks"]),
        ForecastRow("Requests", plan["requests"], reads["requests"]),
        ForecastRow("Requests sent again", None, reads.get("retries")),
        ForecastRow("Bytes", plan["bytes"], reads["bytes"], "B"),
        ForecastRow("Minutes", plan.get("minutes"), cube["seconds"] / 60, "min"),
    )


def _skipped(record: Mapping[str, Any]) -> tuple[SkippedRow, ...]:
    reasons: dict[str, int] = {}
    for one in record.get("plan", {}).get("skipped", ()):
        reasons[one["reason"]] = reasons.get(one["reason"], 0) + 1
    rows = [SkippedRow("items", why, count) for why, count in sorted(reasons.items())]
    failed = sum(stage.get("failed_reads", 0) for stage in record.get("stages", {}).values())
    if failed:
        rows.append(SkippedRow("reads", "failed after retries; recorded as holes", failed))
    rows += [
        SkippedRow(f"stage {name}", str(stage["note"]), 1)
        for name, stage in record.get("stages", {}).items()
        if "note" in stage
    ]
    return tuple(rows)


def _provenance(context: StageContext, record: Mapping[str, Any]) -> dict[str, str]:
    found = {"run": context.paths.key, "snapshot": context.reader().snapshot}
    if "items_hash" in record.get("plan", {}):
        found["items"] = str(record["plan"]["items_hash"])
    return {**found, **{f"{k} version": v for k, v in versions().items()}}


def _files(context: StageContext) -> dict[str, str]:
    places = {"cube": context.paths.repository, "model": context.paths.model}
    for name in ("map", "probability", "change", "stac"):
        places[name] = storage.join(context.paths.outputs, name)
    return {name: url for name, url in places.items() if storage.exists(url)}
