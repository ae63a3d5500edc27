"""Port-forwards and rights of ``eoray.connect`` on a real API server and kubelet."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from eoray.config import parse_config
from eoray.k8s.client import Cluster
from eoray.k8s.connect import CLIENT_PORT, open_tunnel
from eoray.k8s.existing import adopt_cluster
from eoray.k8s.rayjob import build_rayjob
from eoray.k8s.refusals import ForbiddenError
from eoray.k8s.submit import plan_attempt
from tests.chart.release import render
from tests.cluster.machine import wait_until
from tests.cluster.pods import restricted_pod, wait_for_phase

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(2400),
    pytest.mark.usefixtures("kuberay_crds"),
]

TOKEN = "0123456789abcdef" * 4

HEAD = f"""
import http.server as h, json, platform, socketserver as s, threading
class Echo(s.BaseRequestHandler):
    def handle(self):
        while piece := self.request.recv(65536):
            self.request.sendall(piece)
class Dashboard(h.BaseHTTPRequestHandler):
    def do_GET(self):
        right = self.headers.get("Authorization") == "Bearer {TOKEN}"
        data = {{"rayVersion": "{version("ray")}", "pythonVersion": platform.python_version()}}
        self.send_response(200 if right else 401)
        self.end_headers()
        self.wfile.write(json.dumps({{"data": data}}).encode())
echo = s.ThreadingTCPServer(("127.0.0.1", {CLIENT_PORT}), Echo)
threading.Thread(target=echo.serve_forever, daemon=True).start()
dashboard = h.ThreadingHTTPServer(("127.0.0.1", 8265), Dashboard)
print("listening", flush=True)
dashboard.serve_forever()
"""
"""What listens on loopback of the pod is reached too: the kubelet dials from within."""


@pytest.fixture
def core(api: client.ApiClient) -> Any:
    return client.CoreV1Api(api)


@pytest.fixture
def staying(api: client.ApiClient, core: Any, namespace: str) -> str:
    """A RayCluster ``eoray`` without an operator: its object, its Secret, a pod for its head."""
    pod = restricted_pod("eoray-head-x", HEAD)
    pod["metadata"]["labels"] |= {"ray.io/cluster": "eoray", "ray.io/node-type": "head"}
    core.create_namespaced_pod(namespace, pod)
    template = {"spec": restricted_pod("head", "")["spec"]}
    spec = {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "headGroupSpec": {"rayStartParams": {}, "template": template},
    }
    body = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "eoray"},
        "spec": spec,
    }
    client.CustomObjectsApi(api).create_namespaced_custom_object(
        "ray.io", "v1", namespace, "rayclusters", body
    )
    data = {"auth_token": base64.b64encode(TOKEN.encode()).decode()}
    core.create_namespaced_secret(namespace, {"metadata": {"name": "eoray"}, "data": data})
    wait_for_phase(core, namespace, "eoray-head-x", "Running")

    def listens() -> bool:
        return "listening" in core.read_namespaced_pod_log("eoray-head-x", namespace)

    wait_until(listens, 30, "the head to listen")
    return namespace


@pytest.fixture
def as_user(api: client.ApiClient, core: Any, staying: str) -> Callable[..., Cluster]:
    """The namespace as an account with the chart's role eoray-user, without some of its rights."""

    def become(*, without: tuple[str, str] | None = None) -> Cluster:
        name = f"user-{len(core.list_namespaced_service_account(staying).items)}"
        core.create_namespaced_service_account(staying, {"metadata": {"name": name}})
        rules = render({"cluster": {"enabled": True}}).one("Role", "eoray-user")["rules"]
        for rule in rules:
            if without is not None and without[1] in rule["resources"]:
                rule["verbs"] = [verb for verb in rule["verbs"] if verb != without[0]]
        _bind(client.RbacAuthorizationV1Api(api), staying, name, rules)
        request: dict[str, Any] = {"spec": {"audiences": []}}
        token = core.create_namespaced_service_account_token(name, staying, request).status.token
        return Cluster(lambda: _client_of(api, token), staying, wait=lambda _: None)

    return become


def _bind(rbac: Any, namespace: str, name: str, rules: list[dict[str, Any]]) -> None:
    rbac.create_namespaced_role(namespace, {"metadata": {"name": name}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    rbac.create_namespaced_role_binding(
        namespace, {"metadata": {"name": name}, "subjects": [subject], "roleRef": role}
    )


def _client_of(api: client.ApiClient, token: str) -> client.ApiClient:
    """A client of the same server with a bearer token instead of a certificate."""
    configuration = client.Configuration(host=api.configuration.host)
    configuration.ssl_ca_cert = api.configuration.ssl_ca_cert
    configuration.api_key = {"authorization": f"Bearer {token}"}
    configuration.proxy, configuration.retries = None, False
    return client.ApiClient(configuration)


def say(port: int, data: bytes) -> bytes:
    """Send, and read as much as was sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as end:
        end.sendall(data)
        heard = b""
        while len(heard) < len(data) and (piece := end.recv(1 << 20)):
            heard += piece
        return heard


def test_role_of_users_is_enough_to_reach_the_head(
    as_user: Callable[..., Cluster], staying: str
) -> None:
    data = bytes(range(256)) * 1_000
    with open_tunnel(f"{staying}/eoray", cluster=as_user()) as tunnel:
        port = int(tunnel.address.rpartition(":")[2])
        assert say(port, b"hello") == b"hello"
        assert say(port, data) == data
        assert tunnel.environment["RAY_AUTH_TOKEN"] == TOKEN


@pytest.mark.parametrize("verb", ["get", "create"])
def test_each_right_to_forward_is_needed(as_user: Callable[..., Cluster], verb: str) -> None:
    cluster = as_user(without=(verb, "pods/portforward"))
    with pytest.raises(ForbiddenError, match=r"you may not get pods/portforward .*eoray-user"):
        cluster.dial("eoray-head-x", CLIENT_PORT)


def test_other_secrets_stay_closed(as_user: Callable[..., Cluster], core: Any) -> None:
    cluster = as_user()
    core.create_namespaced_secret(cluster.namespace, {"metadata": {"name": "storage"}})
    with pytest.raises(ForbiddenError, match="you may not get secrets"):
        cluster.secret("storage")


def test_rayjob_on_a_cluster_that_stays_is_taken_whole(api: client.ApiClient, staying: str) -> None:
    cluster = Cluster(lambda: api, staying)
    config = parse_config(
        "{version: 1, name: slovenia, aoi: [14.0, 46.0, 14.2, 46.2], time: 2024-01-01/2024-12-31, "
        "task: cube, store: s3://maps/slovenia, cluster: {ray_cluster: eoray}}"
    )
    attempt = plan_attempt(adopt_cluster(cluster, config), Path("/"))
    sent = build_rayjob(attempt, staying)
    kept = cluster.create_rayjob(sent)["spec"]
    assert {key: kept[key] for key in sent["spec"]} == sent["spec"]
    assert "shutdownAfterJobFinishes" not in kept or kept["shutdownAfterJobFinishes"] is False
