"""The chart's roles on a real API server: every cell of the table verb x resource."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client

from tests.chart.release import render
from tests.chart.test_roles import RESOURCES, ROLES, VERBS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]


def granted(
    api: client.ApiClient, namespace: str, user: str, name: str = ""
) -> dict[str, set[str]]:
    """Verbs by resource that the server allows a user, of all that the table names.

    Args:
        api: An administrator's.
        namespace: Where.
        user: Who.
        name: Of one object; "" for any.
    """
    reviews = client.AuthorizationV1Api(api)

    def may(verb: str, resource: str) -> bool:
        plural, _, group = resource.partition(".")
        plural, _, sub = plural.partition("/")
        wanted = {"namespace": namespace, "verb": verb, "group": group, "resource": plural,
                  "subresource": sub, "name": name}  # fmt: skip
        body: Any = {"spec": {"user": user, "resourceAttributes": wanted}}
        answer = reviews.create_subject_access_review(body)
        return bool(answer.status and answer.status.allowed)

    found = {resource: {verb for verb in VERBS if may(verb, resource)} for resource in RESOURCES}
    return {resource: verbs for resource, verbs in found.items() if verbs}


def give(api: client.ApiClient, namespace: str, role: str, user: str) -> None:
    """Bind a user to a role of the chart, with all that its values can add to it."""
    rights: Any = client.RbacAuthorizationV1Api(api)
    body = render(profile="full").one("Role", role)
    body["metadata"]["namespace"] = namespace
    rights.create_namespaced_role(namespace, body)
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
    binding = {"metadata": {"name": user}, "roleRef": reference, "subjects": [subject]}
    rights.create_namespaced_role_binding(namespace, binding)


@pytest.mark.parametrize("role", ROLES)
def test_server_allows_exactly_the_table_of_a_role(
    api: client.ApiClient, namespace: str, role: str
) -> None:
    give(api, namespace, role, "ann")
    assert granted(api, namespace, "ann") == ROLES[role]
    assert granted(api, "default", "ann") == {}
    tokens = {"secrets": {"get"}} if role == "eoray-user" else {}
    assert granted(api, namespace, "ann", "eoray") == ROLES[role] | tokens
