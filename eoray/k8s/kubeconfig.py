"""Which cluster is meant, and with whose rights: a kubeconfig, or the account of a pod."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eoray.errors import ClusterError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Only pods have it, with an account of the cluster."""


def is_pod() -> bool:
    """Tell whether this process runs in a pod with an account of the cluster."""
    return ACCOUNT.exists()


def new_client(context: str | None) -> ApiClient:
    """A client with fresh credentials.

    Args:
        context: Of the kubeconfig; None takes the pod's own account, else the current one.

    Raises:
        ClusterError: There is no kubeconfig, or no such context.
    """
    from kubernetes import config
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration()
    configuration.retries = False
    try:
        if context is None and is_pod():
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(context=context, client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        wanted = "a kubeconfig" if context is None else f"context {context!r} of the kubeconfig"
        raise ClusterError(
            f"no Kubernetes cluster is known ({' '.join(str(error).split())[:200]}); {wanted} is "
            "needed: set KUBECONFIG, or cluster.context"
        ) from error
    return ApiClient(configuration)


def default_namespace(context: str | None) -> str:
    """The namespace of a context, or of the pod; ``default`` where none is known."""
    from kubernetes import config

    if context is None and is_pod():
        return ACCOUNT.read_text().strip()
    try:
        contexts, active = config.list_kube_config_contexts()
    except (config.ConfigException, OSError):
        return "default"  # reaching it will say what is missing
    chosen = next((c for c in contexts if c["name"] == context), active)
    return str(chosen["context"].get("namespace", "default"))
