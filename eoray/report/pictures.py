"""Draw arrays as PNG files of fixed size, with scale bar and labels inside the picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.publish.legend import LegendClass
from eoray.sentinel2 import FILL, SCALE

if TYPE_CHECKING:
    from PIL import Image, ImageFont

PAPER = (244, 246, 247)
"""Colour of ground without data."""

INK = (24, 34, 44)
BAR_PX = 112
"""Height of the strip below a picture that holds its colour bar."""


@dataclass(frozen=True, slots=True)
class Frame:
    """How a picture is drawn, whatever it shows."""

    pixel_m: float
    """Ground size of an array's pixel in metres."""
    is_synthetic: bool
    """Written into the picture itself, so that it stays true when it is copied elsewhere."""
    edge_px: int = 960
    """Longest edge of the drawn map; texts scale with it."""
    has_color_bar: bool = True
    """False for pictures too small to read one."""

    @property
    def unit(self) -> float:
        """Drawn pixels for one pixel of the design at an edge of 960."""
        return self.edge_px / 960


@dataclass(frozen=True, slots=True)
class Scale:
    """A colour bar: what its ends and ticks mean."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    label: str
    palette: str
    """Name of a matplotlib colour map."""


def draw_true_color(values: np.ndarray, frame: Frame) -> bytes:
    """Draw red, green and blue reflectance.

    All bands share one stretch (1 to 99 % of the valid values, then a square root), so colours
    keep their balance.

    Args:
        values: Reflectance x 10 000, dims (band, y, x), int16, fill -32768.
        frame: Ground size of a pixel, and what is written into the picture.

    Returns:
        A PNG file.
    """
    valid = (values != FILL).all(axis=0)
    rgb = np.full((*valid.shape, 3), PAPER, "u1")
    if valid.any():
        reflectance = values[:, valid].astype("f4") * np.float32(SCALE)
        low, high = np.percentile(reflectance, (1, 99))
        low, high = max(0.0, float(low) * 0.7), max(float(high), 0.05)
        stretched = np.clip((reflectance - low) / (high - low), 0, 1) ** 0.6
        rgb[valid] = np.rint(stretched.T * 255).astype("u1")
    return _finish(rgb, frame)


def draw_classes(classes: np.ndarray, legend: Sequence[LegendClass], frame: Frame) -> bytes:
    """Draw class ids, dims (y, x), in the colours of the legend."""
    table = np.full((256, 3), PAPER, "u1")
    for one in legend:
        table[one.id] = one.color
    return _finish(table[classes], frame)


def draw_values(values: np.ndarray, scale: Scale, frame: Frame) -> bytes:
    """Draw measured values, dims (y, x), NaN without data, above their colour bar."""
    rgb = np.full((*values.shape, 3), PAPER, "u1")
    valid = np.isfinite(values)
    rgb[valid] = _colors(values[valid], scale)
    return _finish(rgb, frame, scale)


def draw_change(
    date: np.ndarray,
    monitored: np.ndarray | None,
    background: np.ndarray | None,
    scale: Scale,
    frame: Frame,
) -> bytes:
    """Draw the dates of breaks over a pale picture of the land.

    Args:
        date: Days since 1970-01-01, dims (y, x), 0 no break, -1 outside.
        monitored: True where a break could have been found; the rest is hatched.
        background: Reflectance as for ``draw_true_color``, or None for plain paper.
        scale: Colours of the dates.
        frame: Ground size of a pixel, and what is written into the picture.
    """
    rgb = np.full((*date.shape, 3), PAPER, "u1")
    inside = date >= 0
    rgb[inside] = _pale(date.shape, background)[inside]
    if monitored is not None:
        row, col = np.indices(date.shape)
        hatched = inside & ~monitored & ((row + col) % 6 < 2)
        rgb[hatched] = (158, 168, 178)
    rgb[date > 0] = _colors(date[date > 0].astype("f8"), scale)
    return _finish(rgb, frame, scale)


def date_scale(first: str, last: str) -> Scale:
    """Make the colour bar of dates, with a tick on every 1 January."""
    low = int(np.datetime64(first, "D").astype(int))
    high = max(int(np.datetime64(last, "D").astype(int)), low + 1)
    years = range(int(first[:4]), int(last[:4]) + 2)
    marks = [(int(np.datetime64(f"{year}-01-01", "D").astype(int)), str(year)) for year in years]
    inside = [(float(day), text) for day, text in marks if low <= day <= high]
    step = -(-len(inside) // 8) or 1
    return Scale(low, high, tuple(inside[::step]), "date of the last break", "plasma")


def even_scale(low: float, high: float, n: int, label: str, palette: str, form: str) -> Scale:
    """Make a colour bar with ``n`` even ticks written in a format such as ``.0%``."""
    ticks = tuple((float(v), format(float(v), form)) for v in np.linspace(low, high, n))
    return Scale(low, high, ticks, label, palette)


def colors_at(scale: Scale, values: Sequence[float]) -> list[str]:
    """Colours of single values as ``#rrggbb``, for legends and charts beside the picture."""
    table = _colors(np.asarray(values, "f8"), scale)
    return ["#" + "".join(f"{int(part):02x}" for part in row) for row in table]


def _colors(values: np.ndarray, scale: Scale) -> np.ndarray:
    share = np.clip((values - scale.low) / (scale.high - scale.low), 0, 1)
    return np.asarray(_palette(scale.palette)[np.rint(share * 255).astype(int)])


@lru_cache(maxsize=8)
def _palette(name: str) -> np.ndarray:
    """256 colours, uint8; the last tenth of a map that ends in near-white is left out."""
    import matplotlib as mpl

    stop = 0.92 if name in ("plasma", "YlGnBu_r") else 1.0
    table: np.ndarray = mpl.colormaps[name](np.linspace(0.0, stop, 256))
    return np.rint(table[:, :3] * 255).astype("u1")


def _pale(shape: tuple[int, ...], background: np.ndarray | None) -> np.ndarray:
    if background is None:
        return np.full((*shape, 3), (226, 230, 233), "u1")
    valid = (background != FILL).all(axis=0)
    grey = background.mean(axis=0)
    low, high = np.percentile(grey[valid], (1, 99)) if valid.any() else (0.0, 1.0)
    share = np.clip((grey - low) / max(float(high - low), 1.0), 0, 1) ** 0.7
    level = np.where(valid, 186 + 60 * share, PAPER[1])
    return np.rint(level)[..., None].repeat(3, axis=-1).astype("u1")


def _finish(rgb: np.ndarray, frame: Frame, scale: Scale | None = None) -> bytes:
    """Enlarge or shrink to the frame, then write scale bar, label and colour bar into it."""
    from PIL import Image, ImageDraw

    factor = frame.edge_px / max(rgb.shape[:2])
    width, height = (max(1, round(edge * factor)) for edge in (rgb.shape[1], rgb.shape[0]))
    way = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    picture = Image.fromarray(np.ascontiguousarray(rgb)).resize((width, height), way)
    draw = ImageDraw.Draw(picture, "RGBA")
    _draw_scale_bar(draw, picture.size, frame.pixel_m / factor, frame.unit)
    if frame.is_synthetic:
        _draw_tag(draw, width, "SYNTHETIC DATA", frame.unit)
    if scale is not None and frame.has_color_bar:
        picture = _add_color_bar(picture, scale)
    return _encode(picture)


def _encode(picture: Image.Image) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    colors = picture.getcolors(256)
    if colors is not None:  # an exact palette: a third of the size, the same pixels
        picture = picture.quantize(len(colors), dither=Image.Dither.NONE)
    picture.save(file, "PNG", compress_level=6)
    return file.getvalue()


@lru_cache(maxsize=16)
def _font(size: float, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu comes with matplotlib, so pictures are the same on every machine."""
    import matplotlib as mpl
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size)


def _draw_scale_bar(draw: Any, size: tuple[int, int], metres_per_px: float, unit: float) -> None:
    limit = size[0] * metres_per_px * 0.25
    power = 10.0 ** np.floor(np.log10(limit))
    length_m = next(step * power for step in (5, 2, 1) if step * power <= limit)
    px = length_m / metres_per_px
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    left, bottom = 18 * unit, size[1] - 18 * unit
    box = [left, bottom - 50 * unit, left + px + 28 * unit, bottom]
    draw.rounded_rectangle(box, 7 * unit, (255, 255, 255, 218))
    start, y = left + 14 * unit, bottom - 14 * unit
    draw.line([(start, y), (start + px, y)], INK, max(2, round(4 * unit)))
    draw.text((start, y - 9 * unit), text, INK, _font(21 * unit), anchor="ls")


def _draw_tag(draw: Any, width: int, text: str, unit: float) -> None:
    font = _font(20 * unit, bold=True)
    left, top, right, bottom = draw.textbbox((0, 0), text, font)
    w, h = right - left + 28 * unit, bottom - top + 22 * unit
    x, y = width - w - 18 * unit, 18 * unit
    line = max(1, round(2 * unit))
    draw.rounded_rectangle([x, y, x + w, y + h], 8 * unit, (255, 255, 255, 236), (180, 83, 9), line)
    draw.text((x + w / 2, y + h / 2), text, (154, 62, 8), font, anchor="mm")


def _add_color_bar(picture: Image.Image, scale: Scale) -> Image.Image:
    from PIL import Image, ImageDraw

    width, height = picture.size
    whole = Image.new("RGB", (width, height + BAR_PX), "white")
    whole.paste(picture, (0, 0))
    left, right, top, font = 48, width - 48, height + 18, _font(21)
    strip = _colors(np.linspace(scale.low, scale.high, right - left), scale)[None]
    whole.paste(Image.fromarray(strip.repeat(22, axis=0)), (left, top))
    draw = ImageDraw.Draw(whole)
    draw.rectangle([left, top, right, top + 21], outline=(120, 130, 140))
    for value, text in scale.ticks:
        x = left + (value - scale.low) / (scale.high - scale.low) * (right - left)
        draw.line([(x, top + 22), (x, top + 29)], (90, 100, 110), 2)
        draw.text((x, top + 34), text, INK, font, anchor="mt")
    draw.text((width / 2, top + 66), scale.label, (91, 104, 118), font, anchor="mt")
    return whole
