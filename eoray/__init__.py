"""Sentinel-2 from a STAC catalogue to datacubes, models, maps and change, on Ray.

The names below are the public interface. They are imported when first used, so that
``import eoray`` costs nothing that is not needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eoray.config import load_config
    from eoray.cube.check import check_cube
    from eoray.cube.holes import failed_reads
    from eoray.cube.open import open_cube
    from eoray.errors import EorayError
    from eoray.k8s.connect import connect
    from eoray.k8s.job import submit
    from eoray.k8s.schedule import schedule
    from eoray.publish.export import export_window
    from eoray.run import Run, load_run
    from eoray.run.scenes import open_scenes

    __version__: str

_HOMES = {
    "EorayError": "eoray.errors",
    "Run": "eoray.run",
    "check_cube": "eoray.cube.check",
    "connect": "eoray.k8s.connect",
    "export_window": "eoray.publish.export",
    "failed_reads": "eoray.cube.holes",
    "load_config": "eoray.config",
    "load_run": "eoray.run",
    "open_cube": "eoray.cube.open",
    "open_scenes": "eoray.run.scenes",
    "schedule": "eoray.k8s.schedule",
    "submit": "eoray.k8s.job",
}

__all__ = [
    "EorayError",
    "Run",
    "__version__",
    "check_cube",
    "connect",
    "export_window",
    "failed_reads",
    "load_config",
    "load_run",
    "open_cube",
    "open_scenes",
    "schedule",
    "submit",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("eoray")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'eoray' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return __all__
