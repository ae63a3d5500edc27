from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.assess.design import SampleDesign, Stratum, allocate
from eoray.errors import DataError

DESIGN = SampleDesign(
    (Stratum(1, "forest", 1000, 99_800.0, 50), Stratum(4, "crop", 200, 19_990.0, 20)),
    seed=9,
    map_digest="ab12",
    resolution_m=10,
    n_unmapped=7,
    unmapped_m2=698.0,
)


def test_record_survives_writing_and_reading() -> None:
    assert SampleDesign.from_dict(DESIGN.to_dict()) == DESIGN


def test_inclusion_probability_is_the_share_drawn() -> None:
    assert [part.inclusion_probability for part in DESIGN.strata] == [0.05, 0.1]
    assert DESIGN.n_sample == 70
    assert DESIGN.area_m2 == pytest.approx(119_790.0)


@pytest.mark.parametrize("record", [None, {}])
def test_missing_record_is_refused(record: dict[str, object] | None) -> None:
    with pytest.raises(DataError, match="carries no design record"):
        SampleDesign.from_dict(record)


def test_record_of_another_version_is_refused() -> None:
    with pytest.raises(DataError, match="version 99 but this release reads 1"):
        SampleDesign.from_dict({**DESIGN.to_dict(), "version": 99})


def test_incomplete_record_is_refused() -> None:
    record = DESIGN.to_dict()
    del record["seed"]
    with pytest.raises(DataError, match=r"incomplete .*seed"):
        SampleDesign.from_dict(record)


@given(
    sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=9),
    minimum=st.integers(2, 60),
    extra=st.integers(0, 5000),
)
def test_allocation_gives_minima_and_sums_up(sizes: list[int], minimum: int, extra: int) -> None:
    n_points = sum(min(minimum, size) for size in sizes) + extra
    drawn = allocate(n_points, sizes, minimum=minimum)
    assert sum(drawn) == min(n_points, sum(sizes))
    for n, size in zip(drawn, sizes, strict=True):
        assert min(minimum, size) <= n <= size


def test_rest_is_shared_in_proportion_to_size() -> None:
    assert allocate(640, [200_000, 150_000, 3_200_000, 6_450_000], minimum=75) == (82, 80, 184, 294)


def test_too_few_points_for_the_minima_are_refused() -> None:
    with pytest.raises(DataError, match=r"n_points=80 is less than 100"):
        allocate(80, [1000, 1000], minimum=50)


def test_empty_stratum_is_refused() -> None:
    with pytest.raises(DataError, match="every stratum needs pixels"):
        allocate(80, [1000, 0])
