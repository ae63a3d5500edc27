"""Certificates and kubeconfigs of one cluster, by openssl."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.cluster.machine import run
from tests.cluster.slot import Slot

CLIENTS = {
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
}
# Without this, openssl's own configuration would make every certificate an authority.
EMPTY_CONFIG = "[req]\ndistinguished_name = none\n[none]\n"


def write_keys(slot: Slot) -> None:
    """Write the authority, all certificates, and a kubeconfig for each client."""
    folder = slot.state
    (folder / "openssl.cnf").write_text(EMPTY_CONFIG)
    key = folder / "service-account.key"
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key])
    _certificate(folder, "ca", "/CN=eoray test authority", "basicConstraints=critical,CA:TRUE")
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
    addresses = ["127.0.0.1", slot.node_ip, slot.api_service_ip]
    _issue(folder, "apiserver", "/CN=kube-apiserver", _alternatives(names, addresses))
    for name, subject in CLIENTS.items():
        _issue(folder, name, subject)
        _write_kubeconfig(slot, name)
    node = "/O=system:nodes/CN=system:node:node-1"
    _issue(folder, "kubelet", node, _alternatives(["node-1"], [slot.node_ip]))
    _write_kubeconfig(slot, "kubelet")


def _alternatives(names: list[str], addresses: list[str]) -> str:
    entries = [f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses]
    return f"subjectAltName={','.join(entries)}"


def _issue(folder: Path, name: str, subject: str, *extensions: str) -> None:
    usage = ["extendedKeyUsage=clientAuth,serverAuth", "authorityKeyIdentifier=keyid"]
    signed = ["-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key")]
    _certificate(folder, name, subject, *usage, *extensions, options=signed)


def _certificate(
    folder: Path, name: str, subject: str, *extensions: str, options: list[str] | None = None
) -> None:
    added = [word for extension in extensions for word in ("-addext", extension)]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files: list[str | Path] = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt"]
    certificate = ["-days", "3650", "-subj", subject, "-addext", "subjectKeyIdentifier=hash"]
    config: list[str | Path] = ["-config", folder / "openssl.cnf"]
    run(["openssl", "req", "-x509", *config, *key, *files, *certificate, *added, *(options or [])])


def _write_kubeconfig(slot: Slot, name: str) -> None:
    """Write it as JSON, which is YAML, with the keys inside, so that the file can be copied."""
    folder = slot.state
    cluster = {
        "server": f"https://{slot.node_ip}:6443",
        "certificate-authority-data": _encoded(folder / "ca.crt"),
    }
    user = {
        "client-certificate-data": _encoded(folder / f"{name}.crt"),
        "client-key-data": _encoded(folder / f"{name}.key"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": slot.name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": slot.name, "context": {"cluster": slot.name, "user": name}}],
        "current-context": slot.name,
    }
    path = folder / f"{name}.conf"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1))


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
