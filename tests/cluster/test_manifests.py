"""The plain manifests on a real API server: taken whole, with the rights that they promise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client

from deploy.render_manifests import FOLDER, NAMESPACE
from tests.cluster.cluster import Cluster
from tests.cluster.machine import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]


@pytest.fixture
def applied(kubernetes_cluster: Cluster, api: client.ApiClient) -> Iterator[client.CoreV1Api]:
    """The manifests applied as their page says."""
    core = client.CoreV1Api(api)
    kubernetes_cluster.kubectl("apply", "--kustomize", str(FOLDER))
    yield core
    core.delete_namespace(NAMESPACE)

    def is_gone() -> bool:
        names = {str(n.metadata and n.metadata.name) for n in core.list_namespace().items}
        return NAMESPACE not in names

    wait_until(is_gone, 60, "the namespace to go")


def test_manifests_give_the_submit_account_its_rights_and_no_other(
    applied: client.CoreV1Api, api: client.ApiClient
) -> None:
    account = client.ApiClient(api.configuration)
    user = f"system:serviceaccount:{NAMESPACE}:eoray-submit"
    account.set_default_header("Impersonate-User", user)

    def may(verb: str, group: str, resource: str) -> bool:
        wanted = {"namespace": NAMESPACE, "verb": verb, "group": group, "resource": resource}
        review: Any = {"spec": {"resourceAttributes": wanted}}
        answer = client.AuthorizationV1Api(account).create_self_subject_access_review(review)
        return bool(answer.status and answer.status.allowed)

    assert may("create", "ray.io", "rayjobs")
    assert may("create", "", "configmaps")
    assert not may("get", "", "secrets")
    assert not may("create", "batch", "cronjobs")
    (namespace,) = [
        n for n in applied.list_namespace().items if n.metadata and n.metadata.name == NAMESPACE
    ]
    assert namespace.metadata is not None
    assert namespace.metadata.labels is not None
    assert namespace.metadata.labels["pod-security.kubernetes.io/enforce"] == "restricted"
