"""Compiled kernels that come with an image are taken, and nothing is written there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MODULE = """\
import numba

@numba.njit(cache=True)
def double(x):
    return 2 * x

@numba.njit(cache=True)
def half(x):
    return x / 2
"""
FILL = "import work; work.double(21)"
USE = """\
import json, work, other.work
calls = [(work.double, 21), (work.double, 2.5), (work.half, 21), (other.work.double, 21)]
taken = []
for kernel, argument in calls:
    before = len(kernel.stats.cache_hits)
    kernel(argument)
    taken.append(len(kernel.stats.cache_hits) > before)
print(json.dumps(taken))
"""


def _run(code: str, folder: Path, **environment: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    paths = os.pathsep.join([str(folder), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**plain, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.rglob("*.nb*")}


def test_pod_takes_the_images_kernels_and_compiles_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for name in ("work.py", "other/work.py"):
        (tmp_path / name).write_text(MODULE)
    _run(FILL, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "image"))
    filled = _files(tmp_path / "image")
    assert len(filled) == 2
    pod = {
        "NUMBA_CACHE_LOCATOR_CLASSES": "eoray.kernels.ImageCacheLocator",
        "NUMBA_CACHE_DIR": str(tmp_path / "pod"),
        "EORAY_KERNELS": str(tmp_path / "image"),
    }
    taken = json.loads(_run(USE, tmp_path, **pod))
    # other types, another function, another module: compiled here, kept here
    assert taken == [True, False, False, False]
    assert _files(tmp_path / "image") == filled
    assert {Path(name).suffix for name in _files(tmp_path / "pod")} == {".nbi", ".nbc"}
