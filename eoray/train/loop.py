"""The training loop: one function for one process and for Ray Train."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from eoray.chips.dataset import (
    Batch,
    ChipReader,
    Collate,
    LabelStatistics,
    draw_batch,
    polygons_of,
    prefetch,
)
from eoray.chips.index import Chip
from eoray.chips.labels import IGNORE, NO_PLACE, to_classes
from eoray.chips.recipe import prepare_input
from eoray.grid import PixelWindow
from eoray.models.registry import build_model
from eoray.train.metrics import bootstrap_accuracy, count_confusion, nearest_mean, score_confusion
from eoray.train.notice import Notice
from eoray.train.plan import EVALUATION_HALO_PX, FitPlan
from eoray.train.resume import load_checkpoint, save_checkpoint

type Progress = Callable[[int, int, float, float], None]
"""Called with steps done, steps in all, loss, chips per second."""


@dataclass(frozen=True, slots=True)
class Team:
    """The workers of a fit as one of them sees it. The default is a worker alone."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"
    wrap: Callable[[nn.Module], nn.Module] = field(default=lambda model: model)
    """Makes gradients common to all workers, by their mean."""
    add: Callable[[torch.Tensor], torch.Tensor] = field(default=lambda tensor: tensor)
    """Sum of a tensor over the workers."""
    report: Callable[[dict[str, Any]], None] = field(default=lambda _metrics: None)
    """Called by all workers, equally often."""
    notice: Notice = field(default_factory=Notice)
    """That this worker's machine is taken away."""
    check: Callable[[], None] = field(default=lambda: None)
    """Called at each step; what it raises ends the fit."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What the loop gives back on every worker."""

    model: nn.Module
    metrics: dict[str, Any]
    resumed_from: int
    """Steps that a checkpoint had done already; 0 from the start."""
    chips_per_second: float
    """Of this run's steps, over all workers."""


def train(
    plan: FitPlan,
    statistics: LabelStatistics,
    checkpoints: str | Path,
    team: Team | None = None,
    *,
    progress: Progress | None = None,
) -> Trained:
    """Train a model by a plan, from the newest checkpoint where there is one.

    The result depends on the plan and the number of workers alone: not on where it stopped and
    went on, on the machine's load, or on who calls.

    Args:
        plan: What to train on.
        statistics: Of the training labels.
        checkpoints: Folder or object-store prefix of this plan's checkpoints.
        team: This worker's place among the workers.
        progress: Called every ten steps by the first worker.

    Returns:
        The model in evaluation mode, and its scores on the validation labels.
    """
    team = team or Team()
    o = plan.options
    with _fixed_threads(o.torch_threads):
        model = build_model(plan.spec, seed=o.seed).to(team.device)
        model = model.to(memory_format=torch.channels_last)
        wrapped = team.wrap(model)
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=o.learning_rate, weight_decay=o.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, o.learning_rate, total_steps=o.steps, pct_start=0.2
        )
        start = _restore(checkpoints, model, optimiser, schedule)
        began = time.perf_counter()
        wrapped.train()
        with team.notice.heeded():
            for step, batch in enumerate(_batches(plan, statistics, start, team), start=start):
                team.check()
                x = torch.from_numpy(batch.x).to(team.device, memory_format=torch.channels_last)
                y = torch.from_numpy(batch.y.astype(np.int64)).to(team.device)
                # Dropout and the like follow from the step: a checkpoint need not keep generators
                torch.manual_seed((o.seed * o.steps + step) * team.world + team.rank)
                with _precision(o.precision, team.device):
                    loss, noticed = _loss(wrapped(x), y, team)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                done = step + 1
                if progress and team.rank == 0 and (done % 10 == 0 or done == o.steps):
                    rate = (done - start) * o.batch_size / (time.perf_counter() - began)
                    progress(done, o.steps, loss.item(), rate)
                leaving = bool(noticed)
                if leaving or (done % o.checkpoint_every == 0 and done < o.steps):
                    if team.rank == 0:
                        save_checkpoint(checkpoints, done, _state(model, optimiser, schedule))
                    team.report({"step": done})
                if leaving:
                    team.notice.answer()
        seconds = time.perf_counter() - began
        _share_buffers(model, team)
        model.eval()
        metrics = evaluate(plan, statistics, model, team)
    rate = (o.steps - start) * o.batch_size / max(seconds, 1e-9)
    return Trained(model, metrics, start, rate)


def _loss(logits: torch.Tensor, y: torch.Tensor, team: Team) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy per labelled pixel of the whole batch, whichever worker holds it.

    Returns:
        The loss, and how many workers have got a notice: all learn it from one sum, so all save
        behind the same step.
    """
    total = nn.functional.cross_entropy(logits.float(), y, ignore_index=IGNORE, reduction="sum")
    own = torch.tensor(team.notice.is_given(), device=y.device)
    labelled, noticed = team.add(torch.stack([(y != IGNORE).sum(), own.long()]))
    # Gradients are averaged over workers, so each one's share is scaled back to a sum.
    return total * team.world / labelled.clamp(min=1), noticed


def _batches(plan: FitPlan, statistics: LabelStatistics, start: int, team: Team) -> Iterator[Batch]:
    """This worker's batches from a step on."""
    o = plan.options
    reader = _reader(plan, "training")
    collate = Collate(reader, plan.training, plan.labels.class_of, statistics.normalisation())
    draws = (
        draw_batch(
            len(plan.training),
            step,
            batch_size=o.batch_size,
            seed=o.seed,
            size=o.chip_px,
            augment=o.augment,
            rank=team.rank,
            world=team.world,
        )
        for step in range(start, o.steps)
    )
    return prefetch(map(collate, draws))


def _reader(plan: FitPlan, side: str) -> ChipReader:
    return ChipReader(
        plan.source,
        plan.recipe,
        plan.seasons,
        polygons_of(plan.labels.polygons, plan.split, side),
        border_m=plan.options.border_m,
    )


@contextmanager
def _fixed_threads(n: int) -> Iterator[None]:
    """Fix the threads, on whose number sums depend, and leave torch's state as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


def _precision(wanted: str, device: str) -> torch.autocast:
    kind = device.split(":", maxsplit=1)[0]
    use = wanted == "bf16" or (wanted == "auto" and kind == "cuda")
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=use)


def _state(model: nn.Module, optimiser: Any, schedule: Any) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
    }


def _share_buffers(model: nn.Module, team: Team) -> None:
    """Give all workers the first one's running statistics, which its checkpoints hold too."""
    if team.world > 1:
        for buffer in model.buffers():
            if team.rank:
                buffer.zero_()
            team.add(buffer)


def _restore(folder: str | Path, model: nn.Module, optimiser: Any, schedule: Any) -> int:
    """Load the newest checkpoint. The step is the sampler's cursor too; see draw_batch."""
    state = load_checkpoint(folder)
    if state is None:
        return 0
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    schedule.load_state_dict(state["schedule"])
    return int(state["step"])


def evaluate(
    plan: FitPlan, statistics: LabelStatistics, model: nn.Module, team: Team
) -> dict[str, Any]:
    """Score a model, and the nearest-mean classifier beside it, on the validation labels.

    Windows are divided among the workers and counts are added, so the scores do not depend on
    how many there are.
    """
    names = plan.labels.legend.names
    n, normal, means = len(names), statistics.normalisation(), statistics.class_means()
    block_of = np.asarray(plan.split.block_of)
    counts = np.zeros((2, int(block_of.max()) + 1, n, n), np.int64)
    reader = _reader(plan, "validation")
    for zone, season, window in _together(plan.validation)[team.rank :: team.world]:
        team.check()
        places = reader.places(zone, window)
        truth = to_classes(places, plan.labels.class_of)
        halo = EVALUATION_HALO_PX
        values = prepare_input(reader.values(zone, season, window.buffered(halo)), normal)
        inner = (slice(halo, -halo), slice(halo, -halo))
        guesses = (
            _predict(model, values, team.device)[inner],
            nearest_mean(values[: plan.recipe.n_values, inner[0], inner[1]], means),
        )
        for block in np.unique(block_of[places[places != NO_PLACE]]):
            here = (places != NO_PLACE) & (block_of[places] == block)
            for k, guess in enumerate(guesses):
                counts[k, block] += count_confusion(truth[here], guess[here], n)
    total = team.add(torch.from_numpy(counts)).numpy()
    scores = score_confusion(total[0].sum(axis=0), names)
    scores["overall_accuracy_95"] = bootstrap_accuracy(total[0], seed=plan.options.seed)
    scores["n_blocks"] = int((total[0].sum(axis=(1, 2)) > 0).sum())
    return {
        "kind": "validation score on held-out labels; no estimate of map accuracy or area",
        **scores,
        "nearest_mean": score_confusion(total[1].sum(axis=0), names),
    }


def _together(chips: Sequence[Chip]) -> list[tuple[int, int, PixelWindow]]:
    """Join chips of one square of about 256 px, so that the halo around them is read once.

    Returns:
        (zone, season, box around the chips). All labelled pixels of a square are in its chips.
    """
    squares: dict[tuple[int, int, int, int], list[Chip]] = {}
    for chip in chips:
        edge = chip.size * max(1, 256 // chip.size)
        square = chip.zone, chip.season, chip.row_off // edge, chip.col_off // edge
        squares.setdefault(square, []).append(chip)
    return [(zone, season, _box(members)) for (zone, season, _, _), members in squares.items()]


def _box(chips: Sequence[Chip]) -> PixelWindow:
    top, left = min(c.row_off for c in chips), min(c.col_off for c in chips)
    bottom = max(c.row_off + c.size for c in chips)
    right = max(c.col_off + c.size for c in chips)
    return PixelWindow(top, left, bottom - top, right - left)


def _predict(model: nn.Module, values: np.ndarray, device: str) -> np.ndarray:
    """Most likely class id - 1, dims (y, x)."""
    with torch.inference_mode():
        x = torch.from_numpy(values[None]).to(device, memory_format=torch.channels_last)
        return np.asarray(model(x)[0].argmax(dim=0).cpu().numpy())
