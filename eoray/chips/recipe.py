"""What a model reads: named bands of consecutive composites, and how they become numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from eoray.cube.resample import RULE
from eoray.errors import DataError, ModelError
from eoray.sentinel2 import FILL, resolve_bands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eoray.grid import PixelWindow, Tile


class CubeView(Protocol):
    """What fit and predict ask of a cube; ``eoray.cube.read.CubeReader`` answers it."""

    def entries(self, product: str, zone: int) -> Any:
        """Time table of a product in one zone."""

    def read_bands(
        self,
        product: str,
        zone: int,
        *,
        bands: Sequence[str],
        window: PixelWindow,
        resolution_m: int,
        index: Sequence[int],
    ) -> np.ndarray:
        """Reflectance, dims (time, band, y, x), int16."""

    def tiles(self, product: str) -> list[Tile]:
        """Tiles that hold a valid pixel of a product."""

    def bands(self, product: str, zone: int) -> list[str]:
        """Band ids of a product in one zone."""

    def zones(self, product: str) -> list[int]:
        """Zones that hold a product."""

    def products(self) -> list[str]:
        """Names of all products."""

    def attrs(self, product: str) -> dict[str, Any]:
        """Parameters of a product."""

    def ledger(self, product: str, zone: int) -> Any:
        """What is done of a product in one zone; see ``eoray.cube.ledger.Ledger``."""


def view_of(source: Any) -> CubeView:
    """Open the address of a cube, or pass through something that answers like a reader."""
    if hasattr(source, "read_bands"):
        view: CubeView = source
        return view
    from eoray.cube.read import open_reader

    # models read the world grid only, so that zones are numbers to them
    return cast("CubeView", open_reader(source))


@dataclass(frozen=True, slots=True)
class InputRecipe:
    """What stands behind each input channel. Models of another recipe are refused."""

    product: str
    """Composite product, such as ``s2-P3M-geomedian``."""
    bands: tuple[str, ...]
    """Band ids in the order of the channels."""
    n_periods: int
    """Consecutive composites that one sample holds."""
    season_start: tuple[int, int]
    """(month, day) on which the first composite of every sample begins."""
    parameters: str
    """Parameters of the product as canonical JSON: period, composite, mask, harmonisation."""
    resolution_m: int = 10
    resampling: str = RULE
    """Name of the rule by which bands reach another resolution."""

    def __post_init__(self) -> None:
        """Name the bands by id, whatever the caller wrote."""
        object.__setattr__(self, "bands", resolve_bands(self.bands))

    @property
    def n_values(self) -> int:
        """Channels that hold reflectance: composites x bands."""
        return self.n_periods * len(self.bands)

    @property
    def n_channels(self) -> int:
        """All channels: reflectance by (time, band), then one visible flag per composite."""
        return self.n_values + self.n_periods

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names such as ``t0.B04`` and ``t0.visible``, in channel order."""
        values = [f"t{t}.{band}" for t in range(self.n_periods) for band in self.bands]
        return (*values, *(f"t{t}.visible" for t in range(self.n_periods)))

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the recipe."""
        return hashlib.sha256(to_canonical_json(self.to_dict()).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "product": self.product,
            "bands": list(self.bands),
            "n_periods": self.n_periods,
            "season_start": list(self.season_start),
            "parameters": json.loads(self.parameters),
            "resolution_m": self.resolution_m,
            "resampling": self.resampling,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> InputRecipe:
        """Read what ``to_dict`` wrote."""
        month, day = value["season_start"]
        return cls(
            product=value["product"],
            bands=tuple(value["bands"]),
            n_periods=int(value["n_periods"]),
            season_start=(int(month), int(day)),
            parameters=to_canonical_json(value["parameters"]),
            resolution_m=int(value["resolution_m"]),
            resampling=value["resampling"],
        )


def to_canonical_json(value: Any) -> str:
    """Write JSON with sorted keys and no spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def check_recipe(recipe: InputRecipe, view: CubeView, *, model: str) -> None:
    """Refuse a cube that does not hold what a model expects.

    Args:
        recipe: What the model was trained on.
        view: The cube to map.
        model: Name or path of the model, for the message.

    Raises:
        ModelError: The product is absent, its bands lack one, or its parameters differ.
    """
    products = view.products()
    if recipe.product not in products:
        raise ModelError(
            f"model {model!r} reads product {recipe.product!r} but the cube holds "
            f"{', '.join(products) or 'none'}; build that composite or fit a new model"
        )
    for zone in view.zones(recipe.product):
        there = view.bands(recipe.product, zone)
        missing = [band for band in recipe.bands if band not in there]
        if not missing:
            continue
        raise ModelError(
            f"model {model!r} reads bands {', '.join(recipe.bands)} but product "
            f"{recipe.product!r} of the cube (zone {zone}) has {', '.join(there)} "
            f"({', '.join(missing)} missing); build the cube with these or fit a model without them"
        )
    expected, found = (
        json.loads(recipe.parameters),
        json.loads(to_canonical_json(view.attrs(recipe.product))),
    )
    if expected != found:
        raise ModelError(
            f"model {model!r} was trained on {recipe.product!r} made in another way than this "
            f"cube's: {_differences(expected, found)}; rebuild the composites or fit a new model"
        )


def _differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    keys = sorted(k for k in {*expected, *found} if expected.get(k) != found.get(k))
    parts = [f"{k} {expected.get(k)!r} (model) / {found.get(k)!r} (cube)" for k in keys[:4]]
    return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Season:
    """Consecutive composites that make one sample in time."""

    key: str
    """``start/end`` of the composites together, end excluded, such as 2021-01-01/2022-01-01."""
    periods: tuple[str, ...]
    """Keys of the composites, in order."""
    index: tuple[tuple[int, tuple[int, ...]], ...]
    """(zone, positions on the product's time axis in order) of every zone that has them all."""

    def index_of(self, zone: int) -> tuple[int, ...] | None:
        """Positions in one zone, or None where the zone lacks a composite."""
        return dict(self.index).get(zone)

    @property
    def start(self) -> str:
        """First day, ISO 8601."""
        return self.key.split("/", maxsplit=1)[0]

    @property
    def end(self) -> str:
        """First day after, ISO 8601."""
        return self.key.split("/")[1]


def find_seasons(
    view: CubeView,
    product: str,
    days: tuple[str, str],
    *,
    n_periods: int | None = None,
    season_start: tuple[int, int] | None = None,
) -> list[Season]:
    """List the runs of consecutive composites that lie inside a range of days.

    Args:
        view: The cube.
        product: Composite product; its entries are named ``start/end``.
        days: (first, last) day, both included, ISO 8601.
        n_periods: Composites of a run; without it as many as one year holds, or all when the
            range is shorter than a year.
        season_start: (month, day) on which a run begins; without it that of the first
            composite inside the range.

    Returns:
        Runs by start; a zone that lacks one of the composites is absent from that run.

    Raises:
        DataError: No zone has such a run; the composites that exist are named.
    """
    found: dict[tuple[str, ...], list[tuple[int, tuple[int, ...]]]] = {}
    seen: set[str] = set()
    for zone in view.zones(product):
        periods = _periods(view.entries(product, zone), product)
        seen.update(f"{start}/{end}" for start, end, _ in periods)
        inside = [p for p in periods if p[0] >= days[0] and p[1] <= _day_after(days[1])]
        if not inside:
            continue
        season_start = season_start or _month_day(inside[0][0])
        if n_periods is None:
            year_later = f"{int(inside[0][0][:4]) + 1}{inside[0][0][4:]}"
            n_periods = sum(start < year_later for start, _, _ in inside)
        for run in _runs(inside, n_periods, season_start):
            keys = tuple(f"{start}/{end}" for start, end, _ in run)
            found.setdefault(keys, []).append((zone, tuple(i for _, _, i in run)))
    if not found:
        raise DataError(
            f"product {product!r} has no {n_periods or ''} consecutive composites from "
            f"{days[0]} to {days[1]}; it holds {_listed(sorted(seen))}; choose a time inside"
        )
    return [
        Season(f"{keys[0].split('/')[0]}/{keys[-1].split('/')[1]}", keys, tuple(zones))
        for keys, zones in sorted(found.items())
    ]


def find_observed(view: CubeView, product: str, season: Season) -> dict[Tile, str]:
    """List the tiles in which a season holds anything.

    Returns:
        Per tile, in order, a digest over the ledger's digests of its composites: equal digests
        mean equal pixels.
    """
    lines: dict[Tile, list[str]] = {}
    for zone, _ in season.index:
        ledger = view.ledger(product, zone)
        for period in season.periods:
            for receipt in ledger.receipts(period):
                if receipt.n_valid > 0:
                    line = f"{period} {receipt.digest:016x}"
                    lines.setdefault(receipt.tile, []).append(line)
    return {
        tile: hashlib.sha256("\n".join(lines[tile]).encode()).hexdigest()[:16]
        for tile in sorted(lines)
    }


def _periods(table: Any, product: str) -> list[tuple[str, str, int]]:
    """(start, end, position on disk) of the composites, by time."""
    periods = []
    for key, index in zip(table.key, table.index, strict=True):
        start, _, end = str(key).partition("/")
        if not end:
            raise DataError(
                f"product {product!r} has entry {str(key)!r}, which is no period; fit and predict "
                "read composites, so name one (cube.composite) as their product"
            )
        periods.append((start, end, int(index)))
    return sorted(periods)


def _runs(
    periods: list[tuple[str, str, int]], n: int, season_start: tuple[int, int]
) -> list[list[tuple[str, str, int]]]:
    runs = [periods[i : i + n] for i in range(len(periods) - n + 1)]
    return [
        run
        for run in runs
        if _month_day(run[0][0]) == season_start and all(a[1] == b[0] for a, b in pairwise(run))
    ]


def _month_day(day: str) -> tuple[int, int]:
    return int(day[5:7]), int(day[8:10])


def _day_after(day: str) -> str:
    return str(np.datetime64(day) + np.timedelta64(1, "D"))


def _listed(names: list[str]) -> str:
    if len(names) > 6:
        return f"{', '.join(names[:3])}, ..., {', '.join(names[-2:])} ({len(names)} in all)"
    return ", ".join(names) or "none"


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and standard deviation of each reflectance channel, in stored integers."""

    mean: tuple[float, ...]
    """By (time, band)."""
    std: tuple[float, ...]


def prepare_input(values: np.ndarray, normal: Normalisation) -> np.ndarray:
    """Turn stored reflectance into input channels.

    Args:
        values: Stored reflectance, dims (time, band, y, x), int16, FILL where absent.
        normal: Statistics of the training data.

    Returns:
        Dims (channel, y, x), float32: (value - mean) / std by (time, band), 0 where absent; then
        per composite 1 where all bands are present, else 0.
    """
    t, b, h, w = values.shape
    flat = values.reshape(t * b, h, w)
    out = np.empty((t * b + t, h, w), np.float32)
    mean = np.asarray(normal.mean, np.float32)[:, None, None]
    std = np.asarray(normal.std, np.float32)[:, None, None]
    np.subtract(flat, mean, out=out[: t * b])
    out[: t * b] /= std
    absent = flat == FILL
    out[: t * b][absent] = 0.0
    out[t * b :] = ~absent.reshape(t, b, h, w).any(axis=1)
    return out


def is_observed(values: np.ndarray) -> np.ndarray:
    """Tell where at least one composite has all bands.

    Args:
        values: Dims (time, band, y, x), int16.

    Returns:
        Dims (y, x), bool.
    """
    return np.asarray((values != FILL).all(axis=1).any(axis=0))
