"""The ``cluster`` section: how a run is carried out on Kubernetes. It never changes results."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from eoray.config.fields import Count
from eoray.config.section import Section

NAME_PATTERN = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
"""RFC 1035 label, as Kubernetes names worker groups and namespaces."""

GROUP_PATTERN = r"^[a-z]([-a-z0-9]{0,18}[a-z0-9])?$"
"""Worker groups: short, since pods carry their name behind the run's."""

PATH_PATTERN = r"^/[^\s]*$"

OBJECT_PATTERN = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
"""DNS subdomain, as Kubernetes names ConfigMaps and Secrets."""

KEY_PATTERN = r"^[-._a-zA-Z0-9]{1,253}$"
"""A key in one of them."""

PROXY_PATTERN = r"^https?://[^/@?#\s]+/?$"

HOST_PATTERN = r"^[^,/\s]+(/[0-9]{1,3})?$"
"""A host, a domain or a network, as a list with commas holds it."""

Stage = Literal["cube", "fit", "predict", "change", "assess", "publish", "report"]

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
ObjectName = Annotated[str, Field(pattern=OBJECT_PATTERN)]
ObjectKey = Annotated[str, Field(pattern=KEY_PATTERN)]
Proxy = Annotated[str, Field(pattern=PROXY_PATTERN)]
Host = Annotated[str, Field(pattern=HOST_PATTERN)]
Positive = Annotated[float, Field(gt=0)]


class Placement(Section):
    """Which nodes pods may use."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Taints that are accepted, as Kubernetes writes them."""
    priority_class: ObjectName | None = None
    """PriorityClass of the pods; the head's should be above that of workers."""


class HeadSection(Placement):
    """The head: driver and committer. Choose nodes that are not taken away."""

    cpu: Positive = 2.0
    memory_gi: Positive = 8.0
    """Request and limit; not written, `submit` raises it where the estimate needs more."""
    price_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Of a node, in any currency."""


class WorkerGroup(Placement):
    """Pods of one kind."""

    name: Annotated[str, Field(pattern=GROUP_PATTERN)] = "readers"
    image: str | None = None
    """Image of these pods, with the Ray and Python of the head's; none given: that of the head."""
    cpu: Positive = 4.0
    memory_gi: Positive = 16.0
    """Request and limit, shared memory included."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of each pod (nvidia.com/gpu)."""
    min: Annotated[int, Field(ge=0)] = 0
    """Pods that are kept while the run lasts."""
    max: Count = 4
    """Most pods at once; without autoscaling, their fixed number."""
    stages: tuple[Stage, ...] = ()
    """Stages that ``submit --phases`` gives these pods to; none given: all."""
    idle_seconds: Count = 60
    """A pod without work is given back after this time."""
    grace_seconds: Annotated[int, Field(ge=0, le=3600)] = 60
    """From the notice that a pod is taken away to its end: a fit saves a checkpoint meanwhile."""
    spread: bool | None = None
    """Prefer nodes with fewer of these pods; none given: those without GPUs are spread."""
    price_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Of a pod, in any currency."""

    @property
    def is_spread(self) -> bool:
        """Whether pods are to stand on many nodes: readers share each one's network."""
        return self.gpus == 0 if self.spread is None else self.spread

    @model_validator(mode="after")
    def _min_below_max(self) -> WorkerGroup:
        if self.min > self.max:
            raise ValueError(f"min {self.min} lies above max {self.max}; lower min or raise max")
        return self


class SubmitSection(Placement):
    """The small pods that submit for a schedule, or for what git holds, and wait."""

    image: str | None = None
    """An image with eoray in it, torch and Ray not needed; none given: that of the run."""
    service_account: Name = "eoray-submit"
    """Account that may submit in the namespace; the chart makes it."""


class ClaimMount(Section):
    """A volume claim that all pods see, for outputs that lie in no object store."""

    claim: Name
    """Name of the PersistentVolumeClaim."""
    path: Annotated[str, Field(pattern=PATH_PATTERN)]
    """Where pods see it."""


class CaBundle(Section):
    """Certificates in PEM that pods trust, public authorities too: they replace the image's."""

    config_map: ObjectName | None = None
    """ConfigMap of the namespace that holds them; or:"""
    secret: ObjectName | None = None
    """Secret that holds them."""
    key: ObjectKey = "ca.crt"
    """Where in it."""

    @property
    def is_given(self) -> bool:
        """Whether there are any."""
        return self.config_map is not None or self.secret is not None

    @model_validator(mode="after")
    def _one_place(self) -> CaBundle:
        if self.config_map is not None and self.secret is not None:
            raise ValueError("config_map and secret exclude each other; leave one out")
        if not self.is_given and self.key != "ca.crt":
            raise ValueError("names a key and no config_map or secret that holds it; add one")
        return self


class NetworkSection(Section):
    """How pods reach what lies outside the cluster."""

    proxy: Proxy | None = None
    """Proxy of all requests, such as ``http://proxy.example:3128``; with a password it belongs
    into a Secret (``HTTP_PROXY``, ``HTTPS_PROXY``, ``NO_PROXY`` in ``cluster.secrets``)."""
    no_proxy: tuple[Host, ...] = ()
    """Hosts, domains (``.example``) and networks (``10.0.0.0/8``) reached without it, beside
    services of the cluster and its API."""
    ca: CaBundle = CaBundle()
    """Authorities that pods trust; none given: those of the image."""

    @model_validator(mode="after")
    def _proxy_is_there(self) -> NetworkSection:
        if self.no_proxy and self.proxy is None:
            raise ValueError("no_proxy names exceptions from a proxy, and none is given; add proxy")
        return self


class ClusterSection(Section):
    """A Kubernetes cluster with the KubeRay operator."""

    context: str | None = None
    """Context of the kubeconfig; none given: the current one, or the pod's own account."""
    namespace: Name | None = None
    """Namespace of the run; none given: the context's."""
    ray_cluster: Name | None = None
    """A RayCluster that stays and carries out the run; none given: one of the run's own."""
    image: str | None = None
    """Image of head and workers, best by digest (``...@sha256:...``); groups may name others."""
    ray_version: str | None = None
    """Ray of the image; none given: that of the machine that submits."""
    pull_secrets: tuple[Name, ...] = ()
    """Secrets with which nodes pull the image."""
    service_account: Name = "eoray-ray"
    """Account of the pods; workload identity hangs on it."""
    secrets: tuple[Name, ...] = ()
    """Secrets of the namespace whose keys become environment, such as storage credentials."""
    env: dict[str, str] = Field(default_factory=dict)
    """Further environment; never a secret."""
    network: NetworkSection = NetworkSection()
    claims: tuple[ClaimMount, ...] = ()
    head: HeadSection = HeadSection()
    workers: Annotated[tuple[WorkerGroup, ...], Field(min_length=1)] = (WorkerGroup(),)
    submit: SubmitSection = SubmitSection()
    autoscale: bool = True
    """Start and end pods as there is work; needs the rights that KubeRay gives the head."""
    deadline_minutes: Annotated[int, Field(ge=2)] = 720
    """The run is ended after this time, counted from the start of its driver, which ends by itself
    a minute before."""
    start_minutes: Count = 30
    """The run is ended when its head, and ``min`` workers of each group, have not started by then.
    Workers that come with the work may wait for as long as the run may last."""
    keep_seconds: Annotated[int, Field(ge=0, le=60)] = 60
    """Pods live on for this time behind the end of a run."""
    node_linger_minutes: Annotated[int, Field(ge=0)] = 10
    """Nodes stay for this time behind their last pod, as their autoscaler is set; they are paid."""
    queue: str | None = None
    """Kueue's local queue."""
    priority: str | None = None
    """Priority class in that queue; of pods: ``priority_class`` of head and groups."""
    protect_head: bool = True
    """Let no drain of its node end the head (a PodDisruptionBudget while the run lasts)."""
    history: Count = 8
    """Newest ended attempts that are kept in the cluster, of a run and of a schedule."""

    @model_validator(mode="after")
    def _names_differ(self) -> ClusterSection:
        names = [group.name for group in self.workers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two groups of workers are called {twice[0]!r}; rename one")
        if self.ray_cluster is not None and self.queue is not None:
            raise ValueError(
                "ray_cluster and queue exclude each other, because a queue admits clusters, not "
                "runs on one that stays; leave one out"
            )
        if self.priority is not None and self.queue is None:
            raise ValueError(
                "priority is that of a queue of Kueue, and none is given; name queue, or give pods "
                "a priority_class (head and workers)"
            )
        if self.queue is not None and self.autoscale:
            raise ValueError(
                "queue and autoscale exclude each other, because Kueue admits fixed sizes; say "
                "autoscale: false"
            )
        return self
