"""What pods do before they are taken away: preStop hooks, plain shell, no rights, no network.

The kubelet runs them in the Ray container before its SIGTERM, whoever deletes the pod: a suspended
or deleted RayJob, Kueue, a drained node, a spot notice that the cloud turns into a drain. So a
run is asked to stop without Ray's token, and without a right that ``cancel`` would need; an
annotation or ConfigMap would reach the driver a minute late, by the kubelet's next sync.

The other sides are ``eoray.run.pod`` (the driver) and ``eoray.train.notice`` (a fit).
"""

from __future__ import annotations

from typing import Any

POD_FOLDER = "/tmp/eoray"  # noqa: S108 - an emptyDir of the pod
"""Where hooks and processes of a pod meet."""

DRIVER_STOP_S = 60
"""A driver gets this long to commit or drop its wave and to give its lease back."""

RAY_STOP_S = 10
"""Ray's own end behind the hook, within the pod's grace."""

HEAD_GRACE_S = DRIVER_STOP_S + RAY_STOP_S + 5

_STOP_DRIVER = """\
cd "$EORAY_POD_FOLDER" 2>/dev/null && pid=$(cat driver.pid 2>/dev/null) || exit 0
touch ending
kill -TERM "$pid" 2>/dev/null || exit 0
left=$1
while [ "$left" -gt 0 ] && [ -e driver.pid ] && kill -0 "$pid" 2>/dev/null; do
  sleep 1; left=$((left - 1))
done
exit 0
"""

_SAVE_FIT = """\
mkdir -p "$EORAY_POD_FOLDER/fit" && cd "$EORAY_POD_FOLDER" || exit 0
echo "$2" > notice.new && mv notice.new notice
left=$1
while [ "$left" -gt 0 ]; do
  at_work=
  for file in fit/*; do kill -0 "${file##*/}" 2>/dev/null && at_work=$file; done
  [ -n "$at_work" ] || exit 0
  sleep 1; left=$((left - 1))
done
exit 0
"""


def stop_driver(seconds: int = DRIVER_STOP_S) -> dict[str, Any]:
    """The head's hook: ask the driver to stop, and wait until it has."""
    return _hook(_STOP_DRIVER, seconds)


def save_fit(grace_s: int) -> dict[str, Any] | None:
    """A worker's hook: let a fit save a checkpoint, where one runs in the pod.

    Args:
        grace_s: ``terminationGracePeriodSeconds`` of the pod, the hook's time included.

    Returns:
        None where nothing of the grace is left for a hook.
    """
    seconds = grace_s - RAY_STOP_S
    return _hook(_SAVE_FIT, seconds, grace_s) if seconds > 0 else None


def _hook(script: str, *seconds: int) -> dict[str, Any]:
    command = ["/bin/sh", "-c", script, "sh", *map(str, seconds)]
    return {"preStop": {"exec": {"command": command}}}
