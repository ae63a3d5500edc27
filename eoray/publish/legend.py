"""Classes of a map: ids, names and colours, wherever a product shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eoray.errors import DataError

Rgb = tuple[int, int, int]

NAMED_COLORS: Mapping[str, Rgb] = {
    "water": (48, 105, 180),
    "forest": (27, 108, 62),
    "evergreen": (19, 84, 53),
    "conifer": (19, 84, 53),
    "deciduous": (96, 157, 73),
    "broadleaf": (96, 157, 73),
    "shrub": (163, 148, 62),
    "crop": (232, 196, 92),
    "grass": (178, 208, 120),
    "wetland": (92, 170, 160),
    "urban": (197, 66, 61),
    "built": (197, 66, 61),
    "bare": (186, 166, 140),
    "snow": (222, 236, 246),
    "other": (150, 150, 150),
}
"""Colours by a word in the class name; the first word that occurs wins."""

SPARE_COLORS: Sequence[Rgb] = (
    (68, 119, 170),
    (238, 153, 51),
    (34, 136, 51),
    (204, 102, 119),
    (170, 170, 68),
    (136, 34, 85),
    (102, 204, 238),
    (136, 102, 68),
    (119, 119, 119),
    (51, 34, 136),
)
"""For classes whose name says nothing; told apart by readers with any colour vision."""


@dataclass(frozen=True, slots=True)
class LegendClass:
    """One class of a map."""

    id: int
    """Stored value, 1 to 255; 0 is not mapped."""
    name: str
    color: Rgb
    description: str = ""

    @property
    def hex(self) -> str:
        """Colour as ``RRGGBB``, as STAC's classification extension wants it."""
        return "".join(f"{part:02X}" for part in self.color)


def make_legend(
    names: Mapping[int, str], colors: Mapping[int, Rgb] | None = None
) -> tuple[LegendClass, ...]:
    """Give every class a colour: the one asked for, else by name, else the next spare one.

    Args:
        names: Class id to name.
        colors: Class id to (red, green, blue), 0 to 255.

    Raises:
        DataError: There is no class, or an id does not fit a byte.
    """
    if not names or not all(1 <= class_id <= 255 for class_id in names):
        raise DataError(
            f"class ids {sorted(names)} cannot be published; use 1 to 255 (0 is not mapped)"
        )
    given = dict(colors or {})
    spare = iter(color for color in SPARE_COLORS if color not in given.values())
    legend: list[LegendClass] = []
    for class_id in sorted(names):
        used = {one.color for one in legend}
        color = given.get(class_id) or _by_name(names[class_id])
        if color is None or (color in used and class_id not in given):
            color = next(spare, None) or _grey(class_id)
        legend.append(LegendClass(class_id, names[class_id], color))
    return tuple(legend)


def legend_of(attrs: Mapping[str, Any]) -> tuple[LegendClass, ...]:
    """Read the legend from the CF attributes of a stored class array.

    Args:
        attrs: ``flag_values``, ``flag_meanings`` (one string of words, or a list) and, if there
            are any, ``flag_colors`` (``#rrggbb``, in the same form).

    Raises:
        DataError: The attributes are missing or do not belong together.
    """
    values = [int(value) for value in attrs.get("flag_values", ())]
    meanings = _words(attrs.get("flag_meanings", ()))
    colors = _words(attrs.get("flag_colors", ()))
    if not values or len(values) != len(meanings) or (colors and len(colors) != len(values)):
        raise DataError(
            f"class array has {len(values)} flag_values, {len(meanings)} flag_meanings and "
            f"{len(colors)} flag_colors; run predict again, which writes them in pairs"
        )
    named = {
        value: word.replace("_", " ") for value, word in zip(values, meanings, strict=True) if value
    }
    given = {value: _rgb(text) for value, text in zip(values, colors, strict=False) if value}
    return make_legend(named, given)


def _words(value: Any) -> list[str]:
    return value.split() if isinstance(value, str) else [str(word) for word in value]


def _rgb(text: str) -> Rgb:
    digits = text.lstrip("#")
    try:
        return (int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16))
    except ValueError as error:
        raise DataError(f"colour {text!r} cannot be read; write it like '#1b6c3e'") from error


def _by_name(name: str) -> Rgb | None:
    lowered = name.lower()
    order = sorted(NAMED_COLORS, key=lambda word: (word == "forest", word))
    return next((NAMED_COLORS[word] for word in order if word in lowered), None)


def _grey(class_id: int) -> Rgb:
    level = 60 + 37 * class_id % 160
    return (level, level, level)
