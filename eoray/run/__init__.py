"""Runs: plan, execute and record the stages of a run file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eoray.run.session import Run, load_run

__all__ = ["Run", "load_run"]


def __getattr__(name: str) -> Any:
    """Import the session module when it is first asked for."""
    if name in __all__:
        from eoray.run import session

        return getattr(session, name)
    raise AttributeError(name)
