"""Pods of tests, as strict as eoray's own.

``core`` is a CoreV1Api. Its types know models only, and may be None throughout; it takes and
gives plain dictionaries and whole objects.
"""

from __future__ import annotations

from typing import Any

from tests.cluster.images import PYTHON_IMAGE
from tests.cluster.machine import wait_until

TERMINAL = ("Succeeded", "Failed")


def restricted_pod(name: str, code: str, **spec: Any) -> dict[str, Any]:
    """A pod that runs Python code and passes the restricted standard; more of its spec by name."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    container = {
        "name": "main",
        "image": PYTHON_IMAGE,
        "imagePullPolicy": "Never",
        "args": ["-c", code],
        "securityContext": security,
        "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}},
    }
    return {
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            # Programs of tests do not listen to SIGTERM; nobody waits 30 s for them.
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            **spec,
        },
    }


def run_pod(core: Any, namespace: str, pod: dict[str, Any]) -> tuple[str, str]:
    """Run a pod to its end; its phase and its log."""
    name = pod["metadata"]["name"]
    core.create_namespaced_pod(namespace, pod)
    wait_for_phase(core, namespace, name, *TERMINAL)
    phase = core.read_namespaced_pod(name, namespace).status.phase
    return phase, core.read_namespaced_pod_log(name, namespace)


def wait_for_phase(core: Any, namespace: str, name: str, *phases: str) -> None:
    def reached() -> bool:
        return core.read_namespaced_pod(name, namespace).status.phase in phases

    wait_until(reached, 60, f"pod {namespace}/{name} to be {' or '.join(phases)}")
