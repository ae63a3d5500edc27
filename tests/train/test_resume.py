from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eoray.errors import StoreError
from eoray.train.resume import latest_step, list_checkpoints, load_checkpoint, save_checkpoint


def test_state_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 7, {"model": {"w": torch.arange(3)}})
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == latest_step(tmp_path) == 7
    assert state["model"]["w"].tolist() == [0, 1, 2]


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    assert latest_step(tmp_path / "none") is None


def test_two_newest_stay(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        save_checkpoint(tmp_path, step, {})
    assert [Path(path).name for path in list_checkpoints(tmp_path)] == [
        "step-0000010.pt",
        "step-0000100.pt",
    ]


def test_unfinished_file_is_not_seen(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 5, {})
    (tmp_path / ".step-0000010.pt.xyz").write_bytes(b"half")
    assert latest_step(tmp_path) == 5


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    Path(save_checkpoint(tmp_path, 5, {})).write_bytes(b"not a checkpoint")
    with pytest.raises(StoreError, match=r"step-0000005\.pt' cannot be read.*delete it"):
        load_checkpoint(tmp_path)
