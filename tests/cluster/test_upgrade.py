"""The chart's release changed, rolled back and taken away while a run is in flight."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from eoray.config import parse_config
from eoray.k8s.client import Cluster as Runs
from eoray.k8s.end import delete_attempt
from eoray.k8s.submit import submit_run
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.machine import wait_until
from tests.cluster.site import CHART
from tests.cluster.submit_image import SUBMIT_IMAGE, submit_image
from tests.cluster.test_submit import RUN_FILE, play_operator

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(2400),
    pytest.mark.usefixtures("kuberay_crds"),
]

OURS = "configmaps,cronjobs,jobs,networkpolicies,pods,roles,rolebindings,serviceaccounts"
RELEASE = "app.kubernetes.io/instance=eoray"
OF_A_RUN = {"rayjob", "configmap", "poddisruptionbudget", "secret"}
SECRET = "storage"
"""Which the run file names."""


class Release:
    """The chart in a namespace, and a run that its account has submitted."""

    def __init__(self, cluster: Cluster, api: client.ApiClient, namespace: str) -> None:
        self.cluster, self.api, self.namespace = cluster, api, namespace
        self.runs = Runs(lambda: api, namespace)
        self.run = ""

    def helm(self, verb: str, *words: str | Path, **values: Any) -> str:
        """Run helm on the release, with values that differ from the chart's."""
        given = ("--values", "-") if values else ()
        stdin = json.dumps(values) if values else None
        return self.cluster.helm(self.namespace, verb, "eoray", *words, *given, stdin=stdin)

    def submit(self) -> None:
        """Begin a run with the rights of the release's own account, and let it work."""
        account = client.ApiClient(self.api.configuration)
        user = f"system:serviceaccount:{self.namespace}:eoray-submit"
        account.set_default_header("Impersonate-User", user)
        config = parse_config(RUN_FILE, overrides=["cluster.service_account=eoray-ray"])
        made = submit_run(Runs(lambda: account, self.namespace), config, Path("/"))
        self.run = made.name
        self.play(jobDeploymentStatus="Running", jobStatus="RUNNING")

    def play(self, **status: str) -> None:
        """Say of the run what the operator would."""
        play_operator(self.api, self.namespace, self.run, **status)

    def names(self, kinds: str = OURS, selector: str = RELEASE) -> set[str]:
        """What there is, as kubectl names it."""
        options = ("--namespace", self.namespace, "--selector", selector, "--output=name")
        return set(self.cluster.kubectl("get", kinds, *options).split())

    def one(self, kind: str, name: str) -> dict[str, Any]:
        options = ("--namespace", self.namespace, "--output=json")
        found: dict[str, Any] = json.loads(self.cluster.kubectl("get", kind, name, *options))
        return found

    def of_the_run(self) -> dict[str, Any]:
        """Objects of the run: who they are, and all that is asked of them."""
        kinds, key = "rayjobs,configmaps,poddisruptionbudgets", self.run.rsplit("-", 1)[0]
        named = {*self.names(kinds, f"eoray.dev/run={key}"), f"secret/{SECRET}"}
        assert {name.split("/")[0].split(".")[0] for name in named} == OF_A_RUN
        return {name: _wanted(self.one(*name.split("/"))) for name in named}


def _wanted(body: dict[str, Any]) -> dict[str, Any]:
    metadata = body["metadata"]
    kept = {key: metadata.get(key) for key in ("uid", "generation", "labels", "ownerReferences")}
    return {**kept, **{key: body.get(key) for key in ("spec", "data")}}


def _values(cron: str = "0 3 * * 1", **more: Any) -> dict[str, Any]:
    repository, tag = SUBMIT_IMAGE.split(":")
    schedule = {"name": "weekly", "cron": cron, "runFile": RUN_FILE + f"# {cron}\n"}
    return {
        "image": {"submit": {"repository": repository, "tag": tag}},
        "schedules": [{**schedule, "suspend": True}],
        **more,
    }


@pytest.fixture(scope="session")
def hook_image(kubernetes_cluster: Cluster) -> None:
    """What the chart's hooks run."""
    kubernetes_cluster.import_image(submit_image())


@pytest.fixture
def release(
    kubernetes_cluster: Cluster, api: client.ApiClient, namespace: str, hook_image: None
) -> Iterator[Release]:
    kubernetes_cluster.kubectl(
        "create", "secret", "generic", SECRET, "--from-literal=KEY=value", "--namespace", namespace
    )
    made = Release(kubernetes_cluster, api, namespace)
    made.helm("install", CHART, **_values())
    made.submit()
    yield made
    delete_attempt(made.runs, made.run)


def test_upgrade_and_rollback_change_the_release_and_not_the_run(release: Release) -> None:
    before = release.of_the_run()
    (older,) = release.names("configmaps")
    rbac = {"user": {"users": ["ann"]}, "kueue": True}
    release.helm("upgrade", CHART, **_values("0 4 * * *", rbac=rbac))
    assert release.one("cronjob", "weekly")["spec"]["schedule"] == "0 4 * * *"
    assert release.one("rolebinding", "eoray-user")["subjects"][0]["name"] == "ann"
    assert "workloads" in json.dumps(release.one("role", "eoray-user"))
    assert older in release.names("configmaps")  # an unfinished tick's pod may start again
    assert release.of_the_run() == before
    release.helm("rollback", "1")
    assert release.one("cronjob", "weekly")["spec"]["schedule"] == "0 3 * * 1"
    assert "workloads" not in json.dumps(release.one("role", "eoray-user"))
    assert "rolebinding.rbac.authorization.k8s.io/eoray-user" not in release.names("rolebindings")
    assert release.of_the_run() == before


def test_uninstall_refuses_while_the_run_works_and_then_leaves_the_run(release: Release) -> None:
    before, installed = release.of_the_run(), release.names()
    with pytest.raises(ClusterError, match="job eoray-unfinished failed"):
        release.helm("uninstall")
    (pod,) = release.names("pods", "batch.kubernetes.io/job-name=eoray-unfinished")
    said = release.cluster.kubectl("logs", pod, "--namespace", release.namespace)
    assert release.run in said
    assert installed <= release.names()
    assert release.of_the_run() == before
    release.play(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    release.helm("uninstall")
    _wait_until_gone(release)
    assert release.of_the_run() == before


def test_uninstall_without_hooks_asks_nobody(release: Release) -> None:
    before = release.of_the_run()
    release.helm("uninstall", "--no-hooks")
    _wait_until_gone(release)
    assert release.of_the_run() == before


def _wait_until_gone(release: Release) -> None:
    """Nothing of a release stays but the run files of its schedules, which are kept."""

    def left() -> set[str]:
        return {name for name in release.names() if not name.startswith("configmap/weekly-run-")}

    wait_until(lambda: not left(), 60, f"the end of {sorted(left())}")


def test_what_a_run_owns_is_collected_with_it_where_no_release_is_left(release: Release) -> None:
    release.helm("uninstall", "--no-hooks")
    assert delete_attempt(release.runs, release.run, timeout_s=60) is True

    def left() -> set[str]:
        kinds = "rayjobs,rayclusters,configmaps,poddisruptionbudgets,pods"
        return release.names(kinds, f"eoray.dev/run={release.run.rsplit('-', 1)[0]}")

    wait_until(lambda: not left(), 60, "the garbage collector")
    assert release.one("secret", SECRET)["data"]
