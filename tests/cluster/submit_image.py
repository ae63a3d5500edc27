"""An image that submits, as ``deploy/Dockerfile`` makes it: without torch, ray and rasterio.

The packages are this environment's own, those that ``deploy/requirements-submit.lock`` names; their
versions may be others. Of it come the pods of schedules and of the chart's hooks.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

from tests.cluster.images import (
    HOME,
    copy_shared_libraries,
    image_config,
    images_folder,
    python_image,
    write_image,
)

SUBMIT_IMAGE = "eoray.test/submit:1"
REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = Path("/opt/eoray")
_SCRIPT = "from eoray.cli import main\nmain()\n"


def submit_image() -> Path:
    """Packages and this checkout's eoray over :func:`python_image`, made anew each time."""
    out = images_folder() / "submit.tar"
    with tempfile.TemporaryDirectory(prefix=".rootfs-", dir=out.parent) as work:
        rootfs = Path(work)
        target = rootfs / PACKAGES.relative_to("/")
        _copy_packages(target)
        copy_shared_libraries(target.rglob("*.so"), rootfs)
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "eoray", target / "eoray", ignore=skip)
        _write_script(rootfs / "usr/bin/eoray")
        rootfs.chmod(0o755)
        config = image_config(Env=["PATH=/usr/bin:/bin", f"PYTHONPATH={PACKAGES}", f"HOME={HOME}"])
        return write_image(rootfs, SUBMIT_IMAGE, out, config, base=python_image(), keep_times=True)


def _copy_packages(target: Path) -> None:
    source = Path(sysconfig.get_path("purelib"))
    skip = shutil.ignore_patterns("tests")
    for name in sorted({part for package in locked_packages() for part in _parts(package)}):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=skip)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)


def locked_packages() -> list[str]:
    """Names of the packages in the lock of the image."""
    lock = (REPOSITORY / "deploy/requirements-submit.lock").read_text()
    return re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)


def _parts(package: str) -> Iterator[str]:
    """Files and folders of a package directly in site-packages."""
    files = distribution(package).files or ()
    return (f.parts[0] for f in files if f.parts[0] not in ("..", "__pycache__"))


def _write_script(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{os.path.realpath(sys.executable)}\n{_SCRIPT}")
    path.chmod(0o755)
