"""Compiled kernels that come with an image.

numba keeps what it compiled in a folder, but takes one only where it may write. An image filled at
build, below a read-only root, would be passed over and every pod compile for itself (18 s). So
kernels are copied from the image's folder into the writable one, function by function, when they
are first asked for.

Images set it up by environment::

    NUMBA_CACHE_LOCATOR_CLASSES=eoray.kernels.ImageCacheLocator
    NUMBA_CACHE_DIR=/tmp/eoray-kernels    writable, empty in a new pod
    EORAY_KERNELS=/opt/eoray-kernels      filled at build
    NUMBA_CPU_NAME, NUMBA_CPU_FEATURES    of the build: kernels of another CPU are not taken
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from numba.core.caching import UserProvidedCacheLocator


class ImageCacheLocator(UserProvidedCacheLocator):
    """The folder ``NUMBA_CACHE_DIR`` with what ``EORAY_KERNELS`` holds of a module in it."""

    def ensure_cache_path(self) -> None:
        """Make the folder of a module, once with the image's kernels."""
        target = Path(self.get_cache_path())  # type: ignore[no-untyped-call]
        is_new = not target.is_dir()
        super().ensure_cache_path()  # type: ignore[no-untyped-call]
        image = os.environ.get("EORAY_KERNELS")
        if is_new and image:
            _copy_folder(Path(image) / target.name, target)


def _copy_folder(source: Path, target: Path) -> None:
    """Copy files; another process may do the same, so each appears whole."""
    if not source.is_dir():
        return
    # what an index names must be there before the index
    for file in sorted(source.iterdir(), key=lambda path: path.suffix == ".nbi"):
        part = target / f"{file.name}.{os.getpid()}"
        with suppress(FileNotFoundError):
            shutil.copyfile(file, part)
            part.replace(target / file.name)
