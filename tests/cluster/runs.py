"""Runs on the test cluster as a user and the operator see them; what they leave."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eoray import storage
from eoray.cube.check import check_cube
from tests.cluster.machine import wait_until
from tests.cluster.site import BUCKET, NAME, Site

CUBE = {"task": "cube", "cube": {"composite": {"method": "none"}}}
"""The shortest run that commits: twenty dates of one tile."""

START_S = 420
"""Three pods with Ray start in 40 s on two free cores; a shared machine needs far longer."""

VERB_EACH_S = 2.0
"""Each look by a verb takes a core for a second, which pods that start would use."""


def products(store: str) -> dict[str, Any]:
    """Everything of a run that must be equal wherever it was made."""
    found = check_cube(store)
    assert found.ok, found.problems
    weights = storage.read_bytes(storage.join(store, NAME, "model", "model.safetensors"))
    return {**found.products, "weights": hashlib.sha256(weights).hexdigest()}


class Follower:
    """A verb that goes on while a test does something else."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def end(self, timeout_s: float = 900) -> tuple[int, str]:
        """Its exit code and what it said."""
        said, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, said


@contextmanager
def following(site: Site, *words: str | Path, kubeconfig: Path | None = None) -> Iterator[Follower]:
    """Run a verb of `eoray` that lasts; it is killed if it has not ended by then."""
    other = {} if kubeconfig is None else {"KUBECONFIG": str(kubeconfig)}
    follower = Follower(
        subprocess.Popen(
            site.command(*words),
            env={**site.environment, **other},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    )
    try:
        yield follower
    finally:
        follower.process.kill()
        follower.process.communicate()


def submit(site: Site, path: Path) -> str:
    """Submit and leave; the attempt's name."""
    return str(site.ask("submit", path, "--detach")["name"])


def state(site: Site, name: str) -> dict[str, Any]:
    return site.ask("status", name)


def wait_for(site: Site, name: str, *words: str, timeout_s: float = START_S) -> None:
    """Wait until an attempt is in one of some states."""
    what = f"{name} to be {' or '.join(words)}"
    wait_until(lambda: state(site, name)["state"] in words, timeout_s, what, each_s=VERB_EACH_S)


def delete_pod(site: Site, name: str, kind: str) -> str:
    """Take a pod of an attempt away as a node that is lost does; its name."""
    pod_name = pods_of(site, name, kind)[0]
    options = ("--namespace", site.namespace, "--grace-period=0", "--force")
    site.cluster.kubectl("delete", "pod", pod_name, *options)
    return pod_name


def pods_of(site: Site, name: str, kind: str) -> list[str]:
    """Pods of an attempt that are there and not about to go: its ``head``, its ``worker``s."""
    pods = site.pods(**labels_of(name), **{"ray.io/node-type": kind})
    return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def labels_of(name: str) -> dict[str, str]:
    key, number = name.rsplit("-", 1)
    return {"eoray.dev/run": key, "eoray.dev/attempt": number}


def commits(store: str) -> int:
    """Commits of a store so far."""
    from eoray.cube.store import BRANCH, open_repository
    from eoray.errors import StoreError

    try:
        repository = open_repository(storage.join(store, storage.REPOSITORY))
    except StoreError:
        return 0
    return sum(1 for _ in repository.ancestry(branch=BRANCH))


def attempt_path(store: str, attempt: str) -> str:
    """Where the driver of an attempt counts its starts; "" before the first."""
    folder = f"{BUCKET}/{store}/_eoray/runs"
    found = [
        path
        for path in names_below(folder)
        if path.endswith((f"/{attempt}.json", f"/{attempt}/record.json"))
    ]
    return storage.join(folder, found[0]) if found else ""


def n_starts(store: str, attempt: str) -> int:
    """Starts of an attempt's driver, as it counted them beside the outputs."""
    path = attempt_path(store, attempt)
    return len(storage.read_json(path)["starts"]) if path else 0


def rayjob(site: Site, name: str) -> dict[str, Any]:
    options = ("--namespace", site.namespace, "--output=json")
    found: dict[str, Any] = json.loads(site.cluster.kubectl("get", "rayjob", name, *options))
    return found


def checkpoints(store: str) -> list[str]:
    """Checkpoints of a fit in a store."""
    found = names_below(f"{BUCKET}/{store}/{NAME}/model/checkpoint")
    return [name for name in found if name.endswith(".pt")]


def names_below(folder: str) -> list[str]:
    """Paths of all objects below a prefix."""
    found = storage.object_store(folder).list()
    return [str(entry["path"]) for page in found for entry in page]


def living(site: Site, name: str) -> list[dict[str, Any]]:
    """Pods of an attempt that have not ended."""
    pods = site.pods(**labels_of(name))
    return [pod for pod in pods if pod["status"]["phase"] not in ("Succeeded", "Failed")]


def left_of(site: Site, name: str) -> list[str]:
    """What the cluster still holds of a run, the record aside."""
    kinds = "rayjobs,rayclusters,pods,services,secrets,configmaps"
    selector = f"eoray.dev/run={name.rsplit('-', 1)[0]}"
    options = ("--namespace", site.namespace, "--selector", selector, "--output=name")

    def listed() -> list[str]:
        return site.cluster.kubectl("get", kinds, *options).split()

    wait_until(lambda: not listed(), 60, "the garbage collector")
    return listed()
