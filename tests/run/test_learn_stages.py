"""The stage that learns, in a run whose store another driver takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eoray.errors import ConflictError
from eoray.run import load_run
from eoray.run.lease import Holder, Watch

FIT = """\
  time: 2021-01-01/2021-12-31
  model: mlp
  batch_size: 2
  threads: 1
  steps: 200
cube: {composite: {period: P3M}}
"""


def test_store_that_is_taken_over_during_a_fit_ends_the_training(
    write_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(write_run(task="land-cover", more=FIT), ["time=2021-01-01/2021-12-31"])
    watch = Watch()
    monkeypatch.setattr("eoray.run.session.Watch", lambda: watch)
    seen: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "fit":
            seen.append(done)
            if done == 20:
                watch.taker = Holder("taker", "elsewhere", 7, epoch=2)

    with pytest.raises(ConflictError, match=r"run 'taker' .* has taken the store over"):
        run.execute(["cube", "fit"], executor="inline", progress=progress)
    assert seen == [10, 20]
    assert not list(tmp_path.rglob("*.safetensors"))
