"""The few calls to a Kubernetes API that eoray needs: plain dicts in and out, plain errors.

Reads are tried again when the server is busy, restarts or cuts the connection; an expired
credential is fetched anew once. Nothing that creates or changes is sent twice.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eoray.errors import ClusterError
from eoray.k8s.rayjob import API_VERSION

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from eoray.config import ClusterSection
    from eoray.k8s.stream import PodStream

_GROUP, _VERSION = API_VERSION.split("/")
_RAYJOBS, _RAYCLUSTERS = "rayjobs", "rayclusters"
_KUEUE, _WORKLOADS = "kueue.x-k8s.io", "workloads"
_CRONJOBS, _JOBS, _BATCH = "cronjobs", "jobs", ("batch", "v1")

_Group = tuple[str, str]
"""(API group, version)."""

_TIMEOUT_S = (5.0, 30.0)
"""To connect, and to wait for an answer."""

_BUSY = frozenset({429, 500, 502, 503, 504})
_TRIES = 6

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class AlreadyExistsError(ClusterError):
    """An object of this name stands there."""


class AbsentError(ClusterError):
    """There is no object of this name."""


class ForbiddenError(ClusterError):
    """The caller has no right to this."""


class UnknownCallerError(ClusterError):
    """The server does not know the caller: a credential has expired."""


class UnreachableError(ClusterError):
    """The server does not answer, or only that it cannot now."""


class RefusedError(ClusterError):
    """The server refuses what it was given."""


class NotServedError(ClusterError):
    """The server knows no objects of this kind."""


class Cluster:
    """One namespace of a cluster."""

    def __init__(
        self,
        connect: Callable[[], ApiClient],
        namespace: str,
        *,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Keep how to reach it; nothing is asked yet.

        Args:
            connect: Makes a client with fresh credentials.
            namespace: Of all objects.
            wait: Called with seconds between attempts.
        """
        self.namespace = namespace
        self._connect, self._wait = connect, wait
        self._api: ApiClient | None = None

    def rayjobs(self, selector: str) -> list[dict[str, Any]]:
        """RayJobs with some labels, oldest first."""
        found = self._read("list", _RAYJOBS, lambda: self._list(_RAYJOBS, selector))
        jobs: list[dict[str, Any]] = found["items"]
        return sorted(jobs, key=lambda job: job["metadata"].get("creationTimestamp", ""))

    def rayjob(self, name: str) -> dict[str, Any] | None:
        """A RayJob; None where there is none of this name."""
        return self._get(_RAYJOBS, name)

    def create_rayjob(self, body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create a RayJob, every field checked.

        Raises:
            AlreadyExistsError: One of this name is there, ended or not.
            RefusedError: The server refuses a field, a quota, a policy.
        """
        how: dict[str, Any] = {"dry_run": "All"} if dry_run else {}
        return self._create(_RAYJOBS, body, **how)

    def patch_rayjob(self, name: str, body: dict[str, Any]) -> None:
        """Merge some fields into a RayJob."""
        self._merge(_RAYJOBS, name, body)

    def raycluster(self, name: str) -> dict[str, Any] | None:
        """A RayCluster; None where there is none of this name."""
        return self._get(_RAYCLUSTERS, name)

    def delete_rayjob(self, name: str) -> bool:
        """Delete a RayJob and, by their owner, all its objects; False where there was none."""
        return self._delete(_RAYJOBS, name)

    def delete_raycluster(self, name: str) -> bool:
        """Delete a RayCluster with its pods; False where there was none."""
        return self._delete(_RAYCLUSTERS, name)

    def create_config_map(self, body: dict[str, Any]) -> None:
        """Create a ConfigMap.

        Raises:
            AlreadyExistsError: It is there already.
        """
        self._write(
            "create",
            "configmaps",
            lambda: self._core().create_namespaced_config_map(
                self.namespace, body, field_validation="Strict", _request_timeout=_TIMEOUT_S
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
                _request_timeout=_TIMEOUT_S,
                _content_type="application/merge-patch+json",
            ),
        )

    def cronjobs(self, selector: str) -> list[dict[str, Any]]:
        """CronJobs with some labels, by name."""
        found = self._read("list", _CRONJOBS, lambda: self._list(_CRONJOBS, selector, _BATCH))
        jobs: list[dict[str, Any]] = found["items"]
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
                _request_timeout=_TIMEOUT_S,
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
        found = self._read("list", _JOBS, lambda: self._list(_JOBS, selector, _BATCH))
        jobs: list[dict[str, Any]] = found["items"]
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
                self.namespace, body, field_validation="Strict", _request_timeout=_TIMEOUT_S
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
                self.namespace, label_selector=selector, _request_timeout=_TIMEOUT_S
            ),
        )
        pods: list[dict[str, Any]] = self._plain(found)["items"]
        return pods

    def events(self, kind: str, name: str = "") -> list[dict[str, Any]]:
        """Events of an object, or of all objects of a kind, oldest first."""
        one = f",involvedObject.name={name}" if name else ""
        found = self._read(
            "list",
            "events",
            lambda: self._core().list_namespaced_event(
                self.namespace,
                field_selector=f"involvedObject.kind={kind}{one}",
                _request_timeout=_TIMEOUT_S,
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
                _request_timeout=_TIMEOUT_S,
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
                name, self.namespace, _request_timeout=_TIMEOUT_S
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

    def ask(self, verb: str, resource: str, path: str) -> dict[str, Any]:
        """GET a path of the API that has no call of its own here.

        Args:
            verb: For the error, as rights are called.
            resource: As ``verb``.
            path: Absolute, such as ``/version``.
        """

        def call() -> Any:
            import json

            api = self._client()
            request = api.param_serialize(
                "GET",
                path,
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
            )
            answer = api.call_api(*request, _request_timeout=_TIMEOUT_S)
            text = answer.read().decode()
            if not 200 <= answer.status < 300:
                from kubernetes.client.exceptions import ApiException

                raise ApiException(http_resp=answer, body=text, data=None)
            return json.loads(text)

        found: dict[str, Any] = self._read(verb, resource, call)
        return found

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
                body, _request_timeout=_TIMEOUT_S
            ),
        )
        return bool(self._plain(review)["status"]["allowed"])

    def _list(self, plural: str, selector: str, group: _Group = (_GROUP, _VERSION)) -> Any:
        return self._custom().list_namespaced_custom_object(
            *group,
            self.namespace,
            plural,
            label_selector=selector,
            _request_timeout=_TIMEOUT_S,
        )

    def _get(
        self, plural: str, name: str, group: _Group = (_GROUP, _VERSION)
    ) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._read(
                "get",
                plural,
                lambda: self._custom().get_namespaced_custom_object(
                    *group, self.namespace, plural, name, _request_timeout=_TIMEOUT_S
                ),
            )
        except AbsentError:
            return None
        return found

    def _create(
        self, plural: str, body: dict[str, Any], group: _Group = (_GROUP, _VERSION), **how: Any
    ) -> dict[str, Any]:
        """Create an object, every field checked."""
        made: dict[str, Any] = self._write(
            "create",
            plural,
            lambda: self._custom().create_namespaced_custom_object(
                *group,
                self.namespace,
                plural,
                body,
                field_validation="Strict",
                _request_timeout=_TIMEOUT_S,
                **how,
            ),
        )
        return made

    def _merge(
        self,
        plural: str,
        name: str,
        body: dict[str, Any],
        group: _Group = (_GROUP, _VERSION),
        **how: Any,
    ) -> None:
        """Merge some fields into an object."""
        self._write(
            "patch",
            plural,
            lambda: self._custom().patch_namespaced_custom_object(
                *group,
                self.namespace,
                plural,
                name,
                body,
                _request_timeout=_TIMEOUT_S,
                _content_type="application/merge-patch+json",
                **how,
            ),
        )

    def _delete(self, plural: str, name: str, group: _Group = (_GROUP, _VERSION)) -> bool:
        try:
            self._write(
                "delete",
                plural,
                lambda: self._custom().delete_namespaced_custom_object(
                    *group,
                    self.namespace,
                    plural,
                    name,
                    propagation_policy="Foreground",
                    _request_timeout=_TIMEOUT_S,
                ),
            )
        except AbsentError:
            return False
        return True

    def _custom(self) -> Any:
        from kubernetes.client import CustomObjectsApi

        return CustomObjectsApi(self._client())

    def _core(self) -> Any:
        from kubernetes.client import CoreV1Api

        return CoreV1Api(self._client())

    def _policy(self) -> Any:
        from kubernetes.client import PolicyV1Api

        return PolicyV1Api(self._client())

    def _client(self) -> ApiClient:
        if self._api is None:
            self._api = self._connect()
        return self._api

    def _plain(self, model: Any) -> dict[str, Any]:
        plain: dict[str, Any] = self._client().sanitize_for_serialization(model)
        return plain

    def _write(self, verb: str, resource: str, call: Callable[[], Any]) -> Any:
        return self._call(verb, resource, call, tries=1)

    def _read(self, verb: str, resource: str, call: Callable[[], Any]) -> Any:
        return self._call(verb, resource, call, tries=_TRIES)

    def _call(self, verb: str, resource: str, call: Callable[[], Any], *, tries: int) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        renewed = False
        for attempt in range(1, tries + 2):
            try:
                return call()
            except ApiException as error:
                if error.status == 401 and not renewed:
                    self._api, renewed = None, True
                    continue
                if error.status not in _BUSY or attempt >= tries:
                    raise _explain(error, verb, resource, self.namespace) from error
                self._wait(_pause(attempt, error))
            except HTTPError as error:
                if attempt >= tries:
                    raise UnreachableError(
                        f"the Kubernetes API does not answer ({' '.join(str(error).split())[:200]})"
                        "; check the context (kubectl cluster-info) and the network"
                    ) from error
                self._wait(_pause(attempt))
        raise AssertionError  # pragma: no cover - the loop returns or raises


def is_pod() -> bool:
    """Tell whether this process runs in a pod with an account of the cluster."""
    return _ACCOUNT.exists()


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
            f"this is no pod with an account ({_ACCOUNT} is missing); leave --in-cluster out, or "
            "give the pod automountServiceAccountToken: true"
        )
    namespace = section.namespace or _default_namespace(section.context)
    return Cluster(lambda: _new_client(section.context), namespace)


def _new_client(context: str | None) -> ApiClient:
    from kubernetes import config
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration()
    configuration.retries = False
    try:
        if context is None and is_pod():
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(context=context, client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        wanted = "a kubeconfig" if context is None else f"context {context!r} of the kubeconfig"
        raise ClusterError(
            f"no Kubernetes cluster is known ({' '.join(str(error).split())[:200]}); {wanted} is "
            "needed: set KUBECONFIG, or cluster.context"
        ) from error
    return ApiClient(configuration)


def _default_namespace(context: str | None) -> str:
    from kubernetes import config

    if context is None and is_pod():
        return _ACCOUNT.read_text().strip()
    try:
        contexts, active = config.list_kube_config_contexts()
    except (config.ConfigException, OSError):
        return "default"  # reaching it will say what is missing
    chosen = next((c for c in contexts if c["name"] == context), active)
    return str(chosen["context"].get("namespace", "default"))


def _pause(attempt: int, error: Any = None) -> float:
    """Seconds until the next attempt; the server's own wish where it has one."""
    headers = getattr(error, "headers", None) or {}
    wish = str(headers.get("Retry-After", ""))
    return float(wish) if wish.isdigit() else min(8.0, 0.5 * 2 ** (attempt - 1))


def _explain(error: Any, verb: str, resource: str, namespace: str) -> Exception:
    """The error that says what to do about an answer of the server."""
    said, reason = _said(error)
    where = f"{verb} {resource} in namespace {namespace!r}"
    if error.status in (401, 403):
        return _explain_right(error.status, said, verb, resource, namespace)
    if error.status == 404 and reason == "NotFound":
        return AbsentError(f"cannot {where}: {said}")
    if error.status == 404:  # the path itself is unknown, not an object
        return NotServedError(
            f"this cluster serves no {resource} ({said}); install the KubeRay operator 1.6 or "
            "newer with its CRDs"
        )
    if reason == "AlreadyExists":
        return AlreadyExistsError(f"cannot {where}: {said}; submit again to attach to it")
    if error.status in (400, 409, 413, 422):
        return RefusedError(
            f"the cluster refuses to {where}: {said}; mend `cluster` in the run file"
        )
    kind = UnreachableError if error.status in _BUSY else ClusterError
    return kind(f"the Kubernetes API failed to {where}: {error.status} {said}; try again")


def _explain_right(
    status: int, said: str, verb: str, resource: str, namespace: str
) -> ClusterError:
    """Tell a missing right from what quotas and policies refuse with the same status."""
    where = f"{verb} {resource} in namespace {namespace!r}"
    if status == 401:
        return UnknownCallerError(f"the Kubernetes API does not know you ({where}); log in again")
    if "exceeded quota" in said or "violates PodSecurity" in said:
        return RefusedError(f"the cluster refuses to {where}: {said}; ask whoever sets its limits")
    return ForbiddenError(
        f"you may not {where} ({said}); ask for the role eoray-user there, and check with: "
        f"kubectl auth can-i {verb} {resource} -n {namespace}"
    )


def _said(error: Any) -> tuple[str, str]:
    """(message, reason) of the server's Status object."""
    import json

    try:
        body = json.loads(error.body)
        return str(body.get("message", "")), str(body.get("reason", ""))
    except (TypeError, ValueError, AttributeError):
        return " ".join(str(error.body or error.reason).split())[:200], ""
