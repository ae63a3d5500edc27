"""RayJobs: two status machines, as KubeRay 1.7 runs them in HTTPMode."""

from __future__ import annotations

import os
import secrets
import string
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.cluster.operator.clusters import record_event
from tests.cluster.operator.pods import DASHBOARD_PORT, TOKEN_KEY, secret_name
from tests.cluster.operator.rest import Api, ApiError, ask

Object = dict[str, Any]

FINALIZER = "ray.io/rayjob-finalizer"
CHECK_TIMEOUT_S = int(os.environ.get("RAYJOB_STATUS_CHECK_TIMEOUT_SECONDS", "300"))
ASK_EACH_S = 3.0
"""KubeRay looks at a job again after this time."""

_TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")
_NOT_RETRIED = ("DeadlineExceeded", "JobStatusCheckTimeoutExceeded")
_WIPED: Object = dict.fromkeys(
    ("rayClusterStatus", "rayClusterName", "dashboardURL", "jobId", "message", "reason",
     "rayJobInfo", "jobStatusCheckFailureStartTime", "jobStatus")
)  # fmt: skip
"""What a suspended or retried RayJob loses."""


@dataclass(slots=True)
class Jobs:
    """All RayJobs of a cluster."""

    api: Api
    _asked: dict[str, float] = field(default_factory=dict)
    """Uid -> when its head was asked last."""

    def reconcile(self, job: Object) -> None:
        """Bring a RayJob one step on, at most one status at a time."""
        metadata, status = job["metadata"], job.get("status") or {}
        if "deletionTimestamp" in metadata:
            self._let_go(job)
            return
        problem = validate(job)
        if problem is not None:
            if status.get("jobDeploymentStatus") != "ValidationFailed":
                record_event(self.api, job, "InvalidRayJobSpec", problem)
                self._set(job, jobDeploymentStatus="ValidationFailed",
                          reason="ValidationFailed", message=problem)  # fmt: skip
            return
        step = {
            "": self._begin,
            "Initializing": self._initialise,
            "Running": self._run,
            "Suspending": self._suspend,
            "Retrying": self._suspend,
            "Suspended": self._resume,
            "Complete": self._shut_down,
            "Failed": self._shut_down,
        }.get(status.get("jobDeploymentStatus") or "")
        if step is not None:
            step(job)

    def _begin(self, job: Object) -> None:
        name = job["metadata"]["name"]
        finalizers = job["metadata"].get("finalizers", [])
        if FINALIZER not in finalizers:
            body = {"metadata": {"finalizers": [*finalizers, FINALIZER]}}
            self.api.patch("rayjobs", _namespace(job), name, body)
        self._set(
            job,
            jobId=f"{name}-{_five()}",
            rayClusterName=_selected(job) or f"{name}-{_five()}",
            jobStatus="",
            jobDeploymentStatus="Initializing",
            startTime=_now(),
        )

    def _initialise(self, job: Object) -> None:
        if self._is_over_before(job, "Initializing"):
            return
        cluster = self._cluster(job)
        state = (cluster.get("status") or {}).get("state")
        if state != "ready":
            self._set(job, rayClusterStatus=cluster.get("status") or {})
            return
        name, namespace = cluster["metadata"]["name"], _namespace(job)
        url = f"{name}-head-svc.{namespace}.svc.cluster.local:{DASHBOARD_PORT}"
        self._set(job, dashboardURL=url, jobDeploymentStatus="Running")

    def _run(self, job: Object) -> None:
        if self._is_over_before(job, "Running"):
            return
        uid, now = job["metadata"]["uid"], time.monotonic()
        if now - self._asked.get(uid, 0.0) < ASK_EACH_S:
            return
        self._asked[uid] = now
        cluster = self._cluster(job)
        try:
            info = self._info(job, cluster)
        except ApiError as error:
            self._note_failure(job, error)
            return
        if info is None:
            self._submit(job, cluster)
            return
        if "status" not in info:  # another document than a job's: taken as it is
            info = {"status": info.get("status", "Failure")}
        self._take(job, cluster, info)

    def _take(self, job: Object, cluster: Object, info: Mapping[str, Any]) -> None:
        word = str(info["status"])
        ended = "Failed" if word == "FAILED" else "Complete"
        self._set(
            job,
            rayClusterStatus=cluster.get("status") or {},
            jobStatus=word,
            jobDeploymentStatus=ended if word in _TERMINAL else "Running",
            reason="AppFailed" if word == "FAILED" else None,
            message=info.get("message") or "",
            rayJobInfo={
                key: _moment(float(info[name]) / 1000)
                for key, name in (("startTime", "start_time"), ("endTime", "end_time"))
                if info.get(name)
            },
            jobStatusCheckFailureStartTime=None,
        )

    def _info(self, job: Object, cluster: Object) -> Object | None:
        """What the head says of the job; None where it knows of none."""
        try:
            return self._ask(job, cluster, "GET", str(job["status"]["jobId"]))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _submit(self, job: Object, cluster: Object) -> None:
        """Submit under the same id, again and again: a new head knows of no job."""
        body = {
            "entrypoint": job["spec"]["entrypoint"],
            "submission_id": job["status"]["jobId"],
            "metadata": job["spec"].get("metadata") or {},
        }
        for key in ("entrypointNumCpus", "entrypointNumGpus"):
            if job["spec"].get(key):
                body[f"entrypoint_num_{key[-4:].lower()}"] = job["spec"][key]
        try:
            self._ask(job, cluster, "POST", "", body)
        except ApiError as error:
            self._note_failure(job, error)
        else:
            sys.stderr.write(f"submitted {body['submission_id']}\n")
            if (job.get("status") or {}).get("jobStatusCheckFailureStartTime"):
                self._set(job, jobStatusCheckFailureStartTime=None)

    def _ask(
        self, job: Object, cluster: Object, method: str, path: str, body: Object | None = None
    ) -> Object:
        address = ((cluster.get("status") or {}).get("head") or {}).get("podIP")
        if not address:
            raise ApiError(0, "there is no head")
        headers = {"Content-Type": "application/json"}
        name = secret_name(cluster)
        if name is not None:
            secret = self.api.get("secrets", _namespace(job), name)
            if secret is None:
                raise ApiError(0, f"there is no Secret {name}")
            import base64

            token = base64.b64decode(secret["data"][TOKEN_KEY]).decode()
            headers["Authorization"] = f"Bearer {token}"
        url = f"http://{address}:{DASHBOARD_PORT}/api/jobs/{path}"
        return ask(method, url, headers, body, timeout_s=2)

    def _note_failure(self, job: Object, error: ApiError) -> None:
        """Begin the time after which a head that does not answer ends the job."""
        sys.stderr.write(f"head of {job['metadata']['name']}: {error}\n")
        if not (job.get("status") or {}).get("jobStatusCheckFailureStartTime"):
            self._set(job, jobStatusCheckFailureStartTime=_now())

    def _is_over_before(self, job: Object, word: str) -> bool:
        """Look at suspension and deadlines, in KubeRay's order."""
        spec, status = job["spec"], job["status"]
        if spec.get("suspend"):
            self._set(job, jobDeploymentStatus="Suspending")
            return True
        begun, limit = _seconds(status["startTime"]), spec.get("activeDeadlineSeconds")
        said = f"StartTime: {status['startTime']}."
        if limit and time.time() >= begun + limit:
            text = f"The RayJob has passed the activeDeadlineSeconds. {said}"
            self._fail(job, "DeadlineExceeded", f"{text} ActiveDeadlineSeconds: {limit}")
            return True
        limit = spec.get("preRunningDeadlineSeconds")
        if word == "Initializing" and limit and time.time() >= begun + limit:
            text = f"The RayJob has passed the preRunningDeadlineSeconds. {said}"
            self._fail(
                job, "PreRunningDeadlineExceeded", f"{text} PreRunningDeadlineSeconds: {limit}"
            )
            return True
        since = status.get("jobStatusCheckFailureStartTime")
        if word == "Running" and since and time.time() >= _seconds(since) + CHECK_TIMEOUT_S:
            text = f"Job status checks have been failing since {since}"
            self._fail(
                job,
                "JobStatusCheckTimeoutExceeded",
                f"{text}; exceeded timeout of {CHECK_TIMEOUT_S}s",
            )
            return True
        return False

    def _fail(self, job: Object, reason: str, message: str) -> None:
        self._set(job, jobDeploymentStatus="Failed", reason=reason, message=message)

    def _suspend(self, job: Object) -> None:
        """Delete the RayCluster without asking the job, then forget all about it."""
        if not self._is_cluster_gone(job):
            return
        is_retry = job["status"]["jobDeploymentStatus"] == "Retrying"
        self._set(job, **{**_WIPED, "jobDeploymentStatus": "" if is_retry else "Suspended"})

    def _resume(self, job: Object) -> None:
        if not job["spec"].get("suspend"):
            self._set(job, jobStatus="", jobDeploymentStatus="")

    def _shut_down(self, job: Object) -> None:
        """Keep the pods of an ended job for its time, then delete them; the RayJob stays."""
        spec, status = job["spec"], job["status"]
        if _selected(job) or not spec.get("shutdownAfterJobFinishes"):
            return
        ended = _seconds(status.get("endTime") or status["startTime"])
        if time.time() >= ended + (spec.get("ttlSecondsAfterFinished") or 0):
            self._is_cluster_gone(job)

    def _let_go(self, job: Object) -> None:
        """Stop a job that runs, then remove the finalizer whatever came of it."""
        status = job.get("status") or {}
        if FINALIZER not in job["metadata"].get("finalizers", []):
            return
        cluster_name = status.get("rayClusterName")
        cluster = (
            self.api.get("rayclusters", _namespace(job), cluster_name) if cluster_name else None
        )
        if status.get("jobStatus") not in _TERMINAL and cluster is not None:
            try:
                self._ask(job, cluster, "POST", f"{status['jobId']}/stop")
            except ApiError as error:
                sys.stderr.write(f"stop of {job['metadata']['name']}: {error}\n")
        left = [each for each in job["metadata"]["finalizers"] if each != FINALIZER]
        name = job["metadata"]["name"]
        self.api.patch("rayjobs", _namespace(job), name, {"metadata": {"finalizers": left}})

    def _cluster(self, job: Object) -> Object:
        name, namespace = job["status"]["rayClusterName"], _namespace(job)
        found = self.api.get("rayclusters", namespace, name)
        if found is not None:
            return found
        if _selected(job):
            raise ApiError(404, f"there is no RayCluster {name}")
        return self.api.create("rayclusters", namespace, ray_cluster(job, name))

    def _is_cluster_gone(self, job: Object) -> bool:
        name = (job.get("status") or {}).get("rayClusterName")
        if not name or _selected(job):
            return True
        found = self.api.get("rayclusters", _namespace(job), name)
        if found is None:
            return True
        if "deletionTimestamp" not in found["metadata"]:
            self.api.delete("rayclusters", _namespace(job), name)
        return False

    def _set(self, job: Object, **values: Any) -> None:
        """Write what differs; ends and retries are counted on the way."""
        before = job.get("status") or {}
        was, word = before.get("jobDeploymentStatus"), values.get("jobDeploymentStatus")
        if word in ("Failed", "Complete") and was != word:
            values["endTime"] = _now()
            succeeded = word == "Complete" and values.get("jobStatus") == "SUCCEEDED"
            values["succeeded"] = int(before.get("succeeded") or 0) + succeeded
            values["failed"] = int(before.get("failed") or 0) + (word == "Failed")
            limit = job["spec"].get("backoffLimit") or 0
            reason = values.get("reason")
            if word == "Failed" and values["failed"] <= limit and reason not in _NOT_RETRIED:
                values["jobDeploymentStatus"] = "Retrying"
        changed = {key: value for key, value in values.items() if before.get(key) != value}
        if changed:
            name = job["metadata"]["name"]
            self.api.patch_status("rayjobs", _namespace(job), name, changed)
            if word is not None and word != was:
                sys.stderr.write(
                    f"{name}: {was or 'new'} -> {changed.get('jobDeploymentStatus')}\n"
                )


def ray_cluster(job: Object, name: str) -> Object:
    """The RayCluster of a RayJob, with its labels and annotations."""
    metadata = job["metadata"]
    labels = {
        **metadata.get("labels", {}),
        "ray.io/originated-from-cr-name": metadata["name"],
        "ray.io/originated-from-crd": "RayJob",
        "ray.io/job-submission-mode": job["spec"].get("submissionMode", ""),
    }
    owner = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": dict(metadata.get("annotations", {})),
            "ownerReferences": [owner],
        },
        "spec": job["spec"]["rayClusterSpec"],
    }


def validate(job: Object) -> str | None:
    """What KubeRay has against a RayJob, by its own rules."""
    name, spec = job["metadata"]["name"], job["spec"]
    chosen, cluster = _selected(job), spec.get("rayClusterSpec")
    rules = (
        (len(name) > 47, f"RayJob name should be no more than 47 characters, got {len(name)}"),
        (spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"),
         "a RayJob with shutdownAfterJobFinishes set to false is not allowed to be suspended"),
        (spec.get("ttlSecondsAfterFinished", 0) < 0,
         "TTLSecondsAfterFinished must be a non-negative integer"),
        (spec.get("ttlSecondsAfterFinished", 0) > 0 and not spec.get("shutdownAfterJobFinishes"),
         "a RayJob with shutdownAfterJobFinishes set to false cannot have TTLSecondsAfterFinished"),
        (spec.get("suspend") and chosen,
         "the ClusterSelector mode doesn't support the suspend operation"),
        (cluster is None and not chosen, "one of RayClusterSpec or ClusterSelector must be set"),
        (chosen and spec.get("backoffLimit", 0) > 0,
         "BackoffLimit is incompatible with ClusterSelector mode"),
        (spec.get("activeDeadlineSeconds", 1) <= 0,
         "activeDeadlineSeconds must be a positive integer"),
        (spec.get("preRunningDeadlineSeconds", 1) <= 0,
         "preRunningDeadlineSeconds must be a positive integer"),
        (spec.get("backoffLimit", 0) < 0, "backoffLimit must be a positive integer"),
    )  # fmt: skip
    return next((f"The RayJob spec is invalid: {text}" for broken, text in rules if broken), None)


def _selected(job: Object) -> str:
    """The long-lived RayCluster that a RayJob runs on, or nothing."""
    return str((job["spec"].get("clusterSelector") or {}).get("ray.io/cluster", ""))


def _namespace(job: Object) -> str:
    return str(job["metadata"]["namespace"])


def _five() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(5))


def _now() -> str:
    return _moment(time.time())


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")[:19] + "Z"


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
