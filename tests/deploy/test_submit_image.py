"""What the small image holds is enough for every verb that its pods and users need."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.locks import read_lock
from tests.k8s.conftest import RUN_FILE
from tests.k8s.fake_api import FakeApi, serve

REPOSITORY = Path(__file__).resolve().parents[2]
LISTED = read_lock((REPOSITORY / "deploy" / "requirements-submit.lock").read_text())

DOCKERFILE = (REPOSITORY / "deploy" / "Dockerfile").read_text()

ALLOWED_MB = 120
"""Of 250 for the image; python:3.12-slim-bookworm takes the other half."""

ONLY_LISTED = """\
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from eoray.cli import main
main(sys.argv[1:])
"""

Verb = Callable[..., str]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serve(FakeApi()) as fake:
        yield fake


@pytest.fixture
def environment(api: FakeApi, tmp_path: Path) -> dict[str, str]:
    """A kubeconfig of the fake server, and a run file beside it."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": api.url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "maps"}}],
        "current-context": "x",
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    kept = {"HOME", "PATH", "EORAY_SHARED_DATA"}
    plain = {name: value for name, value in os.environ.items() if name in kept}
    return {**plain, "KUBECONFIG": str(tmp_path / "config"), "NO_PROXY": "127.0.0.1"}


def _absent() -> set[str]:
    """Modules of this environment that the image has not."""
    there = {"eoray", *LISTED}
    for name, pin in LISTED.items():
        if (
            version(name) != pin.version
        ):  # not the lock's environment: another version asks for more
            there |= {re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in requires(name) or ()}
    return {
        module
        for module, owners in packages_distributions().items()
        if not {owner.lower().replace("_", "-") for owner in owners} & there
    }


def _verb(command: list[str], folder: Path, environment: dict[str, str]) -> Verb:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*command, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def _go_through_verbs(verb: Verb, api: FakeApi) -> None:
    """Submit, follow, schedule, render: what pods and users of the image do."""
    assert json.loads(verb("version", "--json"))["ray"] is None
    name = json.loads(verb("submit", "run.yaml", "--detach", "--json"))["name"]
    api.set_status(name, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    assert verb("wait", name) == f"{name}  succeeded"
    assert json.loads(verb("list", "--json"))["attempts"][0]["state"] == "succeeded"
    assert "created" in verb("schedule", "apply", "run.yaml", "--cron", "0 3 * * 1")
    assert verb("schedule", "list").startswith("slovenia")
    assert "kind: CronJob" in verb("render", "run.yaml", "--cron", "0 3 * * 1")


@pytest.mark.slow
def test_verbs_need_no_package_beyond_the_list(
    environment: dict[str, str], api: FakeApi, tmp_path: Path
) -> None:
    absent = _absent()
    assert {"torch", "ray", "rasterio", "xarray", "google"} <= absent
    command = [sys.executable, "-c", ONLY_LISTED.format(absent=absent)]
    environment["PYTHONPATH"] = str(REPOSITORY)
    told = subprocess.run(
        [*command, "version", "--json"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert json.loads(told)["version"]
    verb = _verb(command, tmp_path, environment)
    name = json.loads(verb("submit", "run.yaml", "--detach", "--json"))["name"]
    assert api.names("rayjobs") == [name]
    assert "created" in verb("schedule", "apply", "run.yaml", "--cron", "0 3 * * 1")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list installed into an empty environment, as the Dockerfile does it."""
    uv = Path(sys.executable).with_name("uv")
    folder = tmp_path_factory.mktemp("submit") / "env"
    to = ("--python", str(folder / "bin" / "python"), "--no-deps", "--offline", "--link-mode=copy")
    lock = REPOSITORY / "deploy" / "requirements-submit.lock"
    for arguments in (
        ("venv", "--python", sys.executable, str(folder)),
        ("pip", "install", *to, "--require-hashes", "-r", str(lock)),
        ("pip", "install", *to, str(REPOSITORY)),
    ):
        done = subprocess.run([uv, "-q", *arguments], capture_output=True, text=True, check=False)
        if "network was disabled" in done.stderr:
            pytest.skip(f"uv's cache lacks a package ({done.stderr[:200]}); fill it: make setup")
        assert done.returncode == 0, done.stderr
    (packages,) = folder.glob("lib/*/site-packages")
    unused = re.search(r"&& rm -r (kubernetes/aio .*) \\$", DOCKERFILE, re.MULTILINE)
    assert unused is not None
    for pattern in unused[1].split():
        found = list(packages.glob(pattern))
        assert found, pattern
        for path in found:
            shutil.rmtree(path)
    return folder


@pytest.mark.slow
def test_image_goes_through_every_verb(
    image: Path, environment: dict[str, str], api: FakeApi, tmp_path: Path
) -> None:
    _go_through_verbs(_verb([str(image / "bin" / "eoray")], tmp_path, environment), api)


@pytest.mark.slow
def test_image_has_no_torch_ray_or_rasterio_and_is_small(image: Path) -> None:
    found = {path.name for path in image.glob("lib/*/site-packages/*")}
    assert {"eoray", "kubernetes"} <= found
    assert found.isdisjoint({"torch", "ray", "rasterio"})
    warm = REPOSITORY / "deploy" / "warm_submit.py"
    environment: Any = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run([image / "bin" / "python", warm], env=environment, check=True)
    assert list(image.rglob("kubernetes/client/__pycache__/*.pyc"))
    size = sum(path.lstat().st_size for path in image.rglob("*") if path.is_file())
    assert size < ALLOWED_MB << 20
