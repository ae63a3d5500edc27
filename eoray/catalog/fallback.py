"""The same products at other providers, to be read where the first one does not answer.

A product is one processing of one granule by ESA, and its name (``s2:product_uri``) says which. Its
digital numbers are the same wherever it lies, whatever the files and assets are called. A provider
that changed them, such as one that took the baseline offset out, cannot stand in: values below 0
are lost there. Another processing of the granule is other data, and is never taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from eoray.catalog.scene import BandAsset, Elsewhere, Scene


def add_elsewhere(
    scenes: Sequence[Scene], others: Mapping[str, Sequence[Scene]]
) -> tuple[Scene, ...]:
    """Tell each scene where else its files lie.

    Args:
        scenes: Of the run.
        others: Scenes of other catalogues, by a name for messages, in order of preference.

    Returns:
        The scenes in their order, with ``elsewhere``, or with ``not_elsewhere`` where every
        catalogue was in vain.
    """
    found = list(scenes)
    for name, candidates in others.items():
        by_pass: dict[tuple[str, str], list[Scene]] = {}
        for one in candidates:
            by_pass.setdefault((one.satellite + one.sensing_time, one.granule), []).append(one)
        for number, scene in enumerate(found):
            same = by_pass.get((scene.satellite + scene.sensing_time, scene.granule), [])
            found[number] = _compare(scene, name, same)
    return tuple(s if not s.elsewhere else replace(s, not_elsewhere="") for s in found)


def _compare(scene: Scene, name: str, candidates: Sequence[Scene]) -> Scene:
    """The scene with the first candidate that is its product, or with why none is."""
    reasons = []
    for one in candidates:
        reason = why_not_same(scene, one)
        if not reason:
            place = Elsewhere(one.provider, one.item_id, _in_order(scene, one))
            return replace(scene, elsewhere=(*scene.elsewhere, place, *one.elsewhere))
        reasons.append(reason)
    text = f"{name} {'; '.join(sorted(set(reasons))) or 'has nothing of this pass'}"
    return replace(scene, not_elsewhere="; ".join(filter(None, (scene.not_elsewhere, text))))


def why_not_same(scene: Scene, other: Scene) -> str:
    """Say why another item does not hold the same integers, or "" where it does."""
    if not scene.product_uri or not other.product_uri:
        return f"has item {other.item_id}, but a product's name is missing: nobody can compare"
    if (scene.product_uri, scene.baseline) != (other.product_uri, other.baseline):
        return (
            f"has another processing of it (baseline {other.baseline or '?'}, generated "
            f"{other.generation_time or '?'}), which is other data"
        )
    if scene.dn_offset != other.dn_offset:
        return (
            f"has the same product with other integers (offset {other.dn_offset:+d} by rule "
            f"{other.offset_rule}, here {scene.dn_offset:+d} by {scene.offset_rule})"
        )
    theirs = {asset.band: asset for asset in other.assets}
    for asset in scene.assets:
        there = theirs.get(asset.band)
        if there is None:
            return f"has the same product without {asset.band}"
        here = (scene.grid_epsg, asset.transform, asset.shape, asset.nodata)
        if here != (other.grid_epsg, there.transform, there.shape, there.nodata):
            return f"has {asset.band} of the same product on another grid"
    return ""


def _in_order(scene: Scene, other: Scene) -> tuple[BandAsset, ...]:
    return tuple(other.asset(asset.band) for asset in scene.assets)
