"""Objects that submit a run file and wait: a CronJob, or one Job, with the run file beside it.

The chart renders the same CronJob from its values; ``tests/chart/test_submitter.py`` compares them
field by field.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eoray.config import dump_config, with_absolute_paths
from eoray.config.cluster import NAME_PATTERN
from eoray.errors import ConfigError
from eoray.k8s.checks import check_rayjob
from eoray.k8s.names import PART_OF, SCHEDULE
from eoray.k8s.network import ca_volume, network_environment
from eoray.k8s.phases import to_phases
from eoray.k8s.pods import CONTAINER_SECURITY, POD_SECURITY, RUN_FOLDER
from eoray.k8s.rayjob import build_rayjob
from eoray.k8s.submit import plan_attempt

if TYPE_CHECKING:
    from eoray.config import ClusterSection, RunConfig

CONTAINER = "submit"
"""The container of the pods, which the failure policy names."""

MAX_SCHEDULE = 52
"""Of a CronJob's name: its Jobs add the scheduled minute."""

MANAGED_BY = "app.kubernetes.io/managed-by"

_SEE_END_S = 900
"""A Job lives this much longer than its run may, to see it end."""

_USER = {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000}


@dataclass(frozen=True, slots=True)
class SubmitPlan:
    """What pods shall submit: a run file as they read it, and how."""

    name: str
    """Of the schedule; of the run where there is no schedule."""
    text: str
    """The run file."""
    cluster: ClusterSection
    stages: tuple[str, ...] = ()
    lookback_days: int | None = None
    n_phases: int = 0
    """Jobs one after another; 0: one of all stages."""

    @property
    def run_file(self) -> str:
        """Name of the ConfigMap: another content is another object."""
        return f"{self.name}-run-{_digest(self.text)}"


def plan_submission(
    config: RunConfig,
    folder: Path,
    *,
    name: str | None = None,
    stages: Sequence[str] = (),
    lookback_days: int | None = None,
    phases: bool = False,
) -> SubmitPlan:
    """What pods shall submit, checked as if it were submitted now.

    Args:
        config: The run.
        folder: Where its relative paths start.
        name: Of the schedule; the run's if not given.
        stages: Some of its stages; () for all.
        lookback_days: Days of the window; None lets the record grow.
        phases: A job for each sequence of stages with the same worker groups.

    Raises:
        ConfigError: The run file cannot be carried out in pods, or not divided.
    """
    if _submit_image(config.cluster) is None:
        raise ConfigError(
            "cluster.submit.image: missing, and there is no cluster.image to take; name the image "
            "of the pods that submit"
        )
    parts = to_phases(config, stages, phases=phases)
    attempts = [plan_attempt(part.config, folder, stages=part.stages) for part in parts]
    for attempt in attempts:
        check_rayjob(build_rayjob(attempt, "default"))
    own = config.cluster.ray_cluster is None  # one that stays says itself which Ray it has
    # what holds for this machine holds in no pod: its context, and Ray as it is installed here
    there = {"context": None, "namespace": None}
    cluster = config.cluster.model_copy(
        update={**there, "ray_version": attempts[0].ray_version} if own else there
    )
    text = dump_config(with_absolute_paths(config, folder).model_copy(update={"cluster": cluster}))
    n_phases = len(parts) if phases else 0
    return SubmitPlan(name or config.name, text, cluster, tuple(stages), lookback_days, n_phases)


def check_name(name: str) -> None:
    """Refuse a name that no CronJob can have.

    Raises:
        ConfigError: It is too long, or no label.
    """
    if len(name) > MAX_SCHEDULE:
        raise ConfigError(
            f"schedule name {name!r} has {len(name)} characters, a CronJob allows {MAX_SCHEDULE}; "
            "give a shorter one with --name"
        )
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"schedule name {name!r} is no name of a Kubernetes object; with --name give one of "
            "lower-case letters, digits and dashes, a letter first"
        )


def build_cronjob(
    plan: SubmitPlan,
    namespace: str | None,
    *,
    cron: str,
    time_zone: str,
    suspend: bool = False,
    missed_s: int = 3600,
) -> dict[str, Any]:
    """The CronJob of a schedule.

    Args:
        plan: What its pods submit.
        namespace: Where it lives; None leaves that to who applies it.
        cron: When.
        time_zone: Of the hours.
        suspend: Start nothing.
        missed_s: Seconds after which a tick that could not start is given up.
    """
    job = _job_spec(plan, _schedule_env(plan.name), {SCHEDULE: plan.name})
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": _metadata(plan.name, namespace, {SCHEDULE: plan.name}),
        "spec": {
            "schedule": cron,
            "timeZone": time_zone,
            "suspend": suspend,
            "concurrencyPolicy": "Forbid",
            # without it, a hundred missed ticks stop a schedule for good
            "startingDeadlineSeconds": missed_s,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 5,
            "jobTemplate": {
                "metadata": {"labels": _labels("schedule", {SCHEDULE: plan.name})},
                "spec": job,
            },
        },
    }


def build_job(plan: SubmitPlan, namespace: str | None) -> dict[str, Any]:
    """A Job that submits once; its name tells its content, since Jobs cannot be changed."""
    spec = _job_spec(plan, [], {})
    name = f"{plan.name}-submit-{_digest(json.dumps(spec, sort_keys=True))}"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(name, namespace, {}),
        "spec": spec,
    }


def build_run_file(
    plan: SubmitPlan, namespace: str | None, *, schedule: str | None = None
) -> dict[str, Any]:
    """The ConfigMap with the run file."""
    more = {} if schedule is None else {SCHEDULE: schedule}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(plan.run_file, namespace, more),
        "immutable": True,
        "data": {"run.yaml": plan.text},
    }


def images_to_mirror(cluster: ClusterSection) -> list[str]:
    """Every image that a run of this section needs, for mirrors; those of KubeRay are its own."""
    groups = (group.image for group in cluster.workers)
    return sorted({image for image in (cluster.image, _submit_image(cluster), *groups) if image})


def _job_spec(
    plan: SubmitPlan, env: Sequence[Mapping[str, Any]], more: Mapping[str, str]
) -> dict[str, Any]:
    minutes = plan.cluster.start_minutes + plan.cluster.deadline_minutes
    return {
        "activeDeadlineSeconds": max(1, plan.n_phases) * minutes * 60 + _SEE_END_S,
        "backoffLimit": 2,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
                # 1 failed, 2 usage or run file, 5 cancelled: trying again would not mend it
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": CONTAINER,
                        "operator": "In",
                        "values": [1, 2, 5],
                    },
                },
            ]
        },
        "template": {"metadata": {"labels": _labels("submit", more)}, "spec": _pod(plan, env)},
    }


def _pod(plan: SubmitPlan, env: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cluster, submit = plan.cluster, plan.cluster.submit
    volumes, _ = ca_volume(cluster.network)
    pod: dict[str, Any] = {
        "serviceAccountName": submit.service_account,
        "automountServiceAccountToken": True,
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "imagePullSecrets": [{"name": name} for name in cluster.pull_secrets],
        "securityContext": {**POD_SECURITY, "fsGroupChangePolicy": "OnRootMismatch"},
        "nodeSelector": dict(submit.node_selector),
        "tolerations": [dict(toleration) for toleration in submit.tolerations],
        "priorityClassName": submit.priority_class,
        "containers": [_container(plan, env)],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
            {"name": "run", "configMap": {"name": plan.run_file}},
            *volumes,
        ],
    }
    given = ("imagePullSecrets", "nodeSelector", "tolerations", "priorityClassName")
    empty = [key for key in given if not pod[key]]
    return {key: value for key, value in pod.items() if key not in empty}


def _container(plan: SubmitPlan, env: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cluster = plan.cluster
    outside = network_environment(cluster.network)
    _, mounts = ca_volume(cluster.network)
    return {
        "name": CONTAINER,
        "image": _submit_image(cluster),
        "imagePullPolicy": "IfNotPresent",
        "command": _command(plan),
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the pod's own
            {"name": "EORAY_NAMESPACE", "valueFrom": _field("metadata.namespace")},
            *env,
            *({"name": name, "value": value} for name, value in sorted(outside.items())),
        ],
        "resources": {
            "requests": {"cpu": "50m", "memory": "256Mi", "ephemeral-storage": "128Mi"},
            "limits": {"cpu": "1", "memory": "512Mi", "ephemeral-storage": "256Mi"},
        },
        "securityContext": {
            **_USER,
            **CONTAINER_SECURITY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
            {"name": "run", "mountPath": RUN_FOLDER, "readOnly": True},
            *mounts,
        ],
    }


def _command(plan: SubmitPlan) -> list[str]:
    phases = ["--phases"] if plan.n_phases else []
    stages = [word for stage in plan.stages for word in ("--stage", stage)]
    days = [] if plan.lookback_days is None else ["--lookback-days", str(plan.lookback_days)]
    words = [*phases, *stages, *days]
    return ["eoray", "submit", f"{RUN_FOLDER}/run.yaml", "--wait", "--json", *words]


def _schedule_env(name: str) -> list[dict[str, Any]]:
    """The Job's name ends with the scheduled minute, from which the run computes its window."""
    label = "metadata.labels['batch.kubernetes.io/job-name']"
    return [
        {"name": "EORAY_JOB_NAME", "valueFrom": _field(label)},
        {"name": "EORAY_SCHEDULE", "value": name},
    ]


def _metadata(name: str, namespace: str | None, more: Mapping[str, str]) -> dict[str, Any]:
    component = "schedule" if SCHEDULE in more else "submit"
    labels = {**_labels(component, more), MANAGED_BY: "eoray"}
    placed = {} if namespace is None else {"namespace": namespace}
    return {"name": name, **placed, "labels": labels}


def _labels(component: str, more: Mapping[str, str]) -> dict[str, str]:
    labels = {"app.kubernetes.io/name": "eoray", PART_OF: "eoray"}
    return {**labels, "app.kubernetes.io/component": component, **more}


def _submit_image(cluster: ClusterSection) -> str | None:
    return cluster.submit.image or cluster.image


def _field(path: str) -> dict[str, Any]:
    return {"fieldRef": {"fieldPath": path}}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
