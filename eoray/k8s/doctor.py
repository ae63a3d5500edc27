"""What a cluster serves, allows and lacks; every line with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from eoray.k8s.names import LIFE
from eoray.k8s.pods import GPU
from eoray.k8s.refusals import AbsentError, ForbiddenError, NotServedError

if TYPE_CHECKING:
    from eoray.k8s.client import Cluster

Verdict = Literal["ok", "warn", "bad", "unknown"]

RIGHTS = (
    ("create", "rayjobs", "ray.io"),
    ("get", "rayjobs", "ray.io"),
    ("list", "rayjobs", "ray.io"),
    ("patch", "rayjobs", "ray.io"),
    ("create", "configmaps", ""),
    ("list", "pods", ""),
    ("list", "events", ""),
)
"""(verb, resource, group) without which a run can be neither submitted nor followed."""

COMFORTS = (
    ("delete", "rayjobs", "ray.io"),
    ("get", "pods/log", ""),
    ("create", "cronjobs", "batch"),
    ("get", "pods/portforward", ""),
    ("create", "pods/portforward", ""),
    ("get", "rayclusters", "ray.io"),
    ("create", "poddisruptionbudgets", "policy"),
)
"""Rights of some verbs: ``delete`` and the pruning of old attempts, ``logs``, ``schedule``,
``connect``, and runs on a cluster that stays; and the protection of heads."""

FEATURES = {
    "authOptions": "1.6: without it Ray's ports are open to whoever reaches them",
    "preRunningDeadlineSeconds": "1.6: without it an image that never starts keeps its nodes",
}
"""Fields of the RayJob that eoray writes -> the KubeRay that brought them."""


_SEE_CLUSTER = "ask for the chart's ClusterRole (rbac.clusterRole.create); no run needs it"
_SEE_MORE = "ask for the role eoray-user of the chart; no run needs it"

UNSEEN = {
    "schema": "let somebody look who may: `kubectl get --raw /openapi/v3/apis/ray.io/v1`",
    "serviceaccounts": "let somebody look who may: `kubectl get serviceaccounts`",
    "namespaces": _SEE_CLUSTER,
    "nodes": _SEE_CLUSTER,
    "resourcequotas": _SEE_MORE,
    "poddisruptionbudgets": _SEE_MORE,
}
"""What to do where a resource may not be seen."""


_TAKEN_ON_WITHIN = timedelta(minutes=1)
"""An operator that works has said a word of a RayJob by then."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor."""

    what: str
    verdict: Verdict
    said: str
    remedy: str = ""

    def line(self) -> str:
        """The finding for a reader."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.verdict:<8} {self.what:<14} {self.said}{remedy}"


def examine(
    cluster: Cluster, *, service_account: str = "eoray-ray", now: datetime | None = None
) -> list[Finding]:
    """Ask a cluster what a run needs of it; nothing is changed.

    Args:
        cluster: The namespace that runs shall live in.
        service_account: Of Ray's pods.
        now: Moment at which ages are told; None for this one.

    Raises:
        ClusterError: Nothing answers.
    """
    version = cluster.ask("get", "version", "/version")
    findings = [Finding("kubernetes", "ok", str(version.get("gitVersion", "?")))]
    moment = now or datetime.now(UTC)
    findings += _kuberay(cluster)
    findings += _operator(cluster, moment)
    findings += _rights(cluster)
    findings += _account(cluster, service_account)
    findings += _namespace(cluster)
    findings += _quotas(cluster)
    findings += _budgets(cluster, moment)
    findings += _gpus(cluster)
    return findings


def _kuberay(cluster: Cluster) -> Iterator[Finding]:
    """KubeRay's features, read from the schema that every caller may see, as a rule."""
    try:
        schema = cluster.ask("get", "rayjobs", "/openapi/v3/apis/ray.io/v1")
    except (AbsentError, NotServedError):
        yield Finding(
            "kuberay", "bad", "ray.io/v1 is not served", "install the KubeRay operator 1.6 or newer"
        )
        return
    except ForbiddenError:
        yield Finding("kuberay", "unknown", "no right to see the API's schema", UNSEEN["schema"])
        return
    found = _field_names(schema)
    lacking = [name for name in FEATURES if name not in found]
    for name in lacking:
        yield Finding("kuberay", "bad", f"no {name}", f"upgrade to KubeRay {FEATURES[name]}")
    if not lacking:
        yield Finding("kuberay", "ok", f"ray.io/v1 with {', '.join(FEATURES)}")


def _operator(cluster: Cluster, now: datetime) -> Iterator[Finding]:
    """Whether the operator takes RayJobs on: what it has done with those that are there."""
    try:
        rayjobs = cluster.rayjobs("")
    except (ForbiddenError, NotServedError):  # told by the rights, and by the schema
        return
    silent = [job["metadata"]["name"] for job in rayjobs if _is_ignored(job, now)]
    if silent:
        yield Finding(
            "operator", "bad",
            f"it has said nothing of {', '.join(silent[:3])} for over a minute "
            f"({len(silent)} of {len(rayjobs)} RayJobs)",
            "start the KubeRay operator, or let it watch this namespace: "
            "kubectl get pods -A -l app.kubernetes.io/name=kuberay-operator",
        )  # fmt: skip
    elif taken_on := sum(map(_is_taken_on, rayjobs)):
        yield Finding("operator", "ok", f"it has taken on {taken_on} of {len(rayjobs)} RayJobs")


def _is_taken_on(rayjob: dict[str, Any]) -> bool:
    return bool((rayjob.get("status") or {}).get("jobDeploymentStatus"))


def _is_ignored(rayjob: dict[str, Any], now: datetime) -> bool:
    made = datetime.fromisoformat(rayjob["metadata"]["creationTimestamp"])
    return not _is_taken_on(rayjob) and now - made > _TAKEN_ON_WITHIN


def _field_names(schema: Any) -> set[str]:
    """Names of all properties of the RayJob's schema, at any depth."""
    found: set[str] = set()
    jobs = [
        part
        for name, part in schema.get("components", {}).get("schemas", {}).items()
        if name.endswith(".RayJob")
    ]
    waiting: list[Any] = list(jobs)
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            found |= set(part.get("properties", {}))
            waiting += part.values()
    return found


def _rights(cluster: Cluster) -> Iterator[Finding]:
    degrees: dict[Verdict, tuple[tuple[str, str, str], ...]] = {"bad": RIGHTS, "warn": COMFORTS}
    for verdict, needed in degrees.items():
        lacking = [
            f"{verb} {resource}"
            for verb, resource, group in needed
            if not cluster.may(verb, resource, group=group)
        ]
        if lacking:
            yield Finding(
                "rights",
                verdict,
                f"you may not {', '.join(lacking)} in {cluster.namespace!r}",
                "ask for the role eoray-user of the chart",
            )
        elif verdict == "bad":
            yield Finding("rights", "ok", "runs can be submitted and followed")


def _account(cluster: Cluster, name: str) -> Iterator[Finding]:
    path = f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts/{name}"
    yield from _look(
        cluster,
        "account",
        "serviceaccounts",
        path,
        lambda _: Finding("account", "ok", f"{name} is there"),
        Finding(
            "account", "bad", f"no service account {name!r}",
            "install the chart, or name another one in cluster.service_account",
        ),
    )  # fmt: skip


def _namespace(cluster: Cluster) -> Iterator[Finding]:
    def judge(found: dict[str, Any]) -> Finding:
        labels = found["metadata"].get("labels", {})
        level = labels.get("pod-security.kubernetes.io/enforce")
        if level == "restricted":
            return Finding("namespace", "ok", "enforces the restricted Pod Security standard")
        said = f"enforces {level or 'no'} Pod Security standard"
        label = "pod-security.kubernetes.io/enforce=restricted"
        return Finding("namespace", "warn", said, f"label it {label}: runs comply with it")

    yield from _look(
        cluster,
        "namespace",
        "namespaces",
        f"/api/v1/namespaces/{cluster.namespace}",
        judge,
        Finding("namespace", "bad", f"no namespace {cluster.namespace!r}", "create it"),
    )


def _quotas(cluster: Cluster) -> Iterator[Finding]:
    def judge(found: dict[str, Any]) -> Finding:
        tight = [
            f"{name}: {used} of {quota['status']['hard'][name]}"
            for quota in found["items"]
            for name, used in (quota.get("status", {}).get("used") or {}).items()
            if name == "count/rayjobs.ray.io"
        ]
        if tight:
            return Finding(
                "quota", "warn", tight[0],
                "it counts ended runs too; limit pods or requests instead",
            )  # fmt: skip
        return Finding("quota", "ok", f"{len(found['items'])} quotas, none that counts runs")

    path = f"/api/v1/namespaces/{cluster.namespace}/resourcequotas"
    yield from _look(cluster, "quota", "resourcequotas", path, judge)


def _budgets(cluster: Cluster, now: datetime) -> Iterator[Finding]:
    """Budgets that still hold a node though their run should be over."""

    def judge(found: dict[str, Any]) -> Finding:
        ours = [item for item in found["items"] if _is_ours(item)]
        old = [_run_of(item) for item in ours if _outlives(item, now)]
        if not old:
            return Finding("disruption", "ok", f"{len(ours)} heads protected, none beyond its time")
        return Finding(
            "disruption", "warn", f"{', '.join(old)} block the drain of a node beyond their time",
            "look at these runs with `eoray status`, end them with `eoray cancel`",
        )  # fmt: skip

    path = f"/apis/policy/v1/namespaces/{cluster.namespace}/poddisruptionbudgets"
    yield from _look(cluster, "disruption", "poddisruptionbudgets", path, judge)


def _is_ours(budget: dict[str, Any]) -> bool:
    return LIFE in budget["metadata"].get("annotations", {})


def _run_of(budget: dict[str, Any]) -> str:
    """The attempt that owns a budget: what the remedy's verbs know."""
    metadata = budget["metadata"]
    owners = metadata.get("ownerReferences") or [metadata]
    return str(owners[0]["name"])


def _outlives(budget: dict[str, Any], now: datetime) -> bool:
    """Whether a budget holds a pod after the time that its run may last."""
    metadata = budget["metadata"]
    begun = datetime.fromisoformat(metadata["creationTimestamp"])
    over = (now - begun).total_seconds() > float(metadata["annotations"][LIFE])
    return over and bool((budget.get("status") or {}).get("currentHealthy", 0))


def _gpus(cluster: Cluster) -> Iterator[Finding]:
    def judge(found: dict[str, Any]) -> Finding:
        counts = [int(node["status"].get("allocatable", {}).get(GPU, 0)) for node in found["items"]]
        with_gpu = sum(count > 0 for count in counts)
        said = f"{len(counts)} nodes, {with_gpu} of them with {sum(counts)} GPUs"
        return Finding("nodes", "ok", said)

    yield from _look(cluster, "nodes", "nodes", "/api/v1/nodes", judge)


def _look(
    cluster: Cluster,
    what: str,
    resource: str,
    path: str,
    judge: Any,
    absent: Finding | None = None,
) -> Iterator[Finding]:
    """Judge an object; a missing right is no fault of the cluster."""
    try:
        yield judge(cluster.ask("get", resource, path))
    except ForbiddenError:
        yield Finding(what, "unknown", f"no right to see {resource}", UNSEEN[resource])
    except AbsentError:
        if absent is None:
            raise
        yield absent
