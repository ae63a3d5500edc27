"""The packages of the images are those of the lock, and enough for what each image does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from deploy.locks import IMAGES, TORCH, list_packages, list_torch, read_lock

REPOSITORY = Path(__file__).resolve().parents[2]
LOCK = (REPOSITORY / "requirements.lock").read_text()
PINS = read_lock(LOCK)
SMALL = """\
aiohttp==1 \\
    --hash=sha256:aa
    # via kubernetes
kubernetes==2 \\
    --hash=sha256:bb \\
    --hash=sha256:bc
    # via eoray (pyproject.toml)
ruff==3 \\
    --hash=sha256:cc
    # via eoray (pyproject.toml:dev)
torch==4 \\
    --hash=sha256:dd
    # via
    #   eoray (pyproject.toml)
    #   torchvision
torchvision==5 \\
    --hash=sha256:ee
    # via eoray (pyproject.toml)
triton==6 \\
    --hash=sha256:ff
    # via torch
"""


def _names(text: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9][a-z0-9.-]*)==", text, re.MULTILINE))


def test_lock_is_read_with_who_asks_for_what() -> None:
    pins = read_lock(SMALL)
    assert pins["torch"].asked_by == {"eoray (pyproject.toml)", "torchvision"}
    assert pins["kubernetes"].text.count("--hash=") == 2
    assert pins["triton"].version == "6"
    assert pins["triton"].asked_by == {"torch"}


def test_every_package_of_the_lock_is_read() -> None:
    assert _names(LOCK) == set(PINS)
    assert all(pin.asked_by and "--hash=" in pin.text for pin in PINS.values())


@pytest.mark.parametrize("image", IMAGES)
def test_list_holds_the_locks_own_lines(image: str) -> None:
    text = list_packages(PINS, image)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert set(lines) <= set(LOCK.splitlines())
    assert all(f"{name}=={PINS[name].version} \\" in lines for name in _names(text))


def test_gpu_is_all_that_eoray_asks_for_and_no_tool_of_development() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = {re.split(r"[\[<>=~! ]", line)[0] for line in project["dependencies"]}
    names = _names(list_packages(PINS, "gpu"))
    assert asked <= names
    assert names.isdisjoint({"ruff", "mypy", "pytest", "helm-python-sdk"})


@pytest.mark.parametrize("image", ["cpu", "gpu"])
def test_heads_can_take_jobs_and_hand_out_metrics(image: str) -> None:
    """What ``eoray[cluster]`` asks for: Ray's Jobs API is part of its dashboard."""
    names = _names(list_packages(PINS, image))
    assert {"ray", "aiohttp-cors", "prometheus-client", "opencensus"} <= names


def test_cpu_is_gpu_without_torch_and_cuda() -> None:
    left_out = _names(list_packages(PINS, "gpu")) - _names(list_packages(PINS, "cpu"))
    assert set(TORCH) <= left_out
    rest = left_out - set(TORCH)
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in rest)
    assert _names(list_torch(PINS)) == set(TORCH)


def test_submit_holds_no_torch_ray_or_rasterio() -> None:
    names = _names(list_packages(PINS, "submit"))
    assert {"kubernetes", "pydantic", "typer"} <= names
    assert names.isdisjoint({"torch", "ray", "rasterio", "xarray", "aiohttp"})


def test_submit_list_is_that_of_the_lock() -> None:
    written = (REPOSITORY / "deploy" / "requirements-submit.lock").read_text()
    assert written == list_packages(PINS, "submit"), "write it again: make locks"


@pytest.mark.parametrize(("image", "pins"), [("tpu", PINS), ("cpu", {"aiohttp": PINS["aiohttp"]})])
def test_list_that_cannot_be_made_is_refused(image: str, pins: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"no list for '{image}'"):
        list_packages(pins, image)  # type: ignore[arg-type]
