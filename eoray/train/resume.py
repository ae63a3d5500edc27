"""Checkpoints: all that a fit needs to go on as if it had never stopped."""

from __future__ import annotations

import io
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from eoray import storage
from eoray.errors import StoreError

KEPT = 2
"""Checkpoints that stay: the newest, and one before it in case the newest is being copied."""


def save_checkpoint(folder: str | Path, step: int, state: dict[str, Any]) -> str:
    """Write a checkpoint whole, then drop older ones.

    Args:
        folder: Checkpoints of one plan; a folder or a prefix of an object store.
        step: Steps done.
        state: State dicts and plain values; tensors stay where they are.

    Returns:
        The file.
    """
    import torch

    buffer = io.BytesIO()
    torch.save({"step": step, **state}, buffer)
    path = storage.join(str(folder), f"step-{step:07d}.pt")
    storage.write_bytes(path, buffer.getvalue())
    for old in list_checkpoints(folder)[:-KEPT]:
        storage.delete(old)
    return path


def list_checkpoints(folder: str | Path) -> list[str]:
    """Finished checkpoints, oldest first."""
    names = storage.list_names(str(folder))
    return [storage.join(str(folder), name) for name in names if fnmatch(name, "step-*.pt")]


def latest_step(folder: str | Path) -> int | None:
    """Steps done in the newest checkpoint; None where there is none."""
    found = list_checkpoints(folder)
    return int(found[-1].rsplit("step-", 1)[1].removesuffix(".pt")) if found else None


def load_checkpoint(folder: str | Path) -> dict[str, Any] | None:
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
        data = io.BytesIO(storage.read_bytes(found[-1]))
        state: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise StoreError(
            f"checkpoint {found[-1]!r} cannot be read ({type(error).__name__}); delete it, "
            "fit then goes on from the one before"
        ) from error
    return state
