"""Import what submitting needs, so that its bytecode lies in the image: its root is read-only."""

from __future__ import annotations

# the client imports its classes when they are named
import kubernetes.config  # noqa: F401
from kubernetes.client import (  # noqa: F401
    ApiClient,
    AuthorizationV1Api,
    CoreV1Api,
    CoreV1EventList,
    CustomObjectsApi,
    V1ConfigMap,
    V1PodList,
    V1SelfSubjectAccessReview,
)

import eoray.cli.app
import eoray.cli.schedule
import eoray.config
import eoray.k8s.doctor
import eoray.k8s.job
import eoray.k8s.render
import eoray.k8s.schedule
import eoray.log

# reading a run file compiles its models and imports what its values need
config = eoray.config.parse_config(
    "version: 1\nname: warm\naoi: [14, 46, 15, 47]\ntime: 2024-01-01/2024-12-31\ntask: cube\n"
    "store: s3://warm/up\ncluster: {image: none, ray_version: 2.60.0}\n"
)
eoray.config.dump_config(config)
