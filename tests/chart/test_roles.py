"""Who may do what."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.chart.release import Manifest, Release, render

CREATE, READ, LIST = "create", {"get", "list", "watch"}, {"get", "list"}
SUBMIT = {
    "rayjobs.ray.io": {CREATE, "patch", "delete"} | READ,
    "configmaps": {CREATE, "patch"},
    "pods": READ,
    "events": READ,
    "poddisruptionbudgets.policy": {CREATE},
}
ROLES: dict[str, dict[str, set[str]]] = {
    "eoray-schedule": SUBMIT,
    "eoray-user": SUBMIT
    | {
        "rayclusters.ray.io": {"delete"} | LIST,
        "pods/log": {"get"},
        "pods/portforward": {CREATE, "get"},
        "resourcequotas": LIST,
        "cronjobs.batch": {CREATE, "patch", "delete"} | READ,
        "jobs.batch": {CREATE, "patch", "delete"} | READ,
        "poddisruptionbudgets.policy": {CREATE, "list"},
        "workloads.kueue.x-k8s.io": {"list", "patch"},
    },
    "eoray-view": {
        "rayjobs.ray.io": READ,
        "rayclusters.ray.io": READ,
        "pods": READ,
        "events": READ,
        "pods/log": {"get"},
        "resourcequotas": LIST,
        "cronjobs.batch": READ,
        "jobs.batch": READ,
    },
}
RESOURCES = [
    *sorted({resource for role in ROLES.values() for resource in role}),
    "secrets",
    "serviceaccounts",
    "serviceaccounts/token",
    "pods/exec",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "networkpolicies.networking.k8s.io",
]
VERBS = [*sorted({CREATE, "patch", "delete"} | READ), "update", "deletecollection", "*"]


def granted(role: Manifest) -> dict[str, set[str]]:
    """Verbs by ``resource.group``, of rules that hold for every name."""
    verbs: defaultdict[str, set[str]] = defaultdict(set)
    for rule in role["rules"]:
        if "resourceNames" in rule:
            continue
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                verbs[f"{resource}.{group}" if group else resource] |= set(rule["verbs"])
    return dict(verbs)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("resource", RESOURCES)
@pytest.mark.parametrize("role", ROLES)
def test_a_role_grants_exactly_its_table(
    full: Release, role: str, resource: str, verb: str
) -> None:
    allowed = verb in granted(full.one("Role", role)).get(resource, set())
    assert allowed is (verb in ROLES[role].get(resource, set()))


@pytest.mark.parametrize("role", ROLES)
def test_a_role_names_no_resource_outside_its_table(full: Release, role: str) -> None:
    assert set(granted(full.one("Role", role))) == set(ROLES[role])


def test_the_only_named_right_is_the_clusters_token(full: Release) -> None:
    named = [
        (name, rule)
        for name, role in full.named("Role").items()
        for rule in role["rules"]
        if "resourceNames" in rule
    ]
    token = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["eoray"]}
    assert named == [("eoray-user", token | {"verbs": ["get"]})]


def test_without_a_cluster_no_role_mentions_secrets(defaults: Release) -> None:
    rules = [rule for role in defaults.named("Role").values() for rule in role["rules"]]
    assert "secrets" not in {resource for rule in rules for resource in rule["resources"]}


def test_without_kueue_no_role_mentions_its_workloads(defaults: Release) -> None:
    rules = [rule for role in defaults.named("Role").values() for rule in role["rules"]]
    assert "workloads" not in {resource for rule in rules for resource in rule["resources"]}


def test_there_are_three_roles(full: Release) -> None:
    assert set(full.named("Role")) == set(ROLES)


def test_the_submit_account_schedules(defaults: Release) -> None:
    binding = defaults.one("RoleBinding", "eoray-schedule")
    assert binding["roleRef"]["name"] == "eoray-schedule"
    account = {"kind": "ServiceAccount", "name": "eoray-submit", "namespace": "maps"}
    assert binding["subjects"] == [account]


def test_users_groups_and_accounts_are_bound(full: Release) -> None:
    subjects = full.one("RoleBinding", "eoray-user")["subjects"]
    assert [(s["kind"], s["name"]) for s in subjects] == [
        ("User", "ada@example.org"),
        ("Group", "mappers"),
        ("ServiceAccount", "notebook"),
    ]


def test_readers_are_bound_to_view(full: Release) -> None:
    binding = full.one("RoleBinding", "eoray-view")
    assert (binding["roleRef"]["name"], binding["subjects"][0]["name"]) == ("eoray-view", "readers")


def test_nobody_named_means_no_binding(defaults: Release) -> None:
    assert set(defaults.named("RoleBinding")) == {"eoray-schedule"}


def test_cluster_wide_rights_are_off_by_default(defaults: Release) -> None:
    assert defaults.named("ClusterRole") == {}
    assert defaults.named("ClusterRoleBinding") == {}


def test_cluster_wide_rights_are_to_see_nodes_and_namespaces(full: Release) -> None:
    role = full.one("ClusterRole", "eoray-nodes-maps")
    assert granted(role) == {"nodes": LIST, "namespaces": LIST}


def test_ray_pods_have_no_role(full: Release) -> None:
    bindings = [*full.named("RoleBinding").values(), *full.named("ClusterRoleBinding").values()]
    assert "eoray-ray" not in {s["name"] for b in bindings for s in b["subjects"]}


@pytest.mark.parametrize("autoscaling", [True, False])
def test_rays_account_has_a_token_only_with_autoscaling(autoscaling: bool) -> None:
    account = render({"ray": {"autoscaling": autoscaling}}).one("ServiceAccount", "eoray-ray")
    assert account["automountServiceAccountToken"] is autoscaling


@pytest.mark.parametrize("account", ["eoray-ray", "eoray-submit"])
def test_accounts_carry_annotations(full: Release, account: str) -> None:
    annotations = full.one("ServiceAccount", account)["metadata"]["annotations"]
    assert (
        annotations
        == {
            "eoray-ray": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/maps"},
            "eoray-submit": {
                "iam.gke.io/gcp-service-account": "maps@example.iam.gserviceaccount.com"
            },
        }[account]
    )


def test_an_account_made_elsewhere_is_used_and_not_rendered() -> None:
    submit = {"create": False, "name": "ours"}
    release = render({"serviceAccounts": {"submit": submit}})
    assert set(release.named("ServiceAccount")) == {"eoray-ray"}
    assert release.one("RoleBinding", "eoray-schedule")["subjects"][0]["name"] == "ours"
    assert release.one("Pod", "eoray-doctor")["spec"]["serviceAccountName"] == "ours"
