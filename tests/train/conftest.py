"""A plan on a small landscape, small enough for every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eoray.chips.split import SplitOptions
from eoray.train.plan import FitOptions, FitPlan, plan_fit
from tests.chips.fake_reader import PRODUCT
from tests.chips.landscape import Landscape, make_landscape

PlanMaker = Callable[..., FitPlan]


@pytest.fixture(scope="session")
def land() -> Landscape:
    return make_landscape(noise=1500.0)


@pytest.fixture(scope="session")
def labels(land: Landscape, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return land.write_labels(tmp_path_factory.mktemp("labels") / "labels.geojson")


@pytest.fixture
def make_plan(land: Landscape, labels: Path) -> PlanMaker:
    def make(**changes: Any) -> FitPlan:
        values: dict[str, Any] = {
            "labels": str(labels),
            "product": PRODUCT,
            "time": ("2021-01-01", "2021-12-31"),
            "model": "mlp",
            "steps": 12,
            "batch_size": 4,
            "checkpoint_every": 5,
            # Two threads that wait for each other take many times longer on a busy machine.
            "torch_threads": 1,
            "split": SplitOptions(block_m=320),
        }
        return plan_fit(FitOptions(**{**values, **changes}), land.reader)

    return make
