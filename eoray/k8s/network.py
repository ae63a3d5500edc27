"""How pods reach what lies outside the cluster: a proxy, and certificates of an own authority.

Every library of a run reads variables of its process, each its own ones: so a pod gets them all.
Ray itself asks no proxy: its own calls go without one (``RAY_grpc_enable_http_proxy`` is off).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eoray.config.cluster import CaBundle, NetworkSection

CA_FOLDER = "/etc/eoray-ca"
CA_FILE = f"{CA_FOLDER}/ca.crt"
"""Where the certificates lie in the pods."""

_CA_VARIABLES = (
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GDAL_CURL_CA_BUNDLE",
    "PROJ_CURL_CA_BUNDLE", "AWS_CA_BUNDLE",
)  # fmt: skip
"""Read by rustls (obstore, Icechunk) and OpenSSL (urllib), requests (pystac-client), curl, GDAL and
PROJ (rasterio names its own file for both where nobody does), and by programs that speak to AWS."""

_INSIDE = ("localhost", "127.0.0.1", "::1", ".svc", ".cluster.local")
"""Never through a proxy: the pod itself, and every service of the cluster, as the head's is."""

_IDENTITY = (
    "169.254.169.254", "169.254.169.252", "169.254.170.2", "169.254.170.23",
    "fd00:ec2::254", "fd00:ec2::23", "metadata.google.internal",
)  # fmt: skip
"""Where a node gives out its pods' identities: a proxy would answer with its own, or not at all."""

_API_SERVER = "$(KUBERNETES_SERVICE_HOST)"
"""An address that only the cluster knows; the kubelet fills it in."""


def network_environment(network: NetworkSection, *, is_pod: bool = True) -> dict[str, str]:
    """Variables of processes that reach the outside as the run file says.

    Args:
        network: The section; without values there are no variables.
        is_pod: They stand in a pod's own template, where its certificates are mounted. In pods
            that are there already, they reach Ray's processes alone.
    """
    found: dict[str, str] = {}
    if network.proxy is not None:
        around = (*_INSIDE, *_IDENTITY, *([_API_SERVER] if is_pod else []), *network.no_proxy)
        values = {"HTTP_PROXY": network.proxy, "HTTPS_PROXY": network.proxy,
                  "NO_PROXY": ",".join(around)}  # fmt: skip
        for name, value in values.items():
            # curl reads http_proxy in lower case only
            found |= {name: value, name.lower(): value}
    if network.ca.is_given and is_pod:
        found |= dict.fromkeys(_CA_VARIABLES, CA_FILE)
    return found


def ca_volume(network: NetworkSection) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts of the certificates: one of each, or none."""
    if not network.ca.is_given:
        return [], []
    mount = {"name": "ca", "mountPath": CA_FOLDER, "readOnly": True}
    return [{"name": "ca", **_source(network.ca)}], [mount]


def _source(ca: CaBundle) -> dict[str, Any]:
    items = [{"key": ca.key, "path": CA_FILE.rpartition("/")[2]}]
    if ca.secret is not None:
        return {"secret": {"secretName": ca.secret, "items": items}}
    return {"configMap": {"name": ca.config_map, "items": items}}
