"""The few objects of a Kubernetes API that eoray needs: plain dicts in and out, plain errors."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any

from eoray.errors import ClusterError
from eoray.k8s.calls import TIMEOUT_S, Calls, Group
from eoray.k8s.kubeconfig import ACCOUNT, default_namespace, is_pod, new_client
from eoray.k8s.rayjob import API_VERSION

if TYPE_CHECKING:
    from eoray.config import ClusterSection
    from eoray.k8s.stream import PodStream

_GROUP, _VERSION = API_VERSION.split("/")
_RAY: Group = (_GROUP, _VERSION)
_BATCH: Group = ("batch", "v1")
_RAYJOBS, _RAYCLUSTERS = "rayjobs", "rayclusters"
_KUEUE, _WORKLOADS = "kueue.x-k8s.io", "workloads"
_CRONJOBS, _JOBS = "cronjobs", "jobs"


class Cluster(Calls):
    """One namespace of a cluster."""

    def rayjobs(self, selector: str) -> list[dict[str, Any]]:
        """RayJobs with some labels, oldest first."""
        jobs = self._list(_RAYJOBS, selector, _RAY)
        return sorted(jobs, key=lambda job: job["metadata"].get("creationTimestamp", ""))

    def rayjob(self, name: str) -> dict[str, Any] | None:
        """A RayJob; None where there is none of this name."""
        return self._get(_RAYJOBS, name, _RAY)

    def create_rayjob(self, body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create a RayJob, every field checked.

        Raises:
            AlreadyExistsError: One of this name is there, ended or not.
            RefusedError: The server refuses a field, a quota, a policy.
        """
        how: dict[str, Any] = {"dry_run": "All"} if dry_run else {}
        return self._create(_RAYJOBS, body, _RAY, **how)

    def patch_rayjob(self, name: str, body: dict[str, Any]) -> None:
        """Merge some fields into a RayJob."""
        self._merge(_RAYJOBS, name, body, _RAY)

    def raycluster(self, name: str) -> dict[str, Any] | None:
        """A RayCluster; None where there is none of this name."""
        return self._get(_RAYCLUSTERS, name, _RAY)

    def delete_rayjob(self, name: str) -> bool:
        """Delete a RayJob and, by their owner, all its objects; False where there was none."""
        return self._delete(_RAYJOBS, name, _RAY)

    def delete_raycluster(self, name: str) -> bool:
        """Delete a RayCluster with its pods; False where there was none."""
        return self._delete(_RAYCLUSTERS, name, _RAY)

    def create_config_map(self, body: dict[str, Any]) -> None:
        """Create a ConfigMap.

        Raises:
            AlreadyExistsError: It is there already.
        """
        self._write(
            "create",
            "configmaps",
            lambda: self._core().create_namespaced_config_map(
                self.namespace, body, field_validation="Strict", _request_timeout=TIMEOUT_S
            ),
        )

    def own_config_map(self, name: str, owner: dict[str, Any]) -> None:
        """Let an object own a ConfigMap that is there already."""
        body = {"metadata": {"ownerReferences": [owner]}}
        self._write(
            "patch",
            "configmaps",
            lambda: self._core().patch_namespaced_config_map(
                name,
                self.namespace,
                body,
                _request_timeout=TIMEOUT_S,
                _content_type="application/merge-patch+json",
            ),
        )

    def cronjobs(self, selector: str) -> list[dict[str, Any]]:
        """CronJobs with some labels, by name."""
        jobs = self._list(_CRONJOBS, selector, _BATCH)
        return sorted(jobs, key=lambda job: str(job["metadata"]["name"]))

    def cronjob(self, name: str) -> dict[str, Any] | None:
        """A CronJob; None where there is none of this name."""
        return self._get(_CRONJOBS, name, _BATCH)

    def apply_cronjob(self, body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create a CronJob, or make the one of this name like it, every field checked.

        Raises:
            RefusedError: The server refuses a field, a quota, a policy.
        """
        how = {"field_validation": "Strict", **({"dry_run": "All"} if dry_run else {})}
        name: str = body["metadata"]["name"]
        made: dict[str, Any] | None = self._write(
            "patch",
            _CRONJOBS,
            lambda: self._custom().patch_namespaced_custom_object(
                *_BATCH,
                self.namespace,
                _CRONJOBS,
                name,
                body,
                field_manager="eoray",
                force=True,
                _request_timeout=TIMEOUT_S,
                _content_type="application/apply-patch+yaml",
                **how,
            ),
        )
        # the library reads an answer to 200, not to 201: what was created comes out as None
        return made or self.cronjob(name) or body

    def patch_cronjob(self, name: str, body: dict[str, Any]) -> None:
        """Merge some fields into a CronJob."""
        self._merge(_CRONJOBS, name, body, _BATCH, field_manager="eoray")

    def delete_cronjob(self, name: str) -> bool:
        """Delete a CronJob and, by their owner, its Jobs; False where there was none."""
        return self._delete(_CRONJOBS, name, _BATCH)

    def jobs(self, selector: str) -> list[dict[str, Any]]:
        """Jobs with some labels, oldest first."""
        jobs = self._list(_JOBS, selector, _BATCH)
        return sorted(jobs, key=lambda job: job["metadata"].get("creationTimestamp", ""))

    def create_job(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create a Job, every field checked; the server may choose the end of its name."""
        return self._create(_JOBS, body, _BATCH)

    def create_budget(self, body: dict[str, Any]) -> None:
        """Create a PodDisruptionBudget.

        Raises:
            AlreadyExistsError: It is there already.
        """
        self._write(
            "create",
            "poddisruptionbudgets",
            lambda: self._policy().create_namespaced_pod_disruption_budget(
                self.namespace, body, field_validation="Strict", _request_timeout=TIMEOUT_S
            ),
        )

    def workloads(self) -> list[dict[str, Any]]:
        """Kueue's Workloads of the namespace.

        Raises:
            NotServedError: There is no Kueue.
        """
        version = self._kueue()
        path = f"/apis/{_KUEUE}/{version}/namespaces/{self.namespace}/{_WORKLOADS}"
        found: list[dict[str, Any]] = self.ask("list", _WORKLOADS, path)["items"]
        return found

    def patch_workload(self, name: str, body: dict[str, Any]) -> None:
        """Merge some fields into one of Kueue's Workloads."""
        self._merge(_WORKLOADS, name, body, (_KUEUE, self._kueue()))

    def _kueue(self) -> str:
        """The version in which Kueue's objects are served best."""
        group = self.ask("get", _WORKLOADS, f"/apis/{_KUEUE}")
        return str(group["preferredVersion"]["version"])

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Pods with some labels."""
        found = self._read(
            "list",
            "pods",
            lambda: self._core().list_namespaced_pod(
                self.namespace, label_selector=selector, _request_timeout=TIMEOUT_S
            ),
        )
        pods: list[dict[str, Any]] = self._plain(found)["items"]
        return pods

    def try_pod(self, body: dict[str, Any]) -> None:
        """Let the server check a pod, admission included, and make none.

        Raises:
            ForbiddenError: The caller may not create pods.
            RefusedError: The server refuses a field, a quota, a policy.
        """
        self._write(
            "create",
            "pods",
            lambda: self._core().create_namespaced_pod(
                self.namespace,
                body,
                dry_run="All",
                field_validation="Strict",
                _request_timeout=TIMEOUT_S,
            ),
        )

    def events(self, kind: str, name: str = "") -> list[dict[str, Any]]:
        """Events of an object, or of all objects of a kind, oldest first."""
        one = f",involvedObject.name={name}" if name else ""
        found = self._read(
            "list",
            "events",
            lambda: self._core().list_namespaced_event(
                self.namespace,
                field_selector=f"involvedObject.kind={kind}{one}",
                _request_timeout=TIMEOUT_S,
            ),
        )
        events: list[dict[str, Any]] = self._plain(found)["items"]
        return sorted(events, key=lambda event: str(event.get("lastTimestamp") or ""))

    def pod_log(self, pod: str, container: str, since_s: int | None) -> str:
        """What a container said in the last seconds, each line behind its time; None for all."""
        found = self._read(
            "get",
            "pods/log",
            lambda: self._core().read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                timestamps=True,
                since_seconds=since_s,
                _request_timeout=TIMEOUT_S,
            ),
        )
        return str(found)

    def secret(self, name: str) -> dict[str, str]:
        """Values of a Secret.

        Raises:
            AbsentError: There is none of this name.
        """
        found = self._read(
            "get",
            "secrets",
            lambda: self._core().read_namespaced_secret(
                name, self.namespace, _request_timeout=TIMEOUT_S
            ),
        )
        data = self._plain(found).get("data") or {}
        return {key: b64decode(value).decode() for key, value in data.items()}

    def dial(self, pod: str, port: int) -> PodStream:
        """Open a connection to a port of a pod, through the API server.

        Raises:
            ForbiddenError: The caller may not forward ports.
            ClusterError: The pod is gone, or the connection broke.
        """
        from eoray.k8s.stream import open_stream

        def call() -> PodStream:
            api = self._client()
            path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/portforward"
            _, url, headers, *_ = api.param_serialize(
                "GET", path, query_params=[("ports", str(port))], auth_settings=["BearerToken"]
            )
            return open_stream(api.configuration, url, headers, port)

        # the handshake is a GET; newer servers ask for the right to create as well
        stream: PodStream = self._read("get", "pods/portforward", call)
        return stream

    def may(self, verb: str, resource: str, *, group: str = "", name: str = "") -> bool:
        """Whether the caller has a right in the namespace.

        Args:
            verb: Such as ``create``.
            resource: Such as ``rayjobs`` or ``pods/log``.
            group: API group; "" is the core.
            name: Of one object; "" for any.
        """
        from kubernetes.client import AuthorizationV1Api

        plain, _, sub = resource.partition("/")
        wanted = {"namespace": self.namespace, "verb": verb, "group": group, "resource": plain}
        if sub:
            wanted["subresource"] = sub
        if name:
            wanted["name"] = name
        body: Any = {"spec": {"resourceAttributes": wanted}}
        review = self._read(
            "create",
            "selfsubjectaccessreviews",
            lambda: AuthorizationV1Api(self._client()).create_self_subject_access_review(
                body, _request_timeout=TIMEOUT_S
            ),
        )
        return bool(self._plain(review)["status"]["allowed"])


def connect(section: ClusterSection, *, in_cluster: bool = False) -> Cluster:
    """Reach the cluster of a run file: a context of the kubeconfig, or the pod's own account.

    Args:
        section: Context and namespace.
        in_cluster: Insist on the pod's own account.

    Raises:
        ClusterError: There is no kubeconfig and no account, or no such context.
    """
    if in_cluster and not is_pod():
        raise ClusterError(
            f"this is no pod with an account ({ACCOUNT} is missing); leave --in-cluster out, or "
            "give the pod automountServiceAccountToken: true"
        )
    namespace = section.namespace or default_namespace(section.context)
    return Cluster(lambda: new_client(section.context), namespace)
