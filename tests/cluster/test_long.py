"""Runs from submission to outputs on pods that run Ray, and what happens when they are lost.

Slow by nature: Ray, torch and three pods share this machine. Each test leaves the namespace without
unfinished runs; their stores differ, so that none finds another's outputs.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eoray import storage
from eoray.cube.check import check_cube
from tests.cluster.cluster import Cluster
from tests.cluster.environment import eoray_images
from tests.cluster.errors import UnavailableError
from tests.cluster.machine import wait_until
from tests.cluster.operator.install import start_operator
from tests.cluster.site import BUCKET, NAME, Site, open_site

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]

CUBE = {"task": "cube", "cube": {"composite": {"method": "none"}}}
"""The shortest run that commits: twenty dates of one tile."""

START_S = 420
"""Three pods with Ray start in 40 s on two free cores; a shared machine needs far longer."""


@pytest.fixture(scope="module")
def site(
    kubernetes_cluster: Cluster, kuberay_crds: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    try:
        images = eoray_images()
    except UnavailableError as error:
        pytest.skip(str(error))
    for image in images:
        kubernetes_cluster.import_image(image)
    start_operator(kubernetes_cluster)
    with open_site(kubernetes_cluster, tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(autouse=True)
def _object_store(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process reads the store too."""
    for name, value in site.storage.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def undisturbed(site: Site) -> dict[str, Any]:
    """What a run leaves when this machine carries it out alone, without Kubernetes."""
    path = site.run_file("undisturbed", store=str(site.folder / "undisturbed"))
    done = site.eoray("run", path, "--executor", "ray", "--json")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert set(report["stages"]) >= {"cube", "fit", "predict", "change", "publish"}
    return products(str(site.folder / "undisturbed"))


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
def following(site: Site, *words: str | Path) -> Iterator[Follower]:
    """Run a verb of `eoray` that lasts; it is killed if it has not ended by then."""
    follower = Follower(
        subprocess.Popen(
            site.command(*words),
            env=site.environment,
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
    wait_until(
        lambda: state(site, name)["state"] in words, timeout_s, f"{name} to be {' or '.join(words)}"
    )


def delete_pod(site: Site, name: str, kind: str) -> str:
    """Take a pod of an attempt away as a node that is lost does; its name."""
    pods = site.pods(**labels_of(name), **{"ray.io/node-type": kind})
    pod_name: str = pods[0]["metadata"]["name"]
    options = ("--namespace", site.namespace, "--grace-period=0", "--force")
    site.cluster.kubectl("delete", "pod", pod_name, *options)
    return pod_name


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


def tell_figures(what: str, site: Site, name: str, begun: float, finished: float) -> None:
    """Print where the seconds of an attempt went; `-s` shows it."""
    from datetime import datetime

    status = site.ask("status", name)
    info = rayjob(site, name)["status"]
    moments = {
        "created": rayjob(site, name)["metadata"]["creationTimestamp"],
        "running": info["rayJobInfo"]["startTime"],
        "ended": info["rayJobInfo"]["endTime"],
    }
    seconds = {key: datetime.fromisoformat(text).timestamp() for key, text in moments.items()}
    (start,) = storage.read_json(attempt_path(what, name))["starts"]
    figures = {
        "submit to created": seconds["created"] - begun,
        "created to RUNNING (pods and Ray)": seconds["running"] - seconds["created"],
        "RUNNING to the driver's first line": start["time"] - seconds["running"],
        "the stages": seconds["ended"] - start["time"],
        "end to exit code": finished - seconds["ended"],
        "all": finished - begun,
    }
    lines = [f"{key:36} {value:6.1f} s" for key, value in figures.items()]
    sys.stdout.write(f"\n{status['name']}\n" + "\n".join(lines) + "\n")


def rayjob(site: Site, name: str) -> dict[str, Any]:
    options = ("--namespace", site.namespace, "--output=json")
    found: dict[str, Any] = json.loads(site.cluster.kubectl("get", "rayjob", name, *options))
    return found


def test_a_run_on_pods_leaves_what_it_leaves_at_home(
    site: Site, undisturbed: dict[str, Any]
) -> None:
    verdicts = {each["what"]: each["verdict"] for each in site.ask("doctor")["findings"]}
    assert set(verdicts.values()) == {"ok"}, verdicts
    path, begun = site.run_file("calm"), time.time()
    done = site.eoray("submit", path, "--json")
    finished = time.time()
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["what"], answer["state"]) == ("created", "succeeded")
    assert "at most" in done.stderr  # the bound, before anything is created
    assert '"stage": "publish"' in done.stderr  # the driver's own lines, followed
    assert products(f"{BUCKET}/calm") == undisturbed
    assert site.ask("submit", path)["what"] == "done"
    assert site.eoray("wait", answer["name"]).returncode == 0
    tell_figures("calm", site, answer["name"], begun, finished)


def test_a_lost_worker_and_a_new_api_server_change_nothing(
    site: Site, undisturbed: dict[str, Any], kubernetes_cluster: Cluster
) -> None:
    path = site.run_file("disturbed")
    with following(site, "submit", path, "--detach", "--json") as one:
        two = site.ask("submit", path, "--detach")
        code, said = one.end()
    first = json.loads(said.splitlines()[-1])
    assert code == 0
    assert {first["what"], two["what"]} == {"created", "attached"}
    assert first["name"] == two["name"]
    name = two["name"]
    wait_for(site, name, "running")
    with following(site, "logs", name, "--follow") as logs, following(site, "wait", name) as wait:
        wait_until(lambda: is_fitting(f"{BUCKET}/disturbed"), 600, "the first checkpoint")
        lost = delete_pod(site, name, "worker")
        kubernetes_cluster.restart("kube-apiserver")
        assert wait.end()[0] == 0
        code, said = logs.end()
    assert code == 0
    assert said.count('"stage": "report"') == 1  # each line once, also those after the restart
    assert lost not in {pod["metadata"]["name"] for pod in site.pods()}
    assert state(site, name)["state"] == "succeeded"
    assert products(f"{BUCKET}/disturbed") == undisturbed


def is_fitting(store: str) -> bool:
    """Whether a fit has written a checkpoint."""
    return any(name.endswith(".pt") for name in names_below(f"{store}/{NAME}/model/checkpoint"))


def names_below(folder: str) -> list[str]:
    """Paths of all objects below a prefix."""
    found = storage.object_store(folder).list()
    return [str(entry["path"]) for page in found for entry in page]


def test_a_lost_head_a_cancel_and_a_second_attempt_end_in_the_same_cube(
    site: Site, undisturbed: dict[str, Any]
) -> None:
    waves = {"wave_shards": 2, "wave_seconds": 1, "workers": 1}
    path = site.run_file("lost", task="change", run=waves)
    store, name = f"{BUCKET}/lost", submit(site, path)
    wait_until(lambda: commits(store) > 3, START_S, "the first waves")
    delete_pod(site, name, "head")
    wait_until(lambda: n_starts("lost", name) == 2, START_S, "the second start of the driver")
    assert state(site, name)["state"] == "running"  # the same RayJob goes on
    site.eoray("cancel", name)
    assert site.eoray("wait", name, exits=5).returncode == 5
    # asked, the driver committed what was finished and said so itself
    assert storage.read_json(attempt_path("lost", name))["status"] == "stopped"
    wait_until(lambda: not living(site, name), 120, "the end of all pods")
    before = commits(store)
    again = site.ask("submit", path)
    assert (again["attempt"], again["state"]) == (2, "succeeded")
    assert commits(store) >= before
    made = check_cube(store).products
    assert made == {product: undisturbed[product] for product in made}
    assert {"s2", f"change-{NAME}"} <= made.keys()
    for attempt in (again["name"], name):
        site.eoray("delete", attempt)
    assert left_of(site, name) == []
    assert n_starts("lost", again["name"]) == 1  # the record stays


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


def test_an_absent_image_is_told_and_ends_the_attempt(site: Site) -> None:
    image = {"image": "eoray.test/absent:1", "start_minutes": 1}
    path = site.run_file("absent", **CUBE, cluster=image)
    name = submit(site, path)

    def is_told() -> bool:
        return "eoray.test/absent:1" in " ".join(state(site, name)["why"])

    wait_until(is_told, 60, "the reason to be told")
    done = site.eoray("wait", name, exits=1)
    assert "PreRunningDeadlineExceeded" in done.stdout


def test_an_exhausted_quota_is_told_and_pods_start_when_it_is_raised(site: Site) -> None:
    def set_quota(pods: int) -> None:
        metadata = {"name": "few", "namespace": site.namespace}
        hard = {"pods": str(pods)}
        kubectl = site.cluster.kubectl
        kubectl.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata,
                       "spec": {"hard": hard}})  # fmt: skip

    set_quota(1)
    try:
        name = submit(site, site.run_file("quota", **CUBE))

        def is_told() -> bool:
            return "exceeded quota: few" in " ".join(state(site, name)["why"])

        wait_until(is_told, 60, "the reason to be told")
        set_quota(10)
        wait_until(
            lambda: len(site.pods(**{"eoray.dev/run": name.rsplit("-", 1)[0]})) == 3, 60, "all pods"
        )
    finally:
        site.cluster.kubectl("delete", "resourcequota", "few", "--namespace", site.namespace)
    site.eoray("cancel", name)
    assert site.eoray("wait", name, exits=5).returncode == 5


def test_a_tick_started_twice_is_one_run(site: Site) -> None:
    path = site.run_file("weekly", **CUBE)
    made = site.ask("schedule", "apply", path, "--cron", "0 3 * * 1", "--name", "weekly")
    assert made["what"] == "created"
    tick = ("--scheduled-time", "2021-12-27T03:00")
    jobs = [site.ask("schedule", "run-now", "weekly", *tick)["job"] for _ in range(2)]
    for job in jobs:
        wait_until(partial(ended, site, job), 2 * START_S, f"the Job {job} to end")
        assert job_status(site, job)["succeeded"] == 1
    said = [site.cluster.kubectl("logs", f"job/{job}", "-n", site.namespace) for job in jobs]
    names = {name for text in said for name in re.findall(r"small-[0-9a-f]{8}-\d+", text)}
    assert len(names) == 1  # the same window is the same run, and its first attempt was enough
    assert state(site, names.pop())["state"] == "succeeded"
    assert check_cube(f"{BUCKET}/weekly").ok
    site.eoray("schedule", "delete", "weekly")
    wait_until(lambda: not ours(site, "jobs,cronjobs", "weekly"), 60, "the garbage collector")


def job_status(site: Site, job: str) -> dict[str, Any]:
    words = ("get", "job", job, "--namespace", site.namespace, "--output=json")
    status: dict[str, Any] = json.loads(site.cluster.kubectl(*words))["status"]
    return status


def ended(site: Site, job: str) -> bool:
    return bool({"succeeded", "failed"} & job_status(site, job).keys())


def ours(site: Site, kinds: str, schedule: str) -> list[str]:
    """Objects of a schedule."""
    chosen = ("--selector", f"eoray.dev/schedule={schedule}", "--output=name")
    return site.cluster.kubectl("get", kinds, "--namespace", site.namespace, *chosen).split()


def test_a_run_ends_at_its_deadline_and_the_next_attempt_waits_for_its_pods(
    site: Site,
) -> None:
    # more steps than fit into the minute that the driver has
    long = {"steps": 5000, "checkpoint_every": 10}
    limits = {"deadline_minutes": 2, "keep_seconds": 60}
    path = site.run_file("long", fit=long, cluster=limits)
    name = submit(site, path)
    done = site.eoray("wait", name, exits=1)
    assert "AppFailed" in done.stdout
    record = storage.read_json(attempt_path("long", name))
    assert (record["status"], record["reason"][:13]) == ("failed", "DeadlineError")
    assert living(site, name)
    again = site.eoray("submit", path, "--detach", "--json")
    assert "waiting for the pods of the earlier attempt" in again.stderr
    assert not living(site, name)
    second = json.loads(again.stdout.splitlines()[-1])["name"]
    site.eoray("cancel", second)
    assert site.eoray("wait", second, exits=5).returncode == 5
