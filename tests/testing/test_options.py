from __future__ import annotations

import json

import pytest

from eoray.errors import ConfigError
from eoray.testing import ArchiveOptions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size_px": 50}, "size_px 50"),
        ({"years": (2020, 2022)}, "must follow each other"),
        ({"dates_per_year": 200}, "dates_per_year 200"),
        ({"change_share": 0.2}, "change_share 0.2"),
        ({"orbits": 0.5}, "orbits 0.5"),
        ({"block_px": 100}, "multiple of 16"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ArchiveOptions(**changes)  # type: ignore[arg-type]


def test_options_survive_json() -> None:
    options = ArchiveOptions(seed=9, years=(2021, 2022), snow=False)
    assert ArchiveOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


def test_unknown_options_are_named() -> None:
    with pytest.raises(ConfigError, match="snwo"):
        ArchiveOptions.from_dict({"years": [2020], "snwo": True})


def test_one_difficulty_can_stand_alone() -> None:
    alone = ArchiveOptions().with_only("snow", "orbits")
    assert (alone.snow, alone.orbits) == (True, 0.05)
    assert (alone.scl_errors, alone.registration, alone.omission) == (False, False, 0.0)
    assert ArchiveOptions().with_only() == ArchiveOptions.plain()
    with pytest.raises(ConfigError, match="no difficulty"):
        alone.with_only("clouds")
