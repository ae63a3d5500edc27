"""`python -m tests.cluster`: the test cluster by hand."""

from __future__ import annotations

import argparse
import sys
import time

from tests.cluster.cluster import Cluster
from tests.cluster.environment import eoray_images
from tests.cluster.errors import ClusterError, UnavailableError
from tests.cluster.images import python_image
from tests.cluster.operator.install import VARIABLE
from tests.cluster.programs import build_operator, build_programs
from tests.cluster.slot import Slot


def main() -> int:
    arguments = _parser().parse_args()
    began = time.monotonic()
    try:
        code = _act(arguments, Cluster.of(Slot.from_environment(arguments.slot)))
    except (ClusterError, UnavailableError) as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        print(f"{type(error).__name__}: {error}{notes}", file=sys.stderr)
        return 4 if isinstance(error, UnavailableError) else 1
    print(f"{arguments.action}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    return code


def _act(arguments: argparse.Namespace, cluster: Cluster) -> int:
    match arguments.action:
        case "build":
            print(build_programs())
        case "operator":
            print(f"export {VARIABLE}={build_operator()}")
        case "up":
            cluster.up(pods=not arguments.no_pods)
            print(f"export KUBECONFIG={cluster.kubeconfig} PATH={cluster.programs}:$PATH")
        case "down":
            cluster.down()
        case "fake-gpu-nodes":
            cluster.add_fake_gpu_nodes(arguments.count)
        case "image":
            made = [python_image()] if arguments.name == "python" else eoray_images()
            print("\n".join(f"{image} {image.stat().st_size / 1e9:.2f} GB" for image in made))
        case _:
            return _print_status(cluster)
    return 0


def _print_status(cluster: Cluster) -> int:
    for name, alive in cluster.status().items():
        print(f"{name:24} {'runs' if alive else 'ended'}")
    if not cluster.is_up(pods=False):
        print(f"slot {cluster.slot.number} is not up")
        return 1
    print(f"{'kubeconfig':24} {cluster.kubeconfig}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--slot", type=int, help="0-9, clusters side by side")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("build", help="build the programs, once a machine")
    actions.add_parser("operator", help="build KubeRay's own, for tests in place of the stand-in")
    up = actions.add_parser("up", help="control plane and a node that runs pods")
    up.add_argument("--no-pods", action="store_true", help="the control plane alone")
    actions.add_parser("down", help="remove everything")
    actions.add_parser("status", help="which programs run")
    fake = actions.add_parser("fake-gpu-nodes", help="nodes for the scheduler only, 8 GPUs each")
    fake.add_argument("count", type=int)
    image = actions.add_parser("image", help="make an image of pods")
    image.add_argument("name", choices=["python", "eoray"])
    return parser


if __name__ == "__main__":
    sys.exit(main())
