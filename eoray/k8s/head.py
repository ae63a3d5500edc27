"""The head of a Ray cluster that stays: its pod, its token, its dashboard with the Jobs API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

from eoray.errors import ClusterError
from eoray.k8s.forward import Forward, forward_port

if TYPE_CHECKING:
    from eoray.k8s.client import Cluster
    from eoray.k8s.stream import PodStream

DASHBOARD_PORT = 8265
"""Of the head: the dashboard with the Jobs API."""

_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard at a port of loopback."""

    place: str
    """Of the Ray cluster, for errors."""
    forward: Forward
    token: str = ""
    """Ray's; "" where it asks for none."""

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``."""
        return f"http://127.0.0.1:{self.forward.port}"

    def ask(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        """Ask for JSON.

        Returns:
            (status, answer); the answer is {} unless the status is 200.

        Raises:
            ClusterError: It does not answer, refuses the token, or does not speak JSON.
        """
        status, text = self._send(method, path)
        if status in (401, 403):
            raise ClusterError(
                f"Ray at {self.place!r} refuses the token of its Secret; the head is older than "
                "the Secret: delete the head's pod, the operator makes it anew"
            )
        try:
            return status, dict(json.loads(text)) if status == 200 else {}
        except (ValueError, TypeError) as error:
            raise self._silent(str(error)) from error

    def _send(self, method: str, path: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        connection = HTTPConnection("127.0.0.1", self.forward.port, timeout=_ANSWER_S)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, HTTPException) as error:
            raise self._silent(str(error) or type(error).__name__) from error
        finally:
            connection.close()

    def _silent(self, why: str) -> ClusterError:
        return ClusterError(
            f"the dashboard of Ray at {self.place!r} does not answer ({self.forward.error or why})"
            "; see that the head runs and that its image has ray[default]"
        )


@contextmanager
def open_dashboard(cluster: Cluster, name: str) -> Iterator[Dashboard]:
    """Reach the dashboard of a RayCluster through the API server, with its token.

    Args:
        cluster: The namespace.
        name: Of the RayCluster.

    Raises:
        ClusterError: There is no such cluster, its head does not run, or a right is missing.
    """
    token = token_of(cluster, name)
    find_head(cluster, name)  # a cluster that is not up is told before anything listens
    with forward_port(partial(dial_head, cluster, name, DASHBOARD_PORT), DASHBOARD_PORT) as port:
        yield Dashboard(f"{cluster.namespace}/{name}", port, token)


def find_head(cluster: Cluster, name: str) -> str:
    """The pod of a RayCluster's head.

    Raises:
        ClusterError: None runs.
    """
    pods = cluster.pods(f"ray.io/cluster={name},ray.io/node-type=head")
    for pod in pods:
        going = "deletionTimestamp" in pod["metadata"]
        if pod.get("status", {}).get("phase") == "Running" and not going:
            return str(pod["metadata"]["name"])
    found = ", ".join(f"{p['metadata']['name']}: {p.get('status', {}).get('phase')}" for p in pods)
    raise ClusterError(
        f"the head of RayCluster {name!r} in namespace {cluster.namespace!r} does not run "
        f"({found or 'it has no pod'}); see `kubectl describe raycluster {name}`"
    )


def dial_head(cluster: Cluster, name: str, port: int) -> PodStream:
    """Open a connection to a port of a RayCluster's head."""
    # looked up for each connection: a head that was replaced has another name
    return cluster.dial(find_head(cluster, name), port)


def secret_of(cluster: Cluster, name: str) -> str:
    """The Secret with a RayCluster's token; "" where the cluster is open.

    Raises:
        ClusterError: There is no such cluster.
    """
    found = cluster.raycluster(name)
    if found is None:
        raise ClusterError(
            f"there is no RayCluster {name!r} in namespace {cluster.namespace!r}; the chart makes "
            "one where `cluster.enabled` is true"
        )
    auth: Mapping[str, Any] = found.get("spec", {}).get("authOptions") or {}
    # without the mode KubeRay leaves the cluster open; the Secret has the cluster's name unless
    # one is given
    return str(auth.get("secretName") or name) if auth.get("mode") == "token" else ""


def token_of(cluster: Cluster, name: str) -> str:
    """The token of a RayCluster; "" where it is open.

    Raises:
        ClusterError: There is no such cluster, or its Secret has no token.
    """
    secret = secret_of(cluster, name)
    if not secret:
        return ""
    token = cluster.secret(secret).get("auth_token")
    if not token:
        raise ClusterError(
            f"Secret {secret!r} in namespace {cluster.namespace!r} has no auth_token; KubeRay "
            "writes it: see that the operator runs"
        )
    return token
