from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from eoray.chips.split import SplitOptions
from eoray.errors import ClusterError, ConfigError, ConflictError
from eoray.infer.plan import PredictOptions, plan_predict
from eoray.infer.predict import PredictWorker
from eoray.models.package import load_package
from eoray.train.plan import FitOptions, FitPlan, plan_fit
from eoray.train.trainer import fit
from tests.chips.fake_reader import PRODUCT
from tests.chips.landscape import Landscape
from tests.train.conftest import PlanMaker
from tests.train.tiny_cube import BANDS, write_cube


@pytest.fixture(scope="module")
def stored_plan(land: Landscape, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> FitPlan:
    """A plan on a cube in a store."""
    source = write_cube(tmp_path_factory.mktemp("store"), land)
    options = FitOptions(
        labels=str(labels),
        product=PRODUCT,
        time=("2021-01-01", "2021-12-31"),
        model="mlp",
        steps=12,
        batch_size=4,
        checkpoint_every=5,
        torch_threads=1,
        split=SplitOptions(block_m=320),
    )
    return plan_fit(options, source)


def test_fit_writes_a_package_that_says_how_it_was_made(
    make_plan: PlanMaker, tmp_path: Path
) -> None:
    events: list[tuple[float, ...]] = []
    plan = make_plan()
    result = fit(plan, out=tmp_path, progress=lambda *event: events.append(event))
    package = load_package(result.path)
    assert package.meta.recipe == plan.recipe
    assert json.loads(json.dumps(result.metrics)) == package.meta.metrics
    assert package.meta.training["labels_hash"] == plan.labels_hash
    assert package.meta.training["options"]["steps"] == 12
    assert package.meta.seasons == ("2021-01-01/2022-01-01",)
    assert (result.steps, result.resumed_from) == (12, 0)
    assert result.chips_per_second > 0
    assert [event[:2] for event in events] == [(10, 12), (12, 12)]


def test_finished_fit_is_kept_and_another_plan_replaces_it(
    make_plan: PlanMaker, tmp_path: Path
) -> None:
    first = fit(make_plan(), out=tmp_path)
    before = load_package(first.path).sha256
    again = fit(make_plan(), out=tmp_path)
    assert (again.resumed_from, again.metrics) == (12, load_package(first.path).meta.metrics)
    fit(make_plan(seed=5), out=tmp_path)
    assert load_package(first.path).sha256 != before


def test_fit_killed_between_weights_and_item_goes_on(make_plan: PlanMaker, tmp_path: Path) -> None:
    plan = make_plan()
    path = Path(fit(plan, out=tmp_path).path)
    whole = {name: (path / name).read_bytes() for name in ("item.json", "model.safetensors")}
    (path / "item.json").unlink()
    result = fit(plan, out=tmp_path)
    assert result.resumed_from == 10
    assert {name: (path / name).read_bytes() for name in whole} == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 2}, "one process holds one worker"),
        ({"executor": "spark"}, "cannot run on executor 'spark'"),
        ({"workers": 3, "executor": "ray"}, "batch_size 4 cannot be divided among 3"),
    ],
)
def test_workers_that_cannot_be_are_refused(
    make_plan: PlanMaker, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(make_plan(), out=tmp_path, **options)
    assert not list(tmp_path.iterdir())


class Displaced:
    """Stops a fit at the n-th look that finds a checkpoint."""

    def __init__(self, out: Path, looks: int = 1) -> None:
        self._out, self._left = out, looks

    def __call__(self) -> None:
        self._left -= any(self._out.glob("checkpoint/*/step-*.pt"))
        if not self._left:
            raise ConflictError("another run has taken the store over")


def test_fit_that_may_not_go_on_stops_at_its_next_step(
    make_plan: PlanMaker, tmp_path: Path
) -> None:
    with pytest.raises(ConflictError, match="taken the store over"):
        fit(make_plan(steps=200), out=tmp_path, check=Displaced(tmp_path, looks=2))
    assert [path.name for path in tmp_path.rglob("*.*")] == ["step-0000005.pt"]


def test_stored_cube_is_read_as_the_one_in_memory(
    stored_plan: FitPlan, make_plan: PlanMaker, tmp_path: Path
) -> None:
    in_memory = make_plan(bands=BANDS)
    assert stored_plan.recipe == in_memory.recipe
    a, b = fit(stored_plan, out=tmp_path / "a"), fit(in_memory, out=tmp_path / "b")
    assert load_package(a.path).sha256 == load_package(b.path).sha256
    assert a.metrics == b.metrics


def test_map_of_a_stored_cube(stored_plan: FitPlan, land: Landscape, tmp_path: Path) -> None:
    package = load_package(fit(stored_plan, out=tmp_path).path)
    _, (row,) = plan_predict(package, stored_plan.source, ("2021-01-01", "2021-12-31"))
    options = PredictOptions(core_px=256, halo_px=16, batch_size=1)
    (result,) = PredictWorker(stored_plan.source, package.url, package.hash, options)(row)
    found = result.arrays["10m/class"][:256, :256]
    assert (found == land.classes)[found > 0].mean() > 0.4  # 12 steps; a third by chance
    assert result.n_valid == 256 * 256 - 16


RAY_WARNINGS = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray", "ignore::UserWarning:ray"
)
RAY_SOCKETS = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    from eoray.execute import local_ray

    with local_ray(2):
        yield


@pytest.mark.slow
@pytest.mark.timeout(600)
@RAY_WARNINGS
@RAY_SOCKETS
def test_ray_train_with_one_worker_equals_in_process(
    stored_plan: FitPlan, ray_session: None, tmp_path: Path
) -> None:
    here = fit(stored_plan, out=tmp_path / "here")
    there = fit(stored_plan, out=tmp_path / "there", executor="ray")
    assert load_package(there.path).sha256 == load_package(here.path).sha256
    assert there.metrics == json.loads(json.dumps(here.metrics))
    assert not (tmp_path / "there" / "ray").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@RAY_WARNINGS
@RAY_SOCKETS
def test_ray_train_with_two_workers_agrees(
    stored_plan: FitPlan, ray_session: None, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    plan = stored_plan
    one = load_file(Path(fit(plan, out=tmp_path / "one").path) / "model.safetensors")
    two = fit(plan, out=tmp_path / "two", executor="ray", workers=2)
    again = fit(plan, out=tmp_path / "again", executor="ray", workers=2)
    for name, values in load_file(Path(two.path) / "model.safetensors").items():
        assert np.allclose(values, one[name], atol=2e-4)
    assert load_package(two.path).sha256 == load_package(again.path).sha256


def trainers() -> list[psutil.Process]:
    """Processes of Ray that train."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            title = " ".join(process.cmdline())
            found += [process] if title.startswith("ray::") and "train" in title.lower() else []
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@RAY_WARNINGS
@RAY_SOCKETS
def test_workers_of_a_fit_that_may_not_go_on_are_ended(
    stored_plan: FitPlan, ray_session: None, tmp_path: Path
) -> None:
    import ray

    endless = replace(stored_plan, options=replace(stored_plan.options, steps=10_000_000))
    out = tmp_path / "out"
    seen: list[psutil.Process] = []
    displaced = Displaced(out)

    def check() -> None:
        seen[:] = trainers()
        displaced()

    with pytest.raises(ConflictError, match="taken the store over"):
        fit(endless, out=out, executor="ray", workers=2, check=check)
    assert len(seen) == 4  # the task, Ray Train's controller, two workers
    gone, left = psutil.wait_procs(seen, 60)
    assert (len(gone), left) == (4, [])
    limit = time.monotonic() + 60
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert not (out / "ray").exists()
    assert not list(out.glob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@RAY_WARNINGS
@RAY_SOCKETS
def test_ray_train_that_gives_up_says_why(
    stored_plan: FitPlan, ray_session: None, tmp_path: Path
) -> None:
    broken = replace(stored_plan, spec=replace(stored_plan.spec, name="no-such-model"))
    with pytest.raises(ClusterError, match=r"Ray Train gave up on .* after 3 restarts"):
        fit(broken, out=tmp_path, executor="ray")
