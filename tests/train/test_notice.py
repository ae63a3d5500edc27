"""A fit whose machine is taken away saves where it is, and loses no step."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from eoray.chips.split import SplitOptions
from eoray.k8s.hooks import save_fit
from eoray.models.package import load_package
from eoray.models.registry import hash_weights
from eoray.train.loop import Team, Trained, train
from eoray.train.notice import Notice, notice_of
from eoray.train.plan import FitOptions, plan_fit
from eoray.train.resume import list_checkpoints
from eoray.train.trainer import _measure, fit
from tests.chips.fake_reader import PRODUCT
from tests.chips.landscape import Landscape
from tests.train.conftest import PlanMaker
from tests.train.tiny_cube import write_cube


def give(folder: Path, seconds: float = 0) -> None:
    """What the hook leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notice").write_text(str(seconds))


def steps_of(folder: Path) -> list[int]:
    return [int(Path(path).stem[-7:]) for path in list_checkpoints(folder)]


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


class Killed(Exception):  # noqa: N818  no error: the end of a process
    pass


def noticed_in(step: int, folder: Path, *, killed: bool = False) -> Team:
    """A worker that gets its notice during a step, and may be killed once it has saved."""
    calls = 0

    def add(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == step:
            give(folder)
        return tensor

    def report(_: dict[str, Any]) -> None:
        if killed:
            raise Killed

    return Team(add=add, report=report, notice=Notice(folder))


def test_notice_saves_behind_the_next_step_and_resume_equals_never_having_stopped(
    make_plan: PlanMaker, tmp_path: Path
) -> None:
    plan = make_plan(checkpoint_every=100)
    whole = train(plan, _measure(plan), tmp_path / "whole")
    parts = tmp_path / "parts"
    with pytest.raises(Killed):
        train(plan, _measure(plan), parts, noticed_in(7, tmp_path / "pod", killed=True))
    assert steps_of(parts) == [8]
    resumed = train(plan, _measure(plan), parts)
    assert resumed.resumed_from == 8
    assert hash_weights(resumed.model.state_dict()) == hash_weights(whole.model.state_dict())


def test_notice_that_takes_nothing_away_changes_nothing(
    make_plan: PlanMaker, tmp_path: Path
) -> None:
    plan = make_plan(checkpoint_every=100)
    whole = train(plan, _measure(plan), tmp_path / "whole")
    team = noticed_in(3, tmp_path / "pod")
    trained = train(plan, _measure(plan), tmp_path / "parts", team)
    assert steps_of(tmp_path / "parts") == [4]  # once, though the notice stays
    assert hash_weights(trained.model.state_dict()) == hash_weights(whole.model.state_dict())
    assert [list((tmp_path / "pod" / name).iterdir()) for name in ("fit", "saved")] == [[], []]


def test_notice_in_the_last_step_is_saved_too(make_plan: PlanMaker, tmp_path: Path) -> None:
    plan = make_plan(steps=6)
    whole = train(plan, _measure(plan), tmp_path / "whole")
    with pytest.raises(Killed):
        train(
            plan, _measure(plan), tmp_path / "parts", noticed_in(5, tmp_path / "pod", killed=True)
        )
    resumed = train(plan, _measure(plan), tmp_path / "parts")
    assert hash_weights(resumed.model.state_dict()) == hash_weights(whole.model.state_dict())


def test_all_workers_save_behind_the_same_step_when_one_gets_a_notice(
    make_plan: PlanMaker, tmp_path: Path
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    plan = make_plan(steps=8, checkpoint_every=100)
    barrier, shared = threading.Barrier(2), [torch.zeros(1), torch.zeros(1)]
    saved: list[tuple[int, int]] = []

    def team(rank: int) -> Team:
        def add(tensor: torch.Tensor) -> torch.Tensor:
            shared[rank] = tensor.clone()
            barrier.wait(60)
            total = shared[0] + shared[1]
            barrier.wait(60)
            return total

        def report(metrics: dict[str, Any]) -> None:
            saved.append((rank, metrics["step"]))

        if rank == 0:
            return Team(rank, 2, add=add, report=report)
        give(tmp_path / "pod")
        return Team(rank, 2, add=add, report=report, notice=Notice(tmp_path / "pod"))

    def work(rank: int) -> Trained:
        return train(plan, _measure(plan), tmp_path / "two", team(rank))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert sorted(saved) == [(0, 1), (1, 1)]
    assert steps_of(tmp_path / "two") == [1]


def test_process_without_a_pod_gets_no_notice() -> None:
    notice = notice_of({})
    with notice.heeded():
        assert not notice.is_given()
        notice.answer()


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """Start the worker's preStop hook as the kubelet does."""
    started: list[subprocess.Popen[bytes]] = []

    def start(grace_s: int) -> subprocess.Popen[bytes]:
        lifecycle = save_fit(grace_s)
        assert lifecycle is not None
        env = {**os.environ, "EORAY_POD_FOLDER": str(tmp_path)}
        started.append(subprocess.Popen(lifecycle["preStop"]["exec"]["command"], env=env))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


Hook = Callable[[int], subprocess.Popen[bytes]]


def test_hook_without_a_fit_ends_at_once(hook: Hook, tmp_path: Path) -> None:
    assert hook(60).wait(30) == 0
    assert (tmp_path / "notice").read_text() == "60\n"


def test_hook_does_not_wait_for_a_fit_that_was_killed(hook: Hook, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit" / str(gone.pid)).touch()
    assert hook(60).wait(30) == 0


def test_hook_waits_until_the_fit_has_saved(hook: Hook, tmp_path: Path) -> None:
    notice = Notice(tmp_path)
    with notice.heeded():
        waiting = hook(600)
        wait_for(notice.is_given)
        assert waiting.poll() is None
        answering = threading.Thread(target=notice.answer)
        answering.start()
        assert waiting.wait(30) == 0
        assert answering.is_alive()  # until the pod is gone, or the notice
        (tmp_path / "notice").unlink()
        answering.join(30)
        assert not answering.is_alive()


def test_hook_gives_a_fit_that_does_not_save_no_more_than_its_time(
    hook: Hook, tmp_path: Path
) -> None:
    with Notice(tmp_path).heeded():
        assert hook(11).wait(30) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:ray",
    "ignore::FutureWarning:ray",
    "ignore::UserWarning:ray",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
def test_workers_of_ray_train_that_are_killed_behind_their_notice_lose_no_step(
    land: Landscape, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eoray.execute import local_ray

    options = FitOptions(
        labels=str(labels),
        product=PRODUCT,
        time=("2021-01-01", "2021-12-31"),
        model="mlp",
        steps=12,
        batch_size=4,
        checkpoint_every=100,
        torch_threads=1,
        split=SplitOptions(block_m=320),
    )
    plan = plan_fit(options, write_cube(tmp_path / "store", land))
    pod, seen = tmp_path / "pod", []
    give(pod, 600)
    monkeypatch.setenv("EORAY_POD_FOLDER", str(pod))

    def take_away() -> None:
        """Kill a worker once both have saved; what comes after it finds no notice."""
        wait_for(lambda: len(list(pod.glob("saved/*"))) == 2)
        (checkpoint,) = (tmp_path / "killed").glob("checkpoint/*/step-*.pt")
        seen.append(checkpoint.name)
        psutil.Process(int(next(iter(pod.glob("saved/*"))).name)).kill()
        (pod / "notice").unlink()

    taker = threading.Thread(target=take_away)
    with local_ray(2):
        taker.start()
        killed = fit(plan, out=tmp_path / "killed", executor="ray", workers=2)
        taker.join()
        whole = fit(plan, out=tmp_path / "whole", executor="ray", workers=2)
    assert seen == ["step-0000001.pt"]
    assert load_package(killed.path).sha256 == load_package(whole.path).sha256
