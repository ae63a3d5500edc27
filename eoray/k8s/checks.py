"""What a cluster accepts in silence and would fail later: refused before anything is created.

A dry run on the server with strict validation finds misspelt fields, but no wrong values: it takes
negative deadlines, unknown modes, names that are too long, privileged templates. So KubeRay's own
checks and the rules of the *restricted* Pod Security standard are repeated here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from eoray.config import dump_config, local_paths
from eoray.errors import ConfigError
from eoray.k8s.names import MAX_NAME
from eoray.k8s.pods import POD_MOUNTS
from eoray.k8s.refusals import ForbiddenError, RefusedError
from eoray.masking import is_secret_name, is_signed

if TYPE_CHECKING:
    from pathlib import Path

    from eoray.config import ClusterSection, RunConfig
    from eoray.k8s.client import Cluster

_MOST_BYTES = 120_000


def check_run(config: RunConfig, folder: Path) -> None:
    """Refuse a run file that cannot be carried out in pods.

    Args:
        config: The run.
        folder: Where its relative paths start.

    Raises:
        ConfigError: With one line for each problem.
    """
    own = config.cluster.ray_cluster is None
    problems = [
        *(_image(config) if own else ()),
        *_paths(config, folder),
        *_claims(config),
        *_environment(config),
        *_signatures(config),
        *(_gpus(config) if own else _size(config)),
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _image(config: RunConfig) -> Iterator[str]:
    if config.cluster.image is None:
        yield (
            "cluster.image: missing; name the image of head and workers, best by digest "
            "(registry/eoray@sha256:...)"
        )


def _paths(config: RunConfig, folder: Path) -> Iterator[str]:
    roots = [claim.path.rstrip("/") + "/" for claim in config.cluster.claims]
    for key, path in local_paths(config, folder).items():
        if not any(f"{path}/".startswith(root) for root in roots):
            seen = f", or below {roots[0]}" if roots else ", or add the claim to cluster.claims"
            yield (
                f"{key}: pods do not see {path!r} of this machine; put it where they do "
                f"(s3://bucket/...{seen})"
            )


def _claims(config: RunConfig) -> Iterator[str]:
    """Paths that are taken: the server says it to those alone who may create pods."""
    taken = {"/": "the image", **dict.fromkeys(POD_MOUNTS, "each pod")}
    for number, claim in enumerate(config.cluster.claims):
        path = claim.path.rstrip("/") or "/"
        if path in taken:
            yield (
                f"cluster.claims[{number}].path: {claim.path!r} belongs to {taken[path]}; mount "
                "the claim elsewhere (/data)"
            )
        taken[path] = f"cluster.claims[{number}]"


def _environment(config: RunConfig) -> Iterator[str]:
    for name in config.cluster.env:
        if is_secret_name(name):
            yield (
                f"cluster.env.{name}: looks like a secret, and whoever may read the job would "
                "read it; put it into a Secret of the namespace and name that in cluster.secrets"
            )


def _signatures(config: RunConfig) -> Iterator[str]:
    """Links that carry a right with them, anywhere in the run file."""
    waiting: list[tuple[str, Any]] = [("", config.model_dump(mode="json"))]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{key}.{name}".lstrip("."), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{key}.{number}", inner) for number, inner in enumerate(value)]
        elif isinstance(value, str) and is_signed(value):
            yield (
                f"{key}: holds a signed link, and whoever may read the job would read it; name "
                "the plain address and give the pods an identity or a Secret (cluster.secrets)"
            )


def _gpus(config: RunConfig) -> Iterator[str]:
    wanted = sum(group.gpus * group.max for group in config.cluster.workers)
    if wanted and "deadline_minutes" not in config.cluster.model_fields_set:
        yield (
            f"cluster.deadline_minutes: missing, but up to {wanted} GPUs are asked for; say after "
            "how many minutes the run is ended"
        )


def _size(config: RunConfig) -> Iterator[str]:
    """One variable of a process has at most 128 KiB on Linux; the run file travels as one."""
    size = len(dump_config(config).encode())
    if size > _MOST_BYTES:
        yield (
            f"the run file has {size} bytes and reaches a cluster that stays as environment, which "
            f"takes {_MOST_BYTES}; put the place into a file (aoi: s3://bucket/aoi.geojson)"
        )


def check_rayjob(rayjob: Mapping[str, Any]) -> None:
    """Refuse a RayJob that KubeRay, or a namespace that enforces *restricted*, would refuse.

    Raises:
        ConfigError: With one line for each problem.
    """
    problems = [*_job_problems(rayjob), *_pod_problems(rayjob)]
    if problems:
        name = rayjob["metadata"]["name"]
        raise ConfigError("\n".join(f"RayJob {name}: {problem}" for problem in problems))


def _job_problems(rayjob: Mapping[str, Any]) -> Iterator[str]:
    name, spec = rayjob["metadata"]["name"], rayjob["spec"]
    if len(name) > MAX_NAME:
        yield f"the name has {len(name)} characters, KubeRay allows {MAX_NAME}; shorten `name`"
    if spec.get("submissionMode") != "HTTPMode":
        yield f"submissionMode is {spec.get('submissionMode')!r}; eoray follows 'HTTPMode' only"
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(key, 0) <= 0:
            yield f"{key} is {spec.get(key)!r}; give a positive number"
    if spec.get("ttlSecondsAfterFinished", 0) < 0 or spec.get("backoffLimit", 0) < 0:
        yield "ttlSecondsAfterFinished and backoffLimit must not be negative"
    if "clusterSelector" in spec:
        yield from _selector_problems(spec)
        return
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes: true"
    if spec["rayClusterSpec"].get("authOptions", {}).get("mode") != "token":
        yield "authOptions.mode is not 'token'; without it anyone who reaches the head runs code"
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        fewest, most = group["minReplicas"], group["maxReplicas"]
        if not 0 <= fewest <= group["replicas"] <= most:
            count = group["replicas"]
            yield f"group {group['groupName']}: replicas {count} not in {fewest}..{most}"


def _selector_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    """What KubeRay refuses, or would do to a cluster that is not the run's."""
    if not spec["clusterSelector"].get("ray.io/cluster"):
        yield "clusterSelector names no ray.io/cluster"
    for key in ("rayClusterSpec", "suspend", "shutdownAfterJobFinishes", "deletionStrategy",
                "ttlSecondsAfterFinished"):  # fmt: skip
        if spec.get(key):
            yield f"{key} and clusterSelector exclude each other"


def try_pods(cluster: Cluster, rayjob: Mapping[str, Any]) -> None:
    """Let the server try a pod of each template, and make none.

    A RayJob's templates are looked at by nobody when it is created; what refuses its pods later is
    only an event of its RayCluster. Who may not create pods is left with our own checks, and a
    quota that is used up now may be free when the run needs it.

    Raises:
        RefusedError: The pods' values, or a policy of the namespace, are in the way.
    """
    for name, template in _templates(rayjob).items():
        metadata = {**template["metadata"], "generateName": f"{rayjob['metadata']['name']}-"}
        try:
            cluster.try_pod({"metadata": metadata, "spec": template["spec"]})
        except ForbiddenError:
            return
        except RefusedError as error:
            if "exceeded quota" not in str(error):
                raise RefusedError(f"pods of {name}: {error}") from error


def warn_of_tag(section: ClusterSection, tell: Callable[[str], None]) -> None:
    """Say that an image, the run's or a group's, may become another one while the run lasts."""
    named = {"cluster.image": section.image}
    named |= {f"cluster.workers[{n}].image": group.image for n, group in enumerate(section.workers)}
    for key, image in named.items():
        if image is not None and "@sha256:" not in image:
            tell(
                f"{key}: {image!r} is a tag and may mean another image when a pod is made again; "
                "name it by digest (NAME@sha256:...), which `docker buildx imagetools inspect "
                f"{image}` tells"
            )


def _templates(rayjob: Mapping[str, Any]) -> dict[str, Any]:
    """Pod templates by group; none where the pods are there already."""
    if "clusterSelector" in rayjob["spec"]:
        return {}
    spec = rayjob["spec"]["rayClusterSpec"]
    groups = {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"], **groups}


def _pod_problems(rayjob: Mapping[str, Any]) -> Iterator[str]:
    for name, template in _templates(rayjob).items():
        yield from (f"pods of {name}: {problem}" for problem in _unrestricted(template["spec"]))


def _unrestricted(pod: Mapping[str, Any]) -> Iterator[str]:
    security = pod.get("securityContext", {})
    if not security.get("runAsNonRoot") or security.get("runAsUser") == 0:
        yield "may run as root; set runAsNonRoot"
    if security.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "has no seccomp profile; set RuntimeDefault"
    shared = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    if shared:
        yield f"asks for {shared[0]}"
    if any("hostPath" in volume for volume in pod.get("volumes", ())):
        yield "mounts a path of the node; use a claim"
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        yield from _unrestricted_container(container)


def _unrestricted_container(container: Mapping[str, Any]) -> Iterator[str]:
    security, name = container.get("securityContext", {}), container["name"]
    if security.get("privileged") or security.get("allowPrivilegeEscalation") is not False:
        yield f"container {name} may gain rights; set allowPrivilegeEscalation: false"
    if "ALL" not in security.get("capabilities", {}).get("drop", ()):
        yield f"container {name} keeps capabilities; drop ALL"
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        lacking = [what for what in ("cpu", "memory") if what not in resources.get(kind, {})]
        if lacking:
            yield f"container {name} has no {kind[:-1]} of {lacking[0]}; quotas refuse it"
