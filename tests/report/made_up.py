"""A made-up run: small arrays that look like land, and figures for every section."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from eoray.assess import SampleDesign, Stratum, estimate_from_counts
from eoray.publish.legend import make_legend
from eoray.report import (
    ArchiveAudit,
    CadenceRow,
    ChangeSummary,
    FalseAlarms,
    InputSummary,
    LineageRow,
    ReportData,
    ReportView,
    SkippedRow,
    StageRow,
    ValidationScore,
)
from eoray.report.data import AlwaysCloud, DisplacedRow, RegistrationSummary, ScreenSummary

NAMES = {
    1: "water",
    2: "evergreen forest",
    3: "deciduous forest",
    4: "crop",
    5: "grass",
    6: "urban",
}
SPECTRA = np.array(
    [
        [0, 0, 0],
        [120, 260, 340],
        [210, 340, 220],
        [330, 520, 300],
        [980, 940, 610],
        [560, 820, 430],
        [1400, 1350, 1290],
    ]
)
DAY = 18262


def made_up_view(shape: tuple[int, int] = (420, 520), seed: int = 3) -> ReportView:
    rng = np.random.default_rng(seed)
    height = gaussian_filter(rng.normal(size=shape), 18, mode="wrap")
    fields = np.kron(
        rng.integers(2, 6, (shape[0] // 20 + 1, shape[1] // 20 + 1)), np.ones((20, 20), int)
    )
    classes = fields[: shape[0], : shape[1]].astype("u1")
    classes[height < np.quantile(height, 0.12)] = 1
    classes[height > np.quantile(height, 0.75)] = 2
    classes[np.abs(height - np.quantile(height, 0.5)) < 0.0012] = 6
    texture = 1 + 0.09 * rng.normal(size=shape)
    rgb = (SPECTRA[classes].transpose(2, 0, 1) * texture).astype("i2")
    outside = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) < 90
    rgb[:, outside], classes[outside] = -32768, 0
    spots = gaussian_filter(rng.normal(size=shape), 4)
    date = np.zeros(shape, "i4")
    hit = spots > np.quantile(spots, 0.975)
    date[hit] = (DAY + 1200 * (height[hit] - height.min()) / np.ptp(height)).astype("i4")
    date[outside] = -1
    probability = np.clip(
        0.62 + 0.2 * gaussian_filter(rng.normal(size=shape), 3) * 6, 0.3, 1
    ).astype("f4")
    probability[outside] = np.nan
    clear = (14 + 60 * gaussian_filter(rng.normal(size=shape), 30)).clip(3, 30).astype("f4")
    clear[outside] = np.nan
    return ReportView(
        title="UTM zone 32 north, from tile z32r0457c048",
        pixel_m=20.0,
        true_color=rgb,
        true_color_label="s2-P3M-geomedian, 2023-07-01/2023-10-01",
        classes=classes,
        probability=probability,
        change_date=date,
        monitored=clear > 9,
        clear_per_year=clear,
    )


def made_up_assessment() -> dict[str, object]:
    pixels = {1: 31_000, 2: 120_000, 3: 64_000, 4: 180_000, 5: 90_000, 6: 15_000}
    counts = [
        [58, 0, 1, 0, 0, 1],
        [0, 96, 9, 0, 2, 0],
        [0, 7, 61, 0, 6, 0],
        [0, 0, 0, 128, 14, 2],
        [0, 0, 4, 11, 66, 1],
        [1, 0, 0, 3, 2, 44],
    ]
    design = SampleDesign(
        tuple(
            Stratum(k, NAMES[k], n, n * 99.93, sum(row))
            for (k, n), row in zip(pixels.items(), counts, strict=True)
        ),
        seed=1,
        map_digest="5c0ffee5",
        resolution_m=10,
    )
    table = estimate_from_counts(counts, design, NAMES).to_dict()
    for row in table["classes"]:
        row["mapped_area_biased_m2"] = pixels[row["id"]] * 99.93
    return {"design": design.to_dict(), "n_points": 517, "n_unanswered": 0, **table}


def made_up_screen() -> ScreenSummary:
    shares = {
        "clear": 0.41,
        "missed_cloud": 0.012,
        "missed_shadow": 0.001,
        "rescued": 0.034,
        "clear_with_screen": 0.431,
        "unjudged": 0.06,
    }
    return ScreenSummary({2020: shares}, (AlwaysCloud("z32r0391c070", 1234, 493_600.0),))


def made_up_registration() -> RegistrationSummary:
    worst = (
        DisplacedRow("2020-10-23", "z32r0391c070", 0.95, 0.07, left_out=True),
        DisplacedRow("2020-10-10", "z32r0391c070", 0.57, 0.05, left_out=False),
    )
    return RegistrationSummary(
        limit_px=0.5,
        n_measured=39,
        n_unknown=34,
        n_beyond=1,
        by_year={2020: (12, 0.31, 0.9), 2022: (15, 0.12, 0.25)},
        before=(24, 0.22, 0.8),
        since=None,
        histogram={"0.0": 30, "0.5": 9},
        worst=worst,
    )


def made_up_run() -> ReportData:
    per_class = {
        name: {
            "precision": 0.8 + 0.02 * k,
            "recall": 0.78 + 0.025 * k,
            "f1": 0.79 + 0.022 * k,
            "n": 900 * k,
        }
        for k, name in NAMES.items()
    }
    return ReportData(
        name="demo",
        title="Land cover and change in a synthetic landscape",
        period=("2020-01-01", "2023-12-31"),
        place="2 tiles at the border of UTM zones 32 and 33",
        is_synthetic=True,
        screen=made_up_screen(),
        registration=made_up_registration(),
        input=InputSummary(
            collection="sentinel-2-c1-l2a",
            n_scenes=204,
            n_dates=96,
            n_tiles=4,
            area_m2=71_200_000.0,
            bytes_read=1_240_000_000,
            bands=("B02", "B03", "B04", "B08", "B8A", "B11", "B12"),
            lineage=(
                LineageRow("sentinel-2a", "05.00", "no", "static", 18, "2020-01-05", "2021-03-25"),
                LineageRow("sentinel-2a", "05.10", "yes", "static", 32, "2021-04-02", "2023-12-21"),
                LineageRow("sentinel-2b", "05.10", "yes", "static", 46, "2020-01-10", "2023-12-28"),
            ),
            missing_share=0.08,
            audit=ArchiveAudit(
                (CadenceRow(22, "S2A", 70, 74), CadenceRow(65, "S2B", 61, 72)),
                {2021: (66, 73), 2022: (65, 73)},
                ("S2B on orbit 065: no scene from 2022-03-04 to 2022-04-13, 5 passes",),
            ),
            clear_by_year={
                2020: (7, 12, 17),
                2021: (6, 11, 16),
                2022: (9, 15, 19),
                2023: (8, 14, 18),
            },
        ),
        notice="Made from synthetic data. Contains no Copernicus Sentinel data.",
        legend=make_legend(NAMES),
        views=(made_up_view(),),
        validation=ValidationScore(
            overall=0.874,
            mean_iou=0.731,
            per_class=per_class,
            baseline_overall=0.792,
            n_pixels=18_900,
            n_polygons=64,
            split="by place, in blocks of 1 km",
        ),
        assessment=made_up_assessment(),
        change=ChangeSummary(
            monitored_m2=58_000_000.0,
            not_monitored_m2=11_000_000.0,
            never_observed_m2=2_200_000.0,
            changed_m2=1_340_000.0,
            by_year={2021: 310_000.0, 2022: 560_000.0, 2023: 470_000.0},
            median_bracket_days=24,
            scores={
                "f1": 0.812,
                "precision": 0.841,
                "recall": 0.785,
                "precision_at_1pct": 0.43,
                "median_date_error_days": 12,
            },
            recall_by_patch={
                "1 px": 0.41,
                "2-5 px": 0.63,
                "6-20 px": 0.82,
                "21-100 px": 0.9,
                "> 100 px": 0.95,
            },
            false_alarms=FalseAlarms(share=0.011, share_per_year=0.0037, years=3.0),
        ),
        stages=(
            StageRow("cube", 11.2, 64, 0, 2),
            StageRow("fit", 28.4, 1),
            StageRow("predict", 4.9, 4),
            StageRow("change", 17.6, 4),
            StageRow("assess", 1.3, 1),
            StageRow("publish", 3.2, 12),
        ),
        skipped=(
            SkippedRow("scene", "an older processing of the same datatake and granule", 1),
            SkippedRow("asset", "could not be read", 2),
            SkippedRow("label polygon", "outside the area", 7),
        ),
        limits=("Registration was not measured.",),
        licenses={"labels": "made up", "products": "CC-BY-4.0"},
        provenance={
            "eoray": "0.1.0",
            "snapshot": "3X9K2Q7W",
            "plan": "sha256:9f2c...",
            "model": "1b22f0",
            "seed": "1",
        },
        peak_memory_bytes=1_900_000_000,
        files={"map": "../map", "change": "../change", "cube": "../../cube.icechunk"},
    )
