"""Checks across sections: values that are fine alone and wrong together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from eoray.errors import ConfigError
from eoray.timeline import Calendar, DateRange, parse_month_day

if TYPE_CHECKING:
    from eoray.config.models import RunConfig


WORLD_ONLY = frozenset({"fit", "predict"})
"""Stages whose models know pixels of 10 m in metres."""


LEARNABLE = ("geomedian", "geomad", "median", "best-pixel")
"""Composites that hold one spectrum per pixel, which is what models read."""


class DisagreementError(ValueError):
    """Sections contradict each other; one ``path: problem`` for each contradiction."""

    def __init__(self, problems: list[str]) -> None:
        """Keep the problems apart, so that each gets its line."""
        super().__init__("; ".join(problems))
        self.problems = problems


def check_agreement(config: RunConfig) -> None:
    """Refuse sections that contradict each other.

    Raises:
        DisagreementError: With one problem per contradiction.
    """
    checks = (_labels, _bands, _screen, _grid, _mask, _composite, _days, _storage)
    problems = [problem for check in checks for problem in check(config)]
    if problems:
        raise DisagreementError(problems)


def _labels(config: RunConfig) -> Iterator[str]:
    if "fit" in config.stages() and config.fit.labels is None:
        yield (
            f"fit.labels: missing, but task {config.task!r} fits a model; name a vector file of "
            "labelled polygons, or a fitted model in predict.model"
        )


def _bands(config: RunConfig) -> Iterator[str]:
    stages = config.stages()
    there = config.cube.bands
    for stage, bands in (("fit", config.fit.bands), ("change", config.change.bands)):
        lacking = [band for band in bands or () if band not in there]
        if stage in stages and lacking:
            yield (
                f"{stage}.bands: {', '.join(lacking)} not in cube.bands ({', '.join(there)}); add "
                "them there or leave them out here"
            )


def _screen(config: RunConfig) -> Iterator[str]:
    mask, there = config.cube.mask, set(config.cube.bands)
    if mask.screen == "none":
        return
    if mask.method == "none":
        yield (
            "cube.mask.screen: 'temporal' joins a mask and cube.mask.method is 'none'; take method "
            "'scl', or screen: none"
        )
    if not ({"B02", "B04"} <= there and there & {"B08", "B8A"}):
        yield (
            "cube.mask.screen: 'temporal' compares blue, red and nir, and cube.bands is "
            f"{', '.join(config.cube.bands)}; add what is missing, or say screen: none"
        )


def _grid(config: RunConfig) -> Iterator[str]:
    if config.cube.grid == "world":
        return
    unable = unable_on_own_grid(config.stages())
    if unable is not None:
        yield f"cube.grid: {unable}; task {config.task!r} needs it, so take 'world'"
    if isinstance(config.aoi, tuple) and all(isinstance(part, str) for part in config.aoi):
        yield (
            "aoi: tile ids are cells of the world grid; with a grid of your own, name a vector "
            "file or [west, south, east, north] in degrees"
        )


def unable_on_own_grid(stages: Iterable[str]) -> str | None:
    """Say which of some stages knows the world grid only; None where all go on."""
    found = [stage for stage in stages if stage in WORLD_ONLY]
    return f"stage {found[0]!r} reads the world grid only" if found else None


def _mask(config: RunConfig) -> Iterator[str]:
    mask = config.cube.mask
    learned = "omnicloudmask" in mask.method
    if learned and not mask.weights:
        yield (
            f"cube.mask.weights: missing, but method {mask.method!r} needs a network; give path, "
            "sha256 and encoder of the weights (docs/composites.md)"
        )
    if mask.weights and not learned:
        yield (
            f"cube.mask.weights: given, but method {mask.method!r} reads none; take "
            "'omnicloudmask' or 'scl+omnicloudmask', or leave them out"
        )
    if learned and config.cube.grid != "world":
        yield (
            f"cube.mask.method: {mask.method!r} was trained on pixels of 10 to 50 m and works on "
            "the world grid only; take 'scl', or grid 'world'"
        )


def _composite(config: RunConfig) -> Iterator[str]:
    composite = config.cube.composite
    stages = config.stages()
    reads = [stage for stage in ("fit", "predict") if stage in stages]
    if reads and composite.method not in LEARNABLE:
        yield (
            f"cube.composite.method: {composite.method!r}, but {' and '.join(reads)} read "
            f"composites of one spectrum per pixel (task {config.task!r}); take "
            f"{', '.join(map(repr, LEARNABLE[:-1]))} or {LEARNABLE[-1]!r}"
        )
    if composite.method == "none":
        return
    try:
        calendar = Calendar.parse(composite.period, parse_month_day(composite.season_start))
    except ConfigError as error:
        yield f"cube.composite.season_start: {error}"
        return
    try:
        calendar.periods(config.days)
    except ConfigError as error:
        yield f"time: {error}"


def _days(config: RunConfig) -> Iterator[str]:
    whole = config.days
    stages = config.stages()
    for stage, text in (("fit", config.fit.time), ("predict", config.predict.time)):
        if text is None or stage not in stages:
            continue
        part = DateRange.parse(text)
        if part.start < whole.start or part.end > whole.end:
            yield (
                f"{stage}.time: {text!r} reaches beyond time {config.time!r}, where there are no "
                "composites; widen time or narrow this"
            )


def _storage(config: RunConfig) -> Iterator[str]:
    for url, section in config.storage.items():
        of_bucket = {"endpoint", "region", "path_style", "anonymous", "requester_pays"}
        wrong = {"tokens"} if url.startswith("s3://") else of_bucket
        set_here = sorted(wrong & section.model_dump(exclude_defaults=True).keys())
        if set_here:
            kind, other = ("bucket", "server") if url.startswith("s3://") else ("server", "bucket")
            yield (
                f"storage[{url!r}]: {', '.join(set_here)} belongs to a {other}, but this is a "
                f"{kind}; take it out"
            )
