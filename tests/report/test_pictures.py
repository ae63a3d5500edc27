from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from eoray.publish.legend import make_legend
from eoray.report import pictures
from eoray.report.pictures import BAR_PX, PAPER, Frame

FRAME = Frame(pixel_m=20.0, is_synthetic=False, edge_px=400)
LEGEND = make_legend({1: "water", 2: "crop"}, {1: (10, 20, 200), 2: (240, 200, 90)})


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_classes_are_drawn_in_the_colours_of_the_legend() -> None:
    classes = np.array([[1, 2], [2, 0]], "u1").repeat(50, 0).repeat(50, 1)
    image = opened(pictures.draw_classes(classes, LEGEND, FRAME))
    assert image.shape == (400, 400, 3)
    assert tuple(image[20, 20]) == (10, 20, 200)
    assert tuple(image[60, 300]) == (240, 200, 90)
    assert tuple(image[300, 350]) == PAPER


@pytest.mark.parametrize("kind", ["true colour", "classes", "values", "change"])
def test_synthetic_pictures_say_so_inside_the_picture(kind: str) -> None:
    rng = np.random.default_rng(1)
    rgb = rng.integers(200, 2000, (3, 80, 80)).astype("i2")
    date = rng.choice([0, 18_500], (80, 80)).astype("i4")
    scale = pictures.date_scale("2020-01-01", "2021-12-31")

    def draw(frame: Frame) -> np.ndarray:
        drawn = {
            "true colour": lambda: pictures.draw_true_color(rgb, frame),
            "classes": lambda: pictures.draw_classes(np.ones((80, 80), "u1"), LEGEND, frame),
            "values": lambda: pictures.draw_values(rgb[0] / 1.0, scale, frame),
            "change": lambda: pictures.draw_change(date, None, rgb, scale, frame),
        }
        return opened(drawn[kind]())

    plain, tagged = draw(FRAME), draw(Frame(20.0, is_synthetic=True, edge_px=400))
    differs = (plain != tagged).any(axis=-1)
    assert differs[:60, 200:].mean() > 0.1
    assert not differs[60:].any()


def test_true_colour_keeps_the_order_of_bands_and_brightness() -> None:
    rgb = np.zeros((3, 60, 90), "i2")
    rgb[0, :, :30], rgb[1, :, 30:60], rgb[2, :, 60:] = 1500, 1500, 1500
    rgb[:, :10] = -32768
    image = opened(pictures.draw_true_color(rgb, FRAME))
    assert [int(image[120, x].argmax()) for x in (60, 200, 330)] == [0, 1, 2]
    assert tuple(image[5, 200]) == PAPER


def test_picture_without_data_is_paper() -> None:
    image = opened(pictures.draw_true_color(np.full((3, 50, 50), -32768, "i2"), FRAME))
    assert (image[:300] == PAPER).all()


def test_change_colours_dates_and_leaves_the_rest_grey() -> None:
    date = np.zeros((60, 60), "i4")
    date[10:20, 10:20], date[10:20, 40:50], date[:, 58:] = 18_300, 18_900, -1
    scale = pictures.date_scale("2020-01-01", "2021-12-31")
    image = opened(pictures.draw_change(date, np.ones((60, 60), bool), None, scale, FRAME))
    early, late = image[100, 100].astype(int), image[100, 300].astype(int)
    assert "#{:02x}{:02x}{:02x}".format(*early) == pictures.colors_at(scale, [18_300])[0]
    assert late[0] > early[0]
    assert np.ptp(image[200, 200].astype(int)) < 10
    assert tuple(image[100, 395]) == PAPER


def test_ground_that_was_not_monitored_is_hatched() -> None:
    date, monitored = np.zeros((60, 60), "i4"), np.ones((60, 60), bool)
    monitored[:, 30:] = False
    scale = pictures.date_scale("2020-01-01", "2021-12-31")
    image = opened(pictures.draw_change(date, monitored, None, scale, FRAME))
    assert len(np.unique(image[60:300, :190].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(image[60:300, 210:].reshape(-1, 3), axis=0)) == 2


def test_colour_bar_is_part_of_the_picture() -> None:
    values = np.linspace(0, 1, 3600).reshape(60, 60)
    scale = pictures.even_scale(0, 1, 3, "share", "viridis", ".0%")
    with_bar = opened(pictures.draw_values(values, scale, FRAME))
    small = Frame(20.0, is_synthetic=False, edge_px=400, has_color_bar=False)
    assert with_bar.shape[0] == 400 + BAR_PX
    assert opened(pictures.draw_values(values, scale, small)).shape[0] == 400
    first = "#{:02x}{:02x}{:02x}".format(*with_bar[430, 52])
    assert first == pictures.colors_at(scale, [0.01])[0]


@pytest.mark.parametrize(
    ("first", "last", "years"), [("2020-01-01", "2023-12-31", 4), ("2015-07-01", "2026-11-01", 6)]
)
def test_date_scale_marks_new_years_days(first: str, last: str, years: int) -> None:
    scale = pictures.date_scale(first, last)
    assert len(scale.ticks) == years
    for day, text in scale.ticks:
        assert str(np.datetime64(int(day), "D")) == f"{text}-01-01"


def test_same_arrays_give_the_same_bytes() -> None:
    rgb = np.random.default_rng(2).integers(0, 3000, (3, 70, 90)).astype("i2")
    assert pictures.draw_true_color(rgb, FRAME) == pictures.draw_true_color(rgb.copy(), FRAME)
