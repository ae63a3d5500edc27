"""The Dockerfile, read: pinned, non-root, and built from what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "deploy" / "Dockerfile").read_text()
TARGETS = ("submit", "cpu", "gpu")


@dataclass
class Stage:
    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    """(instruction, arguments), in order."""


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    plain = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in plain.replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, arguments = line.strip().partition(" ")
            yield name, " ".join(arguments.split())


def _stages(text: str) -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    for name, arguments in _instructions(text):
        if name == "FROM":
            base, _, label = arguments.partition(" AS ")
            stages[label] = Stage(base)
        elif stages:
            stages[label].lines.append((name, arguments))
    return stages


STAGES = _stages(TEXT)


def _chain(target: str) -> Iterator[tuple[str, str]]:
    """Instructions of a target and all stages that it builds on, in order."""
    stage = STAGES[target]
    if stage.base in STAGES:
        yield from _chain(stage.base)
    yield from stage.lines


def _environment(target: str) -> dict[str, str]:
    pairs = (pair for name, args in _chain(target) if name == "ENV" for pair in args.split())
    return dict(pair.split("=", 1) for pair in pairs)


def test_base_comes_by_digest_and_has_no_default() -> None:
    assert {s.base for s in STAGES.values()} <= {"${BASE}", *STAGES}
    first = next(_instructions(TEXT))
    assert first == ("ARG", "BASE")
    assert not re.search(r"sha256:[0-9a-f]{8}", TEXT)  # a digest here would age unseen


@pytest.mark.parametrize("target", TARGETS)
def test_image_runs_as_a_user_without_rights(target: str) -> None:
    users = [arguments for name, arguments in _chain(target) if name == "USER"]
    assert users[-1] == "1000:1000"


@pytest.mark.parametrize("target", TARGETS)
def test_image_finds_eoray_and_writes_no_bytecode(target: str) -> None:
    environment = _environment(target)
    assert environment["PATH"].startswith("/opt/eoray/bin:")
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    copied = [arguments for name, arguments in STAGES[target].lines if name == "COPY"]
    assert f"--from={target}-packages /opt/eoray /opt/eoray" in copied


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_kernels_are_compiled_at_build_for_the_cpu_that_is_asked_for(target: str) -> None:
    build, image = _environment(f"{target}-packages"), _environment(target)
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        assert build[name] == image[name]
    arguments = {"KERNEL_CPU=x86-64-v3", "KERNEL_FEATURES=+avx2,+fma"}
    for stage in (target, f"{target}-packages"):
        assert {a for name, a in _chain(stage) if name == "ARG"} == arguments
    assert image["EORAY_KERNELS"] == "/opt/eoray-kernels"
    assert image["NUMBA_CACHE_DIR"].startswith("/tmp/")
    module, _, locator = image["NUMBA_CACHE_LOCATOR_CLASSES"].rpartition(".")
    assert f"class {locator}(" in (REPOSITORY / f"{module.replace('.', '/')}.py").read_text()
    filled = [a for name, a in STAGES[f"{target}-packages"].lines if "eoray demo" in a]
    assert filled[0].startswith("NUMBA_CACHE_DIR=/opt/eoray-kernels ")


def test_packages_are_installed_as_they_are_pinned() -> None:
    runs = " && ".join(a for stage in STAGES.values() for name, a in stage.lines if name == "RUN")
    installs = [part for part in runs.split(" && ") if "pip install" in part]
    assert len(installs) == 8
    for install in installs:
        assert "--no-deps" in install
        known = ("--require-hashes", "dist/*.whl", "--torch-backend cpu")
        assert any(word in install for word in known), install


def test_nothing_is_fetched_but_packages() -> None:
    assert not [name for name, _ in _instructions(TEXT) if name == "ADD"]
    assert not re.search(r"\b(curl|wget|git clone)\b", TEXT)


def test_what_is_copied_is_there_and_reaches_the_build() -> None:
    ignored = (REPOSITORY / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    sources = [
        source
        for stage in STAGES.values()
        for name, arguments in stage.lines
        if name == "COPY" and not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    ]
    assert len(sources) == 9
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in kept), source


def test_tools_of_the_build_are_pinned_by_hash() -> None:
    text = (REPOSITORY / "deploy" / "requirements-build.lock").read_text()
    wanted = (REPOSITORY / "deploy" / "requirements-build.in").read_text().splitlines()
    pinned = re.findall(r"^([a-z-]+)==\S+ \\\n    --hash=sha256:", text, re.MULTILINE)
    assert {re.split("[>=]", line)[0] for line in wanted} <= set(pinned)
    assert len(pinned) == text.count("==")
