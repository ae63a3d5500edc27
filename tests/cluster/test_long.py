"""Runs from submission to outputs on pods that run Ray, and what happens when they are lost.

Slow by nature: Ray, torch and three pods share this machine. Each test leaves the namespace without
unfinished runs; their stores differ, so that none finds another's outputs. Heads that are lost have
a file of their own, ``test_heads.py``.
"""

from __future__ import annotations

import json
import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from eoray import storage
from eoray.cube.check import check_cube
from tests.cluster.cluster import Cluster
from tests.cluster.doorman import doorman
from tests.cluster.errors import ClusterError
from tests.cluster.machine import wait_until
from tests.cluster.runs import (
    CUBE,
    START_S,
    VERB_EACH_S,
    attempt_path,
    checkpoints,
    commits,
    delete_pod,
    following,
    living,
    pods_of,
    products,
    rayjob,
    state,
    submit,
    wait_for,
)
from tests.cluster.site import BUCKET, NAME, TRIED, Site

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(2400),
    pytest.mark.usefixtures("object_store"),
]


REFUSALS = 16
"""Of two followers with two tries at each look: both miss at least three looks."""


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


def test_helm_test_tries_what_a_run_file_names_in_a_pod_as_its_runs_have(site: Site) -> None:
    said = said_by_pods(site.helm("test", "eoray", "--logs"))
    assert [line[:2] for line in said["eoray-access"]] == [
        ["ok", "store"], ["ok", "catalogue"], ["ok", "scenes"],
    ]  # fmt: skip
    assert f"'{BUCKET}/{TRIED}'" in said["eoray-access"][0][2]
    assert ["ok", "rights", "runs can be submitted and followed"] in said["eoray-doctor"]
    assert "bad" not in {line[0] for line in said["eoray-doctor"]}


def test_helm_test_fails_where_the_catalogue_is_out_of_reach(site: Site) -> None:
    site.archive.set_broken({"/catalog.json": "404"})
    try:
        with pytest.raises(ClusterError, match="pod eoray-access failed"):
            site.helm("test", "eoray", "--filter", "name=eoray-access")
    finally:
        site.archive.set_broken({})
    said = site.cluster.kubectl("logs", "eoray-access", "--namespace", site.namespace)
    verdicts = [line.split()[:2] for line in said.splitlines()]
    assert verdicts == [["ok", "store"], ["bad", "catalogue"], ["unknown", "scenes"]]


def said_by_pods(told: str) -> dict[str, list[list[str]]]:
    """Verdict, subject and text of each line that `helm test --logs` gives, by pod."""
    pods = (part.partition("\n") for part in told.split("POD LOGS: ")[1:])
    return {
        pod: [line.split(maxsplit=2) for line in lines.splitlines() if line]
        for pod, _, lines in pods
    }


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


def test_lost_workers_a_new_api_server_and_an_expired_login_change_nothing(
    site: Site, undisturbed: dict[str, Any], kubernetes_cluster: Cluster, tmp_path: Path
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
    store, model = f"{BUCKET}/disturbed", f"{BUCKET}/disturbed/{NAME}/model/model.safetensors"
    with (
        doorman(kubernetes_cluster, tmp_path) as door,
        following(site, "logs", name, "--follow", kubeconfig=door.kubeconfig) as logs,
        following(site, "wait", name, kubeconfig=door.kubeconfig) as wait,
    ):
        wait_until(lambda: commits(store) > 1, 300, "the axes of the cube")
        asked = site.archive.n_get
        wait_until(lambda: site.archive.n_get > asked + 20, 300, "tasks that read")
        lost = {delete_pod(site, name, "worker")}
        wait_until(lambda: bool(checkpoints("disturbed")), 600, "the first checkpoint")
        lost.add(delete_pod(site, name, "worker"))
        kubernetes_cluster.restart("kube-apiserver")
        door.refuse(REFUSALS)
        wait_until(lambda: storage.exists(model), 600, "the model")
        lost.add(delete_pod(site, name, "worker"))  # of the map
        code, told = wait.end()
        assert code == 0
        assert "does not know you (get rayjobs" in told
        assert "answers again after" in told
        code, said = logs.end()
    assert door.refused == REFUSALS
    assert code == 0
    assert said.count('"stage": "report"') == 1  # each line once, also those after the restart
    assert len(lost) == 3
    assert not lost & {pod["metadata"]["name"] for pod in site.pods()}
    assert state(site, name)["state"] == "succeeded"
    assert products(f"{BUCKET}/disturbed") == undisturbed


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

        wait_until(is_told, 60, "the reason to be told", each_s=VERB_EACH_S)
        set_quota(10)
        wait_until(
            lambda: len(site.pods(**{"eoray.dev/run": name.rsplit("-", 1)[0]})) == 3, 60, "all pods"
        )
    finally:
        site.cluster.kubectl("delete", "resourcequota", "few", "--namespace", site.namespace)
    site.eoray("cancel", name)
    assert site.eoray("wait", name, exits=5).returncode == 5


def test_a_tick_started_twice_is_one_run_and_an_absent_image_ends_another(site: Site) -> None:
    # the second one waits for its minute without using anything: beside the first
    image = {"image": "eoray.test/absent:1", "start_minutes": 1}
    absent = submit(site, site.run_file("absent", **CUBE, cluster=image))
    path = site.run_file("weekly", **CUBE)
    made = site.ask("schedule", "apply", path, "--cron", "0 3 * * 1", "--name", "weekly")
    assert made["what"] == "created"
    tick = ("--scheduled-time", "2021-12-27T03:00")
    jobs = [site.ask("schedule", "run-now", "weekly", *tick)["job"] for _ in range(2)]

    def is_told() -> bool:
        return "eoray.test/absent:1" in " ".join(state(site, absent)["why"])

    wait_until(is_told, 50, "the reason to be told", each_s=VERB_EACH_S)
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
    assert "PreRunningDeadlineExceeded" in site.eoray("wait", absent, exits=1).stdout
    site.eoray("delete", absent)
    # no driver ever started: what the cluster said is all that is known
    past = site.ask("status", absent, "--store", f"{BUCKET}/absent")
    assert (past["state"], past["exit_code"]) == ("failed", 1)
    assert "eoray.test/absent:1" in " ".join(past["why"])


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


def test_a_run_ends_at_its_deadline_and_a_drained_worker_of_the_next_loses_no_step(
    site: Site, api: client.ApiClient
) -> None:
    # more steps than anybody waits for, and no checkpoint by itself
    long = {"steps": 100_000, "checkpoint_every": 100_000}
    limits = {"deadline_minutes": 2, "keep_seconds": 60}
    name = submit(site, site.run_file("long", fit=long, cluster=limits))
    done = site.eoray("wait", name, exits=1)
    assert "AppFailed" in done.stdout
    record = storage.read_json(attempt_path("long", name))
    assert (record["status"], record["reason"][:13]) == ("failed", "DeadlineError")
    assert living(site, name)
    again = site.eoray("submit", site.run_file("long", fit=long), "--detach", "--json")
    assert "waiting for the pods of the earlier attempt" in again.stderr
    assert not living(site, name)
    second = json.loads(again.stdout.splitlines()[-1])["name"]
    wait_until(lambda: is_fitting(site, second), START_S, "the fit on two pods")
    evict_head_in_vain(site, api, second)
    worker = pods_of(site, second, "worker")[0]
    evict(api, site.namespace, worker)
    wait_until(lambda: bool(checkpoints("long")), 60, "the checkpoint just in time")
    (saved,) = checkpoints("long")
    assert re.search(r"step-0{0,6}[1-9]\d*\.pt$", saved)
    wait_until(lambda: is_fitting(site, second, without=worker), START_S, "the fit to go on")
    site.eoray("cancel", second)
    assert site.eoray("wait", second, exits=5).returncode == 5
    # asked, the driver said itself how it ended
    assert storage.read_json(attempt_path("long", second))["status"] == "stopped"


def is_fitting(site: Site, name: str, *, without: str = "") -> bool:
    """Whether a fit is at work in both worker pods, where their hooks look for it."""
    workers = pods_of(site, name, "worker")
    if len(workers) != 2 or without in workers:
        return False
    where = ("--namespace", site.namespace, "--container=ray-worker")
    look = ("--", "sh", "-c", "ls /tmp/eoray/fit | grep .")
    return all(site.cluster.kubectl.succeeds("exec", pod, *where, *look) for pod in workers)


def evict(api: client.ApiClient, namespace: str, pod: str) -> None:
    """Ask for a pod as a drain of its node does."""
    core: Any = client.CoreV1Api(api)
    core.create_namespaced_pod_eviction(
        pod, namespace, {"metadata": {"name": pod, "namespace": namespace}}
    )


def evict_head_in_vain(site: Site, api: client.ApiClient, name: str) -> None:
    (head,) = pods_of(site, name, "head")
    with pytest.raises(client.ApiException, match="disruption budget") as refused:
        evict(api, site.namespace, head)
    assert refused.value.status == 429
