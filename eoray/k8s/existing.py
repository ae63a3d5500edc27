"""A Ray cluster that stays, as a run finds it: image, Ray, size; and what must agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from eoray.errors import ConfigError

if TYPE_CHECKING:
    from eoray.config import RunConfig
    from eoray.k8s.client import Cluster

_UNITS = {"m": 1e-3, "": 1.0, "k": 1e3}


def adopt_cluster(
    cluster: Cluster, config: RunConfig, *, tell: Callable[[str], None] = lambda _: None
) -> RunConfig:
    """Fill in what a RayCluster that stays decides: image, version of Ray, tasks at once.

    Args:
        cluster: The namespace.
        config: A run; unchanged unless ``cluster.ray_cluster`` names one.
        tell: Called with what does not reach that cluster.

    Raises:
        ConfigError: There is none of this name, or the run file asks for another image or Ray.
        ClusterError: The namespace cannot be reached.
    """
    name = config.cluster.ray_cluster
    if name is None:
        return config
    found = cluster.raycluster(name)
    if found is None:
        raise ConfigError(
            f"cluster.ray_cluster: there is no RayCluster {name!r} in namespace "
            f"{cluster.namespace!r}; the chart makes one where `cluster.enabled` is true, or leave "
            "it out: the run then has a cluster of its own"
        )
    spec = found["spec"]
    image, ray = _image(spec), str(spec.get("rayVersion", ""))
    problems = [*_differences(config, name, image, ray), *_openness(spec, name)]
    if problems:
        raise ConfigError("\n".join(problems))
    if config.cluster.secrets:
        tell(
            f"cluster.secrets do not reach RayCluster {name!r}: its pods have the Secrets that it "
            "was made with"
        )
    if config.cluster.network.ca.is_given:
        tell(
            f"cluster.network.ca does not reach RayCluster {name!r}: its pods trust what they were "
            "made with; mount the certificates there"
        )
    section = config.cluster.model_copy(
        update={"image": image, "ray_version": ray or config.cluster.ray_version}
    )
    run = config.run
    if run.workers == "auto":
        run = run.model_copy(update={"workers": max(1, _cpus(spec))})
    return config.model_copy(update={"cluster": section, "run": run})


def _differences(config: RunConfig, name: str, image: str, ray: str) -> Iterator[str]:
    wanted, version = config.cluster.image, config.cluster.ray_version
    if wanted is not None and wanted != image:
        yield (
            f"cluster.image: is {wanted!r}, but RayCluster {name!r} has {image!r}; leave it out, "
            "or upgrade the cluster"
        )
    if version is not None and ray and version != ray:
        yield (
            f"cluster.ray_version: is {version!r}, but RayCluster {name!r} has {ray!r}; leave it "
            "out, or upgrade the cluster"
        )


def _openness(spec: Mapping[str, Any], name: str) -> Iterator[str]:
    if (spec.get("authOptions") or {}).get("mode") != "token":
        yield (
            f"cluster.ray_cluster: RayCluster {name!r} asks for no token, so anyone who reaches "
            "it runs code with its credentials; set authOptions.mode: token and make it anew, "
            "with KubeRay 1.6 or newer: an older one drops the field"
        )


def _image(spec: Mapping[str, Any]) -> str:
    return str(spec["headGroupSpec"]["template"]["spec"]["containers"][0]["image"])


def _cpus(spec: Mapping[str, Any]) -> int:
    """CPUs of all groups at their largest: the head's own count says nothing."""
    return sum(
        int(_group_cpu(group)) * int(group.get("maxReplicas") or group.get("replicas") or 0)
        for group in spec.get("workerGroupSpecs") or ()
    )


def _group_cpu(group: Mapping[str, Any]) -> float:
    given = (group.get("rayStartParams") or {}).get("num-cpus")
    resources = group["template"]["spec"]["containers"][0].get("resources", {})
    text = str(given or resources.get("limits", {}).get("cpu") or 1)
    number = text.rstrip("mk")
    return float(number) * _UNITS[text[len(number) :]]
