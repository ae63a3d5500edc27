"""Reach a Ray cluster that stays: ports to loopback, its token, versions compared.

``execute(address=...)`` then runs the driver on the cluster's head; losing the connection, or
leaving, ends nothing there.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from eoray.errors import ClusterError
from eoray.k8s import client as k8s
from eoray.k8s.forward import Forward, forward_port

if TYPE_CHECKING:
    from eoray.k8s.client import Cluster
    from eoray.k8s.stream import PodStream

CLIENT_PORT, DASHBOARD_PORT = 10001, 8265
"""Of the head: Ray's client server, and the dashboard with the Jobs API."""

_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A way to a Ray cluster."""

    address: str
    """``ray://127.0.0.1:port``."""
    dashboard: str
    """``http://127.0.0.1:port``."""
    environment: Mapping[str, str]
    """What Ray reads the cluster's token from."""
    token_command: str = ""
    """How a shell gets the token; "" where the cluster asks for none."""


@contextmanager
def connect(place: str, *, context: str | None = None) -> Iterator[str]:
    """Reach a Ray cluster on Kubernetes from this process, with its token.

    Args:
        place: ``namespace/cluster``, or the name of a RayCluster in the context's namespace.
        context: Of the kubeconfig; None takes the current one.

    Yields:
        The address for ``execute(address=...)`` or ``ray.init``. Within the block Ray uses the
        cluster's token; what it used before comes back at the end.

    Raises:
        ClusterError: There is no such cluster, no right to reach it, or its Ray or Python is
            another one than here.
    """
    with open_tunnel(place, context=context) as tunnel, _ray_environment(tunnel.environment):
        yield tunnel.address


@contextmanager
def open_tunnel(
    place: str, *, context: str | None = None, cluster: Cluster | None = None
) -> Iterator[Tunnel]:
    """As :func:`connect`, for other processes: nothing of this one is changed.

    Args:
        place: As for :func:`connect`.
        context: As for :func:`connect`.
        cluster: The namespace, where it is reached already.
    """
    namespace, _, name = place.rpartition("/")
    if not name or "/" in namespace:
        raise ClusterError(
            f"{place!r} names no cluster; write namespace/name, such as maps/eoray, or its name"
        )
    if cluster is None:
        from eoray.config import ClusterSection

        cluster = k8s.connect(ClusterSection(context=context, namespace=namespace or None))
    secret = _secret_name(cluster, name)
    environment = _environment(cluster, secret)
    find_head(cluster, name)  # a cluster that is not up is told before anything listens
    dial = partial(_dial, cluster, name)
    with ExitStack() as stack:
        client, dashboard = (
            stack.enter_context(forward_port(partial(dial, port), port))
            for port in (CLIENT_PORT, DASHBOARD_PORT)
        )
        _check_versions(place, dashboard, environment)
        yield Tunnel(
            f"ray://127.0.0.1:{client.port}",
            f"http://127.0.0.1:{dashboard.port}",
            environment,
            _token_command(cluster.namespace, secret),
        )


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


def _dial(cluster: Cluster, name: str, port: int) -> PodStream:
    # looked up for each connection: a head that was replaced has another name
    return cluster.dial(find_head(cluster, name), port)


def _secret_name(cluster: Cluster, name: str) -> str:
    """The Secret with the cluster's token; "" where the cluster is open."""
    found = cluster.raycluster(name)
    if found is None:
        raise ClusterError(
            f"there is no RayCluster {name!r} in namespace {cluster.namespace!r}; the chart makes "
            "one where `cluster.enabled` is true"
        )
    auth = found.get("spec", {}).get("authOptions") or {}
    # without the mode KubeRay leaves the cluster open; the Secret has the cluster's name unless
    # one is given
    return str(auth.get("secretName") or name) if auth.get("mode") == "token" else ""


def _environment(cluster: Cluster, secret: str) -> dict[str, str]:
    if not secret:
        return {"RAY_AUTH_MODE": "disabled"}
    token = cluster.secret(secret).get("auth_token")
    if not token:
        raise ClusterError(
            f"Secret {secret!r} in namespace {cluster.namespace!r} has no auth_token; KubeRay "
            "writes it: see that the operator runs"
        )
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def _token_command(namespace: str, secret: str) -> str:
    if not secret:
        return ""
    path = "{.data.auth_token}"
    read = f"kubectl get secret {secret} -n {namespace} -o jsonpath='{path}' | base64 -d"
    return f"export RAY_AUTH_TOKEN=$({read})"


def _check_versions(place: str, dashboard: Forward, environment: Mapping[str, str]) -> None:
    """Refuse a cluster with another Ray or Python: Ray itself tells it late, or not at all."""
    status, found = _ask_dashboard(place, dashboard, environment)
    if status in (401, 403):
        raise ClusterError(
            f"Ray at {place!r} refuses the token of its Secret; the head is older than the Secret: "
            "delete the head's pod, the operator makes it anew"
        )
    if status != 200:
        return  # no such question in this Ray: its client compares as well
    theirs = {"Ray": found.get("rayVersion"), "Python": _minor(found.get("pythonVersion"))}
    ours = {"Ray": _own_ray(), "Python": _minor(platform.python_version())}
    for what, there in theirs.items():
        here = ours[what]
        if here and there and here != there:
            raise ClusterError(
                f"{what} is {there} at {place!r} and {here} here, and Ray's client needs the same; "
                f"use an environment with {what} {there}, or submit the run file with "
                f"`eoray submit --cluster {place.rpartition('/')[2]}`"
            )


def _ask_dashboard(
    place: str, dashboard: Forward, environment: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    token = environment.get("RAY_AUTH_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = HTTPConnection("127.0.0.1", dashboard.port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/api/v0/cluster_metadata", headers=headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text)["data"] if answer.status == 200 else {}
    except (OSError, HTTPException, ValueError, KeyError) as error:
        why = dashboard.error or str(error) or type(error).__name__
        raise ClusterError(
            f"the dashboard of Ray at {place!r} does not answer ({why}); see that the head runs "
            "and that its image has ray[default]"
        ) from error
    finally:
        connection.close()


def _minor(text: str | None) -> str | None:
    return None if text is None else ".".join(text.split(".")[:2])


def _own_ray() -> str | None:
    try:
        return version("ray")
    except PackageNotFoundError:
        return None


@contextmanager
def _ray_environment(environment: Mapping[str, str]) -> Iterator[None]:
    """Give this process the cluster's token, and its own one back at the end."""
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ.update(environment)
    _read_token_again()
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)
        _read_token_again()


def _read_token_again() -> None:
    """Ray keeps mode and token from its import on; where it is not imported, it reads them then."""
    raylet: Any = sys.modules.get("ray._raylet")
    if raylet is not None:
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
