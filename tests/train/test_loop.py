from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eoray.chips.dataset import LabelStatistics
from eoray.models.registry import hash_weights
from eoray.train.loop import Team, Trained, train
from eoray.train.plan import FitPlan
from eoray.train.resume import latest_step, list_checkpoints
from eoray.train.trainer import _measure
from tests.train.conftest import PlanMaker


def weights(plan: FitPlan, folder: Path, **options: Any) -> str:
    return hash_weights(train(plan, _measure(plan), folder, **options).model.state_dict())


class Stop(Exception):  # noqa: N818  no error: the end of a process
    pass


def stop_after(step: int) -> Team:
    """A worker whose process ends after the checkpoint at a step."""

    def report(metrics: dict[str, Any]) -> None:
        if metrics["step"] >= step:
            raise Stop

    return Team(report=report)


@pytest.mark.parametrize("stops", [(5,), (5, 10)])
def test_resume_equals_never_having_stopped(
    make_plan: PlanMaker, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    plan = make_plan()
    whole = weights(plan, tmp_path / "whole")
    folder = tmp_path / "parts"
    for stop in stops:
        with pytest.raises(Stop):
            weights(plan, folder, team=stop_after(stop))
        assert latest_step(folder) == stop
    trained = train(plan, _measure(plan), folder)
    assert trained.resumed_from == stops[-1]
    assert hash_weights(trained.model.state_dict()) == whole


def test_weights_follow_plan_and_seed(make_plan: PlanMaker, tmp_path: Path) -> None:
    first = weights(make_plan(), tmp_path / "a")
    torch.manual_seed(99)
    assert weights(make_plan(), tmp_path / "b") == first
    assert weights(make_plan(seed=1), tmp_path / "c") != first


def test_checkpoints_are_few_and_whole(make_plan: PlanMaker, tmp_path: Path) -> None:
    weights(make_plan(steps=22), tmp_path)
    assert [Path(path).name for path in list_checkpoints(tmp_path)] == [
        "step-0000015.pt",
        "step-0000020.pt",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"step-0000015.pt", "step-0000020.pt"}


def test_torch_is_left_as_it_was(make_plan: PlanMaker, tmp_path: Path) -> None:
    before = torch.get_rng_state(), torch.get_num_threads()
    weights(make_plan(torch_threads=before[1] + 1), tmp_path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]


def test_unet_overfits_one_batch(make_plan: PlanMaker, tmp_path: Path) -> None:
    plan = make_plan(model="unet", steps=60, chip_px=32, augment=False, learning_rate=1e-2)
    one = replace(plan, training=plan.training[:4])
    losses = []
    train(one, _measure(one), tmp_path, progress=lambda *event: losses.append(event[2]))
    assert losses[-1] < 0.005  # log(3) = 1.1 at the start


def test_score_beats_nearest_mean_where_context_helps(make_plan: PlanMaker, tmp_path: Path) -> None:
    plan = make_plan(steps=40, batch_size=8)
    metrics = train(plan, _measure(plan), tmp_path).metrics
    baseline = metrics["nearest_mean"]
    held = sum(sum(chip.counts) for chip in plan.validation)
    assert metrics["n_pixels"] == baseline["n_pixels"] == held
    assert metrics["overall_accuracy"] > 0.8
    low, high = metrics["overall_accuracy_95"]
    assert low <= metrics["overall_accuracy"] <= high


def test_nearest_mean_score_equals_numpy(make_plan: PlanMaker, tmp_path: Path, land: Any) -> None:
    from eoray.chips.dataset import polygons_of
    from eoray.chips.labels import LabelBurner, to_classes
    from eoray.chips.recipe import prepare_input
    from eoray.grid import PixelWindow
    from tests.chips.landscape import TILE

    plan = make_plan(steps=1)
    statistics: LabelStatistics = _measure(plan)
    window = PixelWindow(TILE.row * 1024, TILE.col * 1024, 256, 256)
    polygons = polygons_of(plan.labels.polygons, plan.split, "validation")
    truth = to_classes(LabelBurner(polygons, 32, border_m=10).burn(window), plan.labels.class_of)
    x = prepare_input(land.reader.planes[32][2], statistics.normalisation())[:20]
    means = statistics.class_means()
    guess = ((x[None] - means[:, :, None, None]) ** 2).sum(axis=1).argmin(axis=0)
    expected = (guess == truth)[truth != 255].mean()
    score = train(plan, statistics, tmp_path).metrics["nearest_mean"]["overall_accuracy"]
    assert score == pytest.approx(expected, abs=1e-3)


def test_two_workers_agree_with_one(make_plan: PlanMaker, tmp_path: Path) -> None:
    """Two workers in threads, gradients averaged between them, as DDP does between processes."""
    from concurrent.futures import ThreadPoolExecutor, wait
    from threading import Barrier

    plan = make_plan(steps=8)
    alone = train(plan, _measure(plan), tmp_path / "one")
    barrier, shared = Barrier(2), [torch.zeros(1), torch.zeros(1)]

    def team(rank: int) -> Team:
        def add(tensor: torch.Tensor) -> torch.Tensor:
            shared[rank] = tensor.clone()
            barrier.wait()
            total = shared[0] + shared[1]
            barrier.wait()
            return total

        def wrap(model: torch.nn.Module) -> torch.nn.Module:
            with torch.no_grad():
                for parameter in model.parameters():  # the first worker's, as DDP sends them
                    parameter.copy_(add(parameter if rank == 0 else torch.zeros_like(parameter)))
            for parameter in model.parameters():
                parameter.register_hook(lambda gradient: add(gradient) / 2)
            return model

        return Team(rank, 2, wrap=wrap, add=add)

    def work(rank: int) -> Trained:
        try:
            return train(plan, _measure(plan), tmp_path / "two", team(rank))
        except BaseException:
            barrier.abort()  # or the other worker waits for good
            raise

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(work, rank) for rank in range(2)]
        wait(running)
    errors = [error for one in running if (error := one.exception())]
    if errors:
        raise BaseExceptionGroup("of the workers", errors)
    parts = [one.result() for one in running]
    states = [alone.model.state_dict(), *(part.model.state_dict() for part in parts)]
    for name, values in states[0].items():
        assert np.array_equal(states[1][name], states[2][name])
        assert np.allclose(values, states[1][name], atol=2e-4)
    assert parts[0].metrics == parts[1].metrics
