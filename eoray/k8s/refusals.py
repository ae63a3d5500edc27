"""What an API server says no to, as errors that say what to do."""

from __future__ import annotations

import json
from typing import Any

from eoray.errors import ClusterError

BUSY = frozenset({410, 429, 500, 502, 503, 504})
"""Statuses of a server that may answer later; 410, of a list that has expired, since each list of
ours begins anew."""


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


def to_error(error: Any, verb: str, resource: str, namespace: str) -> Exception:
    """The error that says what to do about an answer of the server.

    Args:
        error: The client library's ``ApiException``.
        verb: Such as ``create``.
        resource: Such as ``rayjobs``.
        namespace: Where.
    """
    said, reason = _said(error)
    where = f"{verb} {resource} in namespace {namespace!r}"
    if error.status in (401, 403):
        return _explain_right(error.status, said, verb, resource, namespace)
    if error.status == 404:
        return _explain_absence(said, reason, where, resource, namespace)
    if reason == "AlreadyExists":
        return AlreadyExistsError(f"cannot {where}: {said}; submit again to attach to it")
    if error.status in (400, 409, 413, 422):
        if "unknown field" in said and resource.startswith("ray"):
            remedy = "upgrade its KubeRay to 1.6 or newer, `eoray doctor` says what it lacks"
        else:
            remedy = "mend `cluster` in the run file"
        return RefusedError(f"the cluster refuses to {where}: {said}; {remedy}")
    kind = UnreachableError if error.status in BUSY else ClusterError
    return kind(f"the Kubernetes API failed to {where}: {error.status} {said}; try again")


def _explain_absence(
    said: str, reason: str, where: str, resource: str, namespace: str
) -> ClusterError:
    """Tell what is not there: the namespace, the object, or the kind."""
    if said.startswith("namespaces "):
        return AbsentError(
            f"there is no namespace {namespace!r} in this cluster; correct cluster.namespace, or "
            "make it by installing the chart (helm install ... --create-namespace)"
        )
    if reason == "NotFound":
        return AbsentError(f"cannot {where}: {said}")
    return NotServedError(  # the path itself is unknown, not an object
        f"this cluster serves no {resource} ({said}); install the KubeRay operator 1.6 or newer "
        "with its CRDs"
    )


def _explain_right(
    status: int, said: str, verb: str, resource: str, namespace: str
) -> ClusterError:
    """Tell a missing right from what quotas and policies refuse with the same status."""
    where = f"{verb} {resource} in namespace {namespace!r}"
    if status == 401:
        return UnknownCallerError(f"the Kubernetes API does not know you ({where}); log in again")
    if _is_admission(said):
        return RefusedError(f"the cluster refuses to {where}: {said}; ask whoever sets its limits")
    return ForbiddenError(
        f"you may not {where} ({said}); ask for the role eoray-user there, and check with: "
        f"kubectl auth can-i {verb} {resource} -n {namespace}"
    )


def _is_admission(said: str) -> bool:
    """Whether an object was refused, not its caller, who is told what he `cannot` do."""
    if "exceeded quota" in said or "violates PodSecurity" in said:
        return True
    why = said.partition('" is forbidden: ')[2]  # nothing where a right to connect is missing
    return bool(why) and " cannot " not in why


def _said(error: Any) -> tuple[str, str]:
    """(message, reason) of the server's Status object."""
    try:
        body = json.loads(error.body)
        return str(body.get("message", "")), str(body.get("reason", ""))
    except (TypeError, ValueError, AttributeError):
        return " ".join(str(error.body or error.reason).split())[:200], ""
