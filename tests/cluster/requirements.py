"""What the cluster needs of this machine, asked before anything is changed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.cluster.errors import UnavailableError
from tests.cluster.machine import PATH, run
from tests.cluster.programs import missing_programs, missing_tools
from tests.cluster.slot import Slot

# Command -> Debian package.
CONTROL_PLANE_TOOLS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "openssl": "openssl",
}
POD_TOOLS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "gcc": "gcc libc6-dev",
}
CNI_FOLDER = Path("/usr/lib/cni")


def check_machine(slot: Slot, programs: Path, *, pods: bool) -> None:
    """Name everything that is missing in one error.

    Raises:
        UnavailableError: Not Linux, not root, or something is not installed.
    """
    reasons = _not_this_machine() or [*_not_installed(pods=pods), *_not_built(programs)]
    if reasons:
        raise UnavailableError(f"no test cluster on this machine: {'; '.join(reasons)}")
    _check_addresses(slot)


def _not_this_machine() -> list[str]:
    if sys.platform != "linux":
        return [f"it runs {sys.platform}, not Linux"]
    if os.geteuid() != 0:
        return ["not root, which namespaces, mounts and cgroups need"]
    return []


def _not_installed(*, pods: bool) -> list[str]:
    tools = CONTROL_PLANE_TOOLS | (POD_TOOLS if pods else {})
    packages = {package for tool, package in tools.items() if not shutil.which(tool, path=PATH)}
    if pods and not (CNI_FOLDER / "bridge").exists():
        packages.add("containernetworking-plugins")
    if not packages:
        return []
    install = f"apt-get install --no-install-recommends {' '.join(sorted(packages))}"
    return [f"packages are missing (Debian: {install})"]


def _not_built(programs: Path) -> list[str]:
    if not missing_programs(programs):
        return []
    return [f"{need} to build Kubernetes" for need in missing_tools()]


def _check_addresses(slot: Slot) -> None:
    for network in (slot.link_network, slot.pods, slot.services):
        address = network.split("/")[0]
        routes = run(["ip", "-4", "route", "show", "to", "match", address]).splitlines()
        if taken := [
            route
            for route in routes
            if not route.startswith("default") and f"dev {slot.host_link}" not in route
        ]:
            raise UnavailableError(
                f"slot {slot.number} wants {network}, but this machine routes it elsewhere "
                f"({taken[0].strip()}): choose another EORAY_CLUSTER_SLOT"
            )
