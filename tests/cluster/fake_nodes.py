"""Nodes with GPUs that exist for the scheduler only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import command_line
from tests.cluster.kubectl import Kubectl
from tests.cluster.machine import Machine

GPUS_PER_NODE = 8
_ANNOTATION = "eoray.test/fake"


def add_fake_gpu_nodes(machine: Machine, programs: Path, kubectl: Kubectl, n_nodes: int) -> None:
    """Add ready nodes named gpu-1, gpu-2, … in two zones, tainted as cloud providers do it."""
    if not machine.is_alive("kwok"):
        _start_kwok(machine, programs)
    names = [f"gpu-{number}" for number in range(1, n_nodes + 1)]
    # Capacity stands in the status, which is not applied with the object: its own subresource.
    all_of_it = {
        "cpu": "64",
        "memory": "512Gi",
        "ephemeral-storage": "2Ti",
        "pods": "110",
        "nvidia.com/gpu": GPUS_PER_NODE,
    }
    capacity = json.dumps({"status": {"capacity": all_of_it, "allocatable": all_of_it}})
    kubectl.apply(*(_node(name, zone=number % 2) for number, name in enumerate(names)))
    for name in names:
        kubectl("patch", "node", name, "--subresource=status", "--type=merge", "--patch", capacity)
    nodes = [f"node/{name}" for name in names]
    ready = ("wait", *nodes, "--for=condition=Ready", "--timeout=1s")
    machine.wait(lambda: kubectl.succeeds(*ready), 60, "fake GPU nodes")


def _start_kwok(machine: Machine, programs: Path) -> None:
    options: dict[str, str | Path] = {
        "config": Path(__file__).with_name("fake-nodes.yaml"),
        "kubeconfig": machine.slot.state / "admin.conf",
        "manage-all-nodes": "false",
        "manage-nodes-with-annotation-selector": f"{_ANNOTATION}=true",
        # Leases keep the nodes ready for the controllers, without a write to their status.
        "node-lease-duration-seconds": "40",
        "server-address": "127.0.0.1:10247",
    }
    machine.start("kwok", command_line(programs / "kwok", options))


def _node(name: str, *, zone: int) -> dict[str, Any]:
    labels = {
        "kubernetes.io/hostname": name,
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "topology.kubernetes.io/zone": f"zone-{zone}",
    }
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {_ANNOTATION: "true"}},
        "spec": {"taints": [taint]},
    }
