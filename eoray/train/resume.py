"""Checkpoints: all that a fit needs to go on as if it had never stopped."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from eoray.errors import StoreError
from eoray.storage import write_bytes

KEPT = 2
"""Checkpoints that stay: the newest, and one before it in case the newest is being copied."""


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint whole, then drop older ones.

    Args:
        folder: Checkpoints of one plan.
        step: Steps done.
        state: State dicts and plain values; tensors stay where they are.

    Returns:
        The file.
    """
    import torch

    buffer = io.BytesIO()
    torch.save({"step": step, **state}, buffer)
    path = folder / f"step-{step:07d}.pt"
    write_bytes(str(path), buffer.getvalue())
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def latest_step(folder: Path) -> int | None:
    """Steps done in the newest checkpoint; None where there is none."""
    found = list_checkpoints(folder)
    return int(found[-1].stem.removeprefix("step-")) if found else None


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read the newest checkpoint onto the CPU, or None.

    Raises:
        StoreError: The file cannot be read as a checkpoint.
    """
    import pickle

    import torch

    found = list_checkpoints(folder)
    if not found:
        return None
    try:
        state: dict[str, Any] = torch.load(found[-1], map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise StoreError(
            f"checkpoint {str(found[-1])!r} cannot be read ({type(error).__name__}); delete it, "
            "fit then goes on from the one before"
        ) from error
    return state
