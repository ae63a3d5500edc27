"""The plain manifests on a real API server: taken whole, with the rights that they promise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kubernetes import client

from deploy.render_manifests import FOLDER, NAMESPACE
from tests.chart.test_roles import ROLES
from tests.cluster.cluster import Cluster
from tests.cluster.machine import wait_until
from tests.cluster.test_roles import granted

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
    user = f"system:serviceaccount:{NAMESPACE}:eoray-submit"
    assert granted(api, NAMESPACE, user) == ROLES["eoray-schedule"]
    (namespace,) = [
        n for n in applied.list_namespace().items if n.metadata and n.metadata.name == NAMESPACE
    ]
    assert namespace.metadata is not None
    assert namespace.metadata.labels is not None
    assert namespace.metadata.labels["pod-security.kubernetes.io/enforce"] == "restricted"
