"""The design record of a stratified random sample: without it no area is estimated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eoray.errors import DataError

DESIGN_VERSION = 1
"""Version of the written record; a reader refuses a newer one."""


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """How many pixels to draw, and which ones a seed stands for."""

    n_points: int = 600
    """Pixels to draw in all."""
    minimum: int = 50
    """Pixels for the rarest stratum, or all of it if it has fewer."""
    seed: int = 0
    """The same seed and map draw the same pixels."""
    resolution_m: int = 10
    """Pixel of the map, which is the sampling unit."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """One part of the frame, sampled on its own."""

    id: int
    """Value in the strata raster, 1 to 255; 0 is outside the frame."""
    name: str
    n_pixels: int
    """Owned pixels of the frame in this stratum."""
    area_m2: float
    """True ground area of those pixels, not the count times 100 m2."""
    n_sample: int
    """Pixels drawn, at random and without replacement."""

    @property
    def inclusion_probability(self) -> float:
        """Chance of each pixel of the stratum to be in the sample."""
        return self.n_sample / self.n_pixels


@dataclass(frozen=True, slots=True)
class SampleDesign:
    """How a sample was drawn, in full: enough to draw it again and to weigh its answers."""

    strata: tuple[Stratum, ...]
    seed: int
    map_digest: str
    """SHA-256 over tile ids, strata and classes of the frame: the map that was sampled."""
    resolution_m: int
    """Edge of a sampling unit, which is one pixel."""
    n_unmapped: int = 0
    """Owned pixels without a class; outside the frame, so no estimate speaks of them."""
    unmapped_m2: float = 0.0

    @property
    def area_m2(self) -> float:
        """True ground area of the frame."""
        return math.fsum(stratum.area_m2 for stratum in self.strata)

    @property
    def n_sample(self) -> int:
        """Pixels in the sample."""
        return sum(stratum.n_sample for stratum in self.strata)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain values for JSON."""
        return {"version": DESIGN_VERSION, "method": "stratified random", **asdict(self)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any] | None) -> SampleDesign:
        """Read a record written by ``to_dict``.

        Raises:
            DataError: There is no record, or it is of another version or incomplete.
        """
        if not record:
            raise DataError(
                "the sample carries no design record, so its pixels have no known inclusion "
                "probability and no area can be estimated; draw it with `draw_sample`, or report "
                "a validation score instead"
            )
        version = record.get("version")
        if version != DESIGN_VERSION:
            raise DataError(
                f"design record has version {version!r} but this release reads {DESIGN_VERSION}; "
                "draw the sample again or use the release that drew it"
            )
        try:
            return cls(
                strata=tuple(Stratum(**stratum) for stratum in record["strata"]),
                seed=int(record["seed"]),
                map_digest=str(record["map_digest"]),
                resolution_m=int(record["resolution_m"]),
                n_unmapped=int(record.get("n_unmapped", 0)),
                unmapped_m2=float(record.get("unmapped_m2", 0.0)),
            )
        except (KeyError, TypeError) as error:
            raise DataError(
                f"design record is incomplete ({error}); draw the sample again"
            ) from error


def allocate(n_points: int, sizes: Sequence[int], *, minimum: int = 50) -> tuple[int, ...]:
    """Share a sample among strata: a minimum for each, the rest in proportion to size.

    Args:
        n_points: Pixels to draw in all.
        sizes: Pixels of each stratum, all positive.
        minimum: Pixels that even the rarest stratum gets (or all of it, if it has fewer).

    Returns:
        Pixels to draw per stratum, in the order of ``sizes``; the sum is ``n_points`` unless the
        frame is smaller.

    Raises:
        DataError: The minima alone exceed ``n_points``, or a stratum is empty.

    Source:
        Olofsson et al. 2014, section 5.1.2: 50 to 100 for rare classes, the rest proportional.
    """
    if not sizes or min(sizes) <= 0 or minimum < 2:
        raise DataError(
            f"strata of {list(sizes)} pixels with a minimum of {minimum} cannot be sampled; every "
            "stratum needs pixels, and two points at least for a variance"
        )
    base = [min(minimum, size) for size in sizes]
    rest = min(n_points, sum(sizes)) - sum(base)
    if rest < 0:
        raise DataError(
            f"n_points={n_points} is less than {sum(base)}, the minimum of {minimum} in each of "
            f"{len(sizes)} strata; raise assess.n_points or lower assess.minimum"
        )
    room = [size - first for size, first in zip(sizes, base, strict=True)]
    return tuple(first + more for first, more in zip(base, _proportional(rest, room), strict=True))


def _proportional(n: int, room: Sequence[int]) -> list[int]:
    """Largest remainders: integers in proportion to ``room`` that sum to ``n`` <= sum(room)."""
    total = sum(room)
    if total == 0:
        return [0] * len(room)
    shares = [n * part // total for part in room]
    by_remainder = sorted(range(len(room)), key=lambda i: (-(n * room[i] % total), i))
    for i in by_remainder[: n - sum(shares)]:
        shares[i] += 1
    return shares
