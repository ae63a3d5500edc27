"""A stand-in for KubeRay's operator; `python -m tests.cluster.operator`.

It is no operator: it looks at all RayJobs and RayClusters once a second, one after the other, and
knows one way of submission (HTTPMode). What it does with them was read from KubeRay 1.7.0 and seen
on its real operator: the names, the pods with their start commands, the two status machines, what
it forgets and what it repeats without bound. It leaves out: the other modes of submission,
deletion rules, fault tolerance of the head, upgrades, ingresses, gang scheduling, groups of many
hosts, RayService. A test that passes with it must pass with the real program too
(EORAY_TEST_RAY_OPERATOR).
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

from tests.cluster.operator.clusters import reconcile_cluster
from tests.cluster.operator.jobs import Jobs
from tests.cluster.operator.rest import Api, ApiError

_LOOK_EACH_S = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--authority", type=Path, required=True)
    parser.add_argument("--token", type=Path, required=True)
    arguments = parser.parse_args()
    api = Api(arguments.server, arguments.authority, arguments.token.read_text().strip())
    jobs = Jobs(api)
    while True:
        look(api, jobs)
        time.sleep(_LOOK_EACH_S)


def look(api: Api, jobs: Jobs) -> None:
    """Look at everything once; what fails now is tried again the next time."""
    try:
        # jobs first: what they create is seen at once
        for job in api.list("rayjobs"):
            _try(jobs.reconcile, job)
        for cluster in api.list("rayclusters"):
            _try(lambda one: reconcile_cluster(api, one), cluster)
    except ApiError as error:
        sys.stderr.write(f"{error}\n")


def _try(step: object, one: dict[str, object]) -> None:
    try:
        step(one)  # type: ignore[operator]
    except ApiError as error:
        sys.stderr.write(f"{one['kind']} {one['metadata']['name']}: {error}\n")  # type: ignore[index]
    except Exception:  # noqa: BLE001 - one object must not stop all others
        traceback.print_exc()
    sys.stderr.flush()


main()
