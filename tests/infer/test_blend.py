from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.errors import ConfigError
from eoray.grid import PixelWindow
from eoray.infer.blend import Blend, shared_part

targets = st.builds(
    PixelWindow, st.integers(0, 500), st.integers(0, 500), st.integers(1, 90), st.integers(1, 90)
)
blends = st.integers(4, 48).flatmap(
    lambda core: st.builds(Blend, st.just(core), st.integers(0, core // 2))
)


@given(blend=blends, target=targets)
def test_weights_sum_to_one_on_every_pixel(blend: Blend, target: PixelWindow) -> None:
    edge = blend.weights()
    total = np.zeros((target.height, target.width))
    for window in blend.windows(target):
        to, of = shared_part(target, window)
        total[to] += np.outer(edge, edge)[of]
    assert np.allclose(total, 1.0, atol=1e-12)


@given(blend=blends, target=targets)
def test_cover_is_what_the_windows_span(blend: Blend, target: PixelWindow) -> None:
    windows = list(blend.windows(target))
    cover = blend.cover(target)
    assert min(w.row_off for w in windows) == cover.row_off
    assert min(w.col_off for w in windows) == cover.col_off
    assert max(w.row_off + w.height for w in windows) == cover.row_off + cover.height
    assert max(w.col_off + w.width for w in windows) == cover.col_off + cover.width
    assert len(set(windows)) == len(windows)


@given(blend=blends, a=targets, b=targets)
def test_windows_of_a_pixel_do_not_depend_on_the_target(
    blend: Blend, a: PixelWindow, b: PixelWindow
) -> None:
    to, _ = shared_part(a, b)
    if a.height and b.height and to[0].stop > to[0].start and to[1].stop > to[1].start:
        pixel = PixelWindow(a.row_off + to[0].start, a.col_off + to[1].start, 1, 1)
        wanted = set(blend.windows(pixel))
        assert wanted <= set(blend.windows(a)) & set(blend.windows(b))


@given(a=targets, b=targets)
def test_shared_part_names_the_same_pixels(a: PixelWindow, b: PixelWindow) -> None:
    def numbers(window: PixelWindow) -> np.ndarray:
        rows = np.arange(window.row_off, window.row_off + window.height)
        cols = np.arange(window.col_off, window.col_off + window.width)
        return rows[:, None] * 1000 + cols

    in_a, in_b = shared_part(a, b)
    assert np.array_equal(numbers(a)[in_a], numbers(b)[in_b])
    assert set(numbers(a)[in_a].ravel()) == set(numbers(a).ravel()) & set(numbers(b).ravel())


@pytest.mark.parametrize(("core", "halo"), [(64, 33), (0, 0), (64, -1)])
def test_windows_that_cannot_blend_are_refused(core: int, halo: int) -> None:
    with pytest.raises(ConfigError, match="cannot be blended; the halo must be 0 to half"):
        Blend(core, halo)
