"""Packages of each image, cut out of the lock: ``python deploy/locks.py requirements.lock IMAGE``.

The lock says for each package who asks for it, so a list is what can be reached from its roots.
Nothing is resolved again: an image holds the very files that the tests ran with.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

IMAGES = ("gpu", "cpu", "submit")

EORAY = "eoray (pyproject.toml)"
"""Who asks for what eoray itself needs; the tools of development have another name."""

SUBMIT = ("kubernetes", "numpy", "pydantic", "pyyaml", "structlog", "typer")
"""What submitting, following and schedules import: plain REST, no Ray, torch or rasterio."""

_ASYNC = frozenset({"aiohttp", "aiohttp-retry"})
"""Asked for by the other, asynchronous half of the client for Kubernetes, which is left out too."""

TORCH = ("torch", "torchvision")

_CUDA = re.compile(r"(nvidia|cuda|triton)\b.*")

_HEAD = "# Cut out of requirements.lock by deploy/locks.py; for Linux on x86-64.\n"


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of the lock."""

    name: str
    version: str
    text: str
    """Version and hashes, as a list wants them."""
    asked_by: frozenset[str]


def read_lock(text: str) -> dict[str, Pin]:
    """Packages of a lock by name, in its order."""
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)
    pins = (_read_pin(block) for block in blocks if block[:1].isalnum())
    return {pin.name: pin for pin in pins}


def list_packages(pins: dict[str, Pin], image: str) -> str:
    """The list of an image, with hashes.

    Args:
        pins: The lock.
        image: ``gpu``, ``cpu`` or ``submit``. That of ``cpu`` leaves torch out: on the package
            index it is there with CUDA only.

    Raises:
        ValueError: There is no such image, or a root is not in the lock.
    """
    roots = {"submit": set(SUBMIT)}.get(image, _asked_by(pins, EORAY))
    absent = sorted((roots | set(TORCH)) - set(pins))
    if image not in IMAGES or absent:
        raise ValueError(f"no list for {image!r}: images are {', '.join(IMAGES)}; absent: {absent}")
    names = _reached(pins, roots, without=_ASYNC if image == "submit" else frozenset())
    if image == "cpu":
        names = [n for n in names if n not in TORCH and not _CUDA.fullmatch(n)]
    return _HEAD + "".join(pins[name].text for name in names)


def list_torch(pins: dict[str, Pin]) -> str:
    """The versions of torch for the image ``cpu``."""
    return "".join(f"{name}=={pins[name].version}\n" for name in TORCH)


def _read_pin(block: str) -> Pin:
    lines = block.splitlines()
    name, _, version = lines[0].rstrip(" \\").partition("==")
    plain = [line for line in lines if not line.lstrip().startswith("#")]
    via = [line.strip(" #") for line in lines if line.lstrip().startswith("#")]
    asked_by = frozenset(who.removeprefix("via ") for who in via if who != "via")
    return Pin(name, version, "\n".join(plain) + "\n", asked_by)


def _reached(pins: dict[str, Pin], roots: set[str], without: frozenset[str]) -> list[str]:
    reached, rest = set(roots), set(pins) - without
    while more := {n for n in rest - reached if pins[n].asked_by & reached}:
        reached |= more
    return [name for name in pins if name in reached]


def _asked_by(pins: dict[str, Pin], who: str) -> set[str]:
    return {name for name, pin in pins.items() if who in pin.asked_by}


def main(lock: Path, image: str) -> None:
    """Print a list; ``torch`` is the name of what ``cpu`` leaves out."""
    pins = read_lock(lock.read_text())
    sys.stdout.write(list_torch(pins) if image == "torch" else list_packages(pins, image))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
