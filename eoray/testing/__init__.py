"""Synthetic data for the demo, tests and benchmarks.

``archive`` draws a landscape through the eyes of Sentinel-2; ``positions`` writes pixels that
tell their own place; ``http`` serves a folder on loopback and fails by count.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eoray.testing.archive import write_archive
    from eoray.testing.http import ArchiveServer, archive_server
    from eoray.testing.options import CHANGE_KINDS, CLASSES, ArchiveOptions, demo_options
    from eoray.testing.positions import (
        PositionOptions,
        expected_dn,
        list_position_granules,
        write_position_archive,
    )

__all__ = [
    "CHANGE_KINDS",
    "CLASSES",
    "ArchiveOptions",
    "ArchiveServer",
    "PositionOptions",
    "archive_server",
    "demo_options",
    "expected_dn",
    "list_position_granules",
    "write_archive",
    "write_position_archive",
]

_HOME = {
    "CHANGE_KINDS": "options",
    "CLASSES": "options",
    "ArchiveOptions": "options",
    "ArchiveServer": "http",
    "PositionOptions": "positions",
    "archive_server": "http",
    "demo_options": "options",
    "expected_dn": "positions",
    "list_position_granules": "positions",
    "write_archive": "archive",
    "write_position_archive": "positions",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the file server needs no numpy."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
