"""Sections and keys of the run file: types, defaults, and what they mean."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from eoray.config.cluster import ClusterSection
from eoray.config.fields import (
    Aoi,
    Bands,
    Baseline,
    Count,
    Day,
    Days,
    PathOrUrl,
    Percentiles,
    PeriodCode,
    SeasonStart,
    Share,
    Slug,
)
from eoray.config.grids import GridSection
from eoray.config.section import Section
from eoray.config.storage import BucketSection, BucketUrl
from eoray.grid import Lattice
from eoray.sentinel2 import BANDS
from eoray.timeline import DateRange

STAGES = ("cube", "fit", "predict", "change", "assess", "publish", "report")
"""Stages in the order in which they run."""

TASKS: dict[str, tuple[str, ...]] = {
    "cube": ("cube",),
    "land-cover": ("cube", "fit", "predict", "assess", "publish", "report"),
    "change": ("cube", "change", "assess", "publish", "report"),
    "land-cover-change": STAGES,
}
"""Which stages a task turns on."""

OUTSIDE_KEY = frozenset({"run", "cluster", "storage"})
"""Sections that never change results, so that the run key leaves them out."""

LATER_KEYS = (
    "cube.composite.season_start",
    "cube.composite.group",
    "cube.composite.percentiles",
    "cube.mask.weights",
    "cube.mask.screen",
    "cube.nbar",
    "cube.dem",
    "cube.max_sun_zenith",
    "change.nbar",
    "change.max_sun_zenith",
    "change.max_shift_px",
)
"""Keys that came after others had runs: at their default the run key leaves them out."""


class LineageSection(Section):
    """Which processings of Sentinel-2 may meet in one cube."""

    baseline_min: Baseline = "05.00"
    """Lowest processing baseline; quote it."""
    mixed: bool = False
    """Let several processing lineages meet; change detection then refuses unless allowed."""


class FallbackSection(Section):
    """Another catalogue of the same products."""

    catalog: PathOrUrl
    """STAC API, static catalogue, or stac-geoparquet."""
    collection: str = ""
    """Collection id; empty takes the only one, or the API's collection of record."""
    provider: Literal["auto", "earth-search", "planetary-computer", "cdse", "static"] = "auto"
    """Whose asset names and offset rules hold; auto looks at the items."""


class SourceSection(Section):
    """Where scenes come from."""

    catalog: PathOrUrl = "https://earth-search.aws.element84.com/v1"
    """STAC API, or a static catalogue (path or URL of catalog.json)."""
    collection: str = "sentinel-2-c1-l2a"
    """Collection id."""
    provider: Literal["auto", "earth-search", "planetary-computer", "cdse", "static"] = "auto"
    """Whose asset names and offset rules hold; auto looks at the items."""
    lineage: LineageSection = LineageSection()
    offset: Literal["auto", "applied", "raw"] = "auto"
    """Baseline offset of pixels whose items leave it in doubt: applied already, or still in."""
    max_cloud_pct: Annotated[float, Field(ge=0, le=100)] = 100.0
    """Scenes with more cloud, by their metadata, are left out."""
    query: dict[str, Any] = Field(default_factory=dict)
    """Further conditions on item properties, handed to the catalogue."""
    duplicates: Literal["latest"] = "latest"
    """Which of several processings of one acquisition is read."""
    fallback: tuple[FallbackSection, ...] = ()
    """Where the same products are read when the catalogue's files cannot be; never changes
    results."""


class WeightsSection(Section):
    """Weights of a network that finds clouds; they are never downloaded."""

    path: PathOrUrl
    """A .safetensors file of OmniCloudMask, version 4."""
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]
    """Checksum of the file, as `sha256sum` prints it."""
    encoder: Annotated[str, Field(min_length=1)]
    """Its encoder: tu-regnety_004 or tu-edgenext_small."""


class MaskSection(Section):
    """How the scene classification becomes a mask."""

    method: Literal["scl", "omnicloudmask", "scl+omnicloudmask", "none"] = "scl"
    """What says where a pixel is clear; ``none`` takes every valid one, with or without SCL."""
    weights: tuple[WeightsSection, ...] = ()
    """Networks of omnicloudmask; the answers of several are averaged."""

    scl_clear: Annotated[tuple[Annotated[int, Field(ge=0, le=11)], ...], Field(min_length=1)] = (
        4,
        5,
        6,
    )
    """SCL classes that are clear."""
    dilate_cloud_m: Annotated[int, Field(ge=0, le=300)] = 100
    """Cloud (classes 8, 9) grows by this distance."""
    dilate_shadow_m: Annotated[int, Field(ge=0, le=300)] = 60
    """Cloud shadow (class 3) grows by this distance."""
    screen: Literal["none", "temporal"] = "none"
    """What joins the mask in composites and change: nothing, or each pixel's own other dates, which
    find missed cloud and shadow and rescue bright targets that are always called cloud."""


class CompositeSection(Section):
    """How many scenes become one picture."""

    method: Literal[
        "geomedian", "geomad", "median", "best-pixel", "percentiles", "count", "none"
    ] = "geomedian"
    """What is taken of the clear observations; ``geomad`` adds how far they lie from it."""
    period: PeriodCode = "P3M"
    """P1D (each day), P1M P2M P3M P4M P6M P1Y, dekad, days (P10D) or weeks (P2W)."""
    season_start: SeasonStart = "01-01"
    """Day on which the first period of each year begins: "12-01" with P3M for seasons; quote it."""
    group: Literal["datatake", "solar-day"] = "datatake"
    """What is one observation: a datatake, or all of one solar day (the earliest clear one)."""
    percentiles: Percentiles = (10, 25, 50, 75, 90)
    """Of each band, for the method ``percentiles``."""
    min_obs: Count = 3
    """Pixels with fewer clear observations are flagged."""


def _kind_of_grid(value: Any) -> str:
    return "<own>" if isinstance(value, (dict, GridSection)) else "<world>"


Grid = Annotated[
    Annotated[Literal["world"], Tag("<world>")] | Annotated[GridSection, Tag("<own>")],
    Discriminator(_kind_of_grid),
]
"""The world grid by name, or a grid of the user's own as a section."""


class CubeSection(Section):
    """The datacube: bands, mask, composites."""

    bands: Bands = BANDS
    """Band ids or common names."""
    mask: MaskSection = MaskSection()
    composite: CompositeSection = CompositeSection()
    grid: Grid = "world"
    """The pixel lattice: ``world``, UTM zones in tiles of 10 240 m, or a grid of your own."""
    warp: bool = False
    """Resample scenes that lie on another lattice, instead of refusing them."""
    nbar: bool = False
    """Make composites of reflectance taken to the nadir view (c-factor); scenes stay observed."""
    dem: PathOrUrl | None = None
    """Elevation in metres, any raster: steep land is flagged, land in cast shadow masked."""
    max_sun_zenith: Annotated[float, Field(gt=0, le=90)] | None = None
    """Scenes under a lower sun are left out, degrees; none given: none is."""
    errors: Literal["record", "raise"] | None = None
    """What to do with a scene that cannot be read; none given: as ``run.errors`` says."""
    max_failed_share: Share = 0.2
    """Stop when more than this share of the reads failed: then the source is broken."""

    @property
    def own_grid(self) -> Lattice | None:
        """The user's grid; None for the world grid."""
        return self.grid.lattice() if isinstance(self.grid, GridSection) else None


class SplitSection(Section):
    """How labels are divided into training and validation, by place."""

    block_m: Annotated[float, Field(ge=0)] = 1280.0
    """Edge of the blocks that stay together; 0 keeps only touching polygons together."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Part of the labelled area that validates."""
    buffer_m: Annotated[float, Field(ge=0)] = 0.0
    """Training polygons nearer than this to a validating one are left out."""
    gap_m: Annotated[float, Field(ge=0)] = 20.0
    """With block_m 0, polygons nearer to each other than this stay together."""


class FitSection(Section):
    """The model and its training."""

    labels: PathOrUrl | None = None
    """Vector file of labelled polygons, in any CRS."""
    class_property: str = "class"
    """Property that holds the class."""
    classes: tuple[str, ...] = ()
    """Legend in order; empty takes the classes that occur."""
    bands: Bands | None = None
    """Bands that the model reads; none given: all of the cube."""
    time: Days | None = None
    """Days of the composites that the labels describe; none given: the run's."""
    border_m: Annotated[float, Field(ge=0)] = 10.0
    """Pixels nearer to a polygon's outline teach nothing."""
    model: str = "unet"
    """Architecture."""
    encoder: str = "mobilenet_v2"
    """Encoder of the architecture."""
    chip_px: Annotated[int, Field(ge=32, le=1024, multiple_of=32)] = 64
    """Edge of a training sample in pixels."""
    batch_size: Count = 16
    """Samples per step, over all workers."""
    steps: Count = 300
    """Training ends by steps, never by the clock."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Peak of the schedule."""
    seed: Annotated[int, Field(ge=0)] = 0
    split: SplitSection = SplitSection()
    checkpoint_every: Count = 50
    """Steps between checkpoints."""
    workers: Count = 1
    """Training processes."""
    threads: Count = 1
    """Threads of each of them on a CPU; small networks gain nothing from a second one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the arithmetic; auto: bf16 where it pays."""


class PredictSection(Section):
    """The map."""

    model: PathOrUrl | None = None
    """Package of a fitted model; none given: the one that this run fits."""
    time: Days | None = None
    """Days of the composites to map; none given: the last year of the run that is complete."""
    chip_px: Annotated[int, Field(ge=64, le=2048, multiple_of=32)] = 256
    """Edge of the window that the model sees at once."""
    halo_px: Annotated[int, Field(ge=0)] = 32
    """Margin that is read and blended, not kept."""
    batch_size: Count = 4
    """Windows per pass through the model."""

    @model_validator(mode="after")
    def _halo_leaves_a_core(self) -> PredictSection:
        if 2 * self.halo_px >= self.chip_px:
            raise ValueError(
                f"halo_px {self.halo_px} leaves nothing of chip_px {self.chip_px}; take a halo "
                "below half of the chip"
            )
        return self


class ChangeSection(Section):
    """Change detection."""

    resolution_m: Literal[10, 20] = 20
    """Pixel of the analysis on the world grid; a grid of your own has its own."""
    bands: Bands | None = None
    """Bands that are watched; none given: the engine's own choice among those of the cube."""
    start: Day | None = None
    """First day of the series; none given: the run's."""
    conse: Literal["auto"] | Annotated[int, Field(ge=2, le=30)] = "auto"
    """Anomalous observations in a row that make a break; auto follows the density of the series."""
    probability: Annotated[float, Field(ge=0.5, le=0.999999)] = 0.99
    """Chance that a stable observation stays below the threshold."""
    allow_mixed: bool = False
    """Accept a cube of mixed lineage, whose steps of processing can look like change."""
    nbar: Literal["auto"] | bool = "auto"
    """Take reflectance to the nadir view (c-factor); auto: in tiles that several orbits see."""
    max_sun_zenith: Annotated[float, Field(gt=0, le=90)] | None = None
    """Dates under a lower sun are not judged, degrees; none given: all are."""
    max_shift_px: Literal["none"] | Annotated[float, Field(gt=0, le=10)] = 0.5
    """Dates further off the tile's reference, in pixels of 10 m, are left out; none keeps all."""


class StatsSection(Section):
    """Statistics over time; it has no keys yet."""


class AssessSection(Section):
    """Accuracy and area from a probability sample of the map."""

    n_samples: Annotated[int, Field(ge=10)] = 400
    """Points of the sample."""
    min_per_stratum: Count = 50
    """Least points in each class of the map."""
    seed: Annotated[int, Field(ge=0)] = 0
    reference: PathOrUrl | None = None
    """Folder or file of reference rasters that answer the sample; none given: it is only drawn."""


class PublishSection(Section):
    """Published files."""

    license: str = "other"
    """SPDX id of the outputs' licence."""
    keywords: tuple[str, ...] = ()
    stac: bool = True
    """Write a STAC collection beside the files."""


class RunSection(Section):
    """How the run is carried out; never changes results."""

    executor: Literal["auto", "inline", "threads", "ray"] = "auto"
    workers: Literal["auto"] | Count = "auto"
    address: str | None = None
    """Ray cluster: none (here), ``auto`` (the one this process runs in), ``ray://host:port``."""
    wave_shards: Count = 2048
    """Finished shards that trigger a commit."""
    wave_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Seconds after which finished work is committed."""
    lease: Literal["refuse", "wait", "take-over"] = "refuse"
    """What to do while another run writes the store; take-over makes that one stop."""
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    """Further attempts at a failed read."""
    read_seconds: Annotated[float, Field(gt=0)] = 120.0
    """Seconds after which no further attempt at one read of a file begins."""
    errors: Literal["record", "raise"] = "record"
    """What to do with input that cannot be read: leave a recorded hole, or stop."""

    def workers_or(self, default: int) -> int:
        """Return the number of workers that is written, or ``default`` for ``auto``."""
        return default if self.workers == "auto" else self.workers


class RunConfig(Section):
    """A whole run file."""

    version: Literal[1] = 1
    """Version of the run file's format."""
    name: Slug
    """Names outputs inside the store."""
    aoi: Aoi
    """The place: a vector file, [west, south, east, north] in degrees, or tile ids."""
    time: Days
    """First and last day, both included, UTC."""
    task: Literal["cube", "land-cover", "change", "land-cover-change"]
    """What is wanted; it turns stages on."""
    source: SourceSection = SourceSection()
    store: PathOrUrl = "out"
    """Folder or s3:// URL of all outputs."""
    storage: dict[BucketUrl, BucketSection] = Field(default_factory=dict)
    """How buckets and servers of files are reached, by URL (``s3://maps``,
    ``https://files.example``); others by the environment."""
    cube: CubeSection = CubeSection()
    fit: FitSection = FitSection()
    predict: PredictSection = PredictSection()
    change: ChangeSection = ChangeSection()
    stats: StatsSection = StatsSection()
    assess: AssessSection = AssessSection()
    publish: PublishSection = PublishSection()
    run: RunSection = RunSection()
    cluster: ClusterSection = ClusterSection()

    @property
    def days(self) -> DateRange:
        """``time`` as two dates."""
        return DateRange.parse(self.time)

    def stages(self) -> tuple[str, ...]:
        """Stages of the task, in order; a given model needs no fit."""
        given = self.predict.model is not None
        return tuple(s for s in TASKS[self.task] if not (s == "fit" and given))

    @model_validator(mode="after")
    def _sections_agree(self) -> RunConfig:
        from eoray.config.agree import check_agreement

        check_agreement(self)
        return self
