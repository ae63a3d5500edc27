"""The baseline offset of an item: one table, followed by provider, flag and baseline.

From processing baseline 04.00 on, a stored integer is reflectance x 10 000 + 1000, so -1000 is
added to every DN above 0. It follows the processing baseline, never the acquisition date, and some
providers have taken it out already; DN 0 stays no data, and SCL never has an offset.
"""

from __future__ import annotations

from dataclasses import dataclass

from eoray.catalog.providers import (
    CDSE,
    EARTH_SEARCH_C1,
    EARTH_SEARCH_V0,
    EARTH_SEARCH_V1,
    GENERIC,
    PLANETARY_COMPUTER,
)
from eoray.errors import CatalogError, ConfigError

BASELINE_OFFSET = -1000
"""DN to add where DN > 0, for pixels that still carry the offset."""

FIRST_WITH_OFFSET = "04.00"

NON_OPERATIONAL = "99.99"
"""Baseline of CloudFerro and Major TOM products: its number says nothing about the offset."""

SAID = ("auto", "applied", "raw")

_HINT = (
    "say source.offset: applied or source.offset: raw after comparing pixels with a known product"
)


@dataclass(frozen=True, slots=True)
class OffsetFacts:
    """What an item says that bears on the offset of its reflectance assets."""

    provider: str
    baseline: str
    """Such as "05.10"; "" where the item says none."""
    applied_flag: bool | None = None
    """``earthsearch:boa_offset_applied`` or ``sentinel:boa_offset_applied``; None where absent."""
    declared: int | None = None
    """DN offset that the band metadata declares (offset / scale); None where it is silent."""
    jp2: bool = False
    """The JPEG 2000 originals of Earth Search are read, not its COGs."""


@dataclass(frozen=True, slots=True)
class OffsetRule:
    """The decision and its name, stored with every date."""

    dn_offset: int
    name: str


class _DoubtfulError(Exception):
    """The table has no safe answer; the message says why."""


def resolve_offset(facts: OffsetFacts, *, item_id: str, said: str = "auto") -> OffsetRule:
    """Decide what to add to the DN of an item.

    Args:
        facts: What the item says.
        item_id: Named in errors.
        said: The user's word on doubtful items only: "applied" (pixels are shifted already),
            "raw" (pixels are as ESA delivered them, so the baseline decides), or "auto".

    Returns:
        The DN offset (0 or -1000 so far) and the name of the rule that gave it.

    Raises:
        CatalogError: The item is doubtful, and the user said nothing.
        ConfigError: ``said`` is no such word.

    Source:
        Element 84 earth-search issues 9, 23, 24, 41, 56, 66, 71; Planetary Computer issue 134;
        ESA, Sentinel-2 Products Specification Document, BOA_ADD_OFFSET.
    """
    if said not in SAID:
        raise ConfigError(f"source.offset is {said!r}; say one of {', '.join(SAID)}")
    try:
        return _RULES[facts.provider](facts)
    except _DoubtfulError as doubt:
        if said == "applied":
            return OffsetRule(0, "said-applied")
        if said == "raw" and _has_offset(facts.baseline) is not None:
            return OffsetRule(_by_baseline(facts.baseline), "said-raw")
        raise CatalogError(
            f"the baseline offset of item {item_id} is doubtful ({doubt}; provider "
            f"{facts.provider}, baseline {facts.baseline or 'not stated'!r}); {_HINT}"
        ) from None


def _planetary_computer(facts: OffsetFacts) -> OffsetRule:
    if _has_offset(facts.baseline) is None:
        raise _DoubtfulError("its baseline does not tell whether the offset is in the pixels")
    return OffsetRule(_by_baseline(facts.baseline), "pc-baseline")


def _earth_search_v1(facts: OffsetFacts) -> OffsetRule:
    """`raster:bands.offset` of this collection's COGs is known to be wrong: never looked at."""
    if facts.jp2:
        if _has_offset(facts.baseline) is None:
            raise _DoubtfulError("JPEG 2000 originals without a usable baseline")
        return OffsetRule(_by_baseline(facts.baseline), "es-jp2-baseline")
    if facts.applied_flag:
        return OffsetRule(0, "es-flag-applied")
    if _has_offset(facts.baseline) is False:
        return OffsetRule(0, "es-before-0400")
    word = "false" if facts.applied_flag is False else "absent"
    raise _DoubtfulError(f"boa_offset_applied is {word}, but some such files are shifted already")


def _earth_search_v0(facts: OffsetFacts) -> OffsetRule:
    rule = _earth_search_v1(facts)
    return OffsetRule(rule.dn_offset, rule.name.replace("es-", "es0-"))


def _earth_search_c1(facts: OffsetFacts) -> OffsetRule:
    if facts.applied_flag and facts.declared:
        raise _DoubtfulError(f"flagged as applied, yet it declares {facts.declared} DN")
    return OffsetRule(_declared(facts), "c1-declared")


def _cdse(facts: OffsetFacts) -> OffsetRule:
    return OffsetRule(_declared(facts), "cdse-declared")


def _generic(facts: OffsetFacts) -> OffsetRule:
    if facts.applied_flag:
        return OffsetRule(0, "flag-applied")
    if facts.declared is None and _has_offset(facts.baseline) is False:
        return OffsetRule(0, "before-0400")
    return OffsetRule(_declared(facts), "declared")


def _declared(facts: OffsetFacts) -> int:
    """Take the declared offset where the baseline, if it says anything, agrees."""
    if facts.declared is None:
        raise _DoubtfulError("its bands declare no offset")
    if _has_offset(facts.baseline) is not None and facts.declared != _by_baseline(facts.baseline):
        raise _DoubtfulError(f"its bands declare {facts.declared} DN, which its baseline denies")
    return facts.declared


_RULES = {
    PLANETARY_COMPUTER.name: _planetary_computer,
    EARTH_SEARCH_V1.name: _earth_search_v1,
    EARTH_SEARCH_V0.name: _earth_search_v0,
    EARTH_SEARCH_C1.name: _earth_search_c1,
    CDSE.name: _cdse,
    GENERIC.name: _generic,
}


def _by_baseline(baseline: str) -> int:
    return BASELINE_OFFSET if _has_offset(baseline) else 0


def _has_offset(baseline: str) -> bool | None:
    """Tell whether a baseline adds the offset; None where its number cannot tell."""
    if baseline in ("", NON_OPERATIONAL):
        return None
    return baseline >= FIRST_WITH_OFFSET
