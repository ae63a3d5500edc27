"""What may reach whom. That a network plugin enforces it, no test here can show."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.release import PROFILES, Manifest, Release, render

OURS = {"app.kubernetes.io/part-of": "eoray"}
HEAD = OURS | {"ray.io/node-type": "head"}
CLUSTER = OURS | {"eoray.dev/cluster": "eoray"}
SUBMIT = OURS | {"app.kubernetes.io/component": "submit"}
RUN = [{"key": "eoray.dev/run", "operator": "Exists"}]
METADATA_V4 = [
    "169.254.169.254/32",
    "169.254.169.252/32",
    "169.254.170.2/32",
    "169.254.170.23/32",
    "168.63.129.16/32",
    "100.100.100.200/32",
]
METADATA_V6 = ["fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128"]
ANYWHERE = [
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": METADATA_V4}},
    {"ipBlock": {"cidr": "::/0", "except": METADATA_V6}},
]


def _spec(release: Release, name: str) -> Manifest:
    return dict(release.one("NetworkPolicy", name)["spec"])


def _tcp(*ports: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def _namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _egress(values: Manifest) -> list[Manifest]:
    release = render({"networkPolicy": {"egress": values}})
    return list(_spec(release, "eoray-egress")["egress"])


def test_our_pods_are_closed_both_ways(defaults: Release) -> None:
    assert _spec(defaults, "eoray-default-deny") == {
        "podSelector": {"matchLabels": OURS},
        "policyTypes": ["Ingress", "Egress"],
    }


def test_no_policy_selects_foreign_pods(full: Release) -> None:
    selectors = [p["spec"]["podSelector"] for p in full.named("NetworkPolicy").values()]
    assert all(s["matchLabels"]["app.kubernetes.io/part-of"] == "eoray" for s in selectors)


def test_pods_of_runs_reach_each_other_on_all_ports(defaults: Release) -> None:
    runs = {"matchLabels": OURS, "matchExpressions": RUN}
    assert _spec(defaults, "eoray-run") == {
        "podSelector": runs,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": runs}]}],
        "egress": [{"to": [{"podSelector": runs}]}],
    }


def test_pods_of_the_cluster_reach_each_other_on_all_ports(full: Release) -> None:
    cluster = {"matchLabels": CLUSTER}
    assert _spec(full, "eoray-cluster") == {
        "podSelector": cluster,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": cluster}]}],
        "egress": [{"to": [{"podSelector": cluster}]}],
    }


def test_the_operator_and_submit_pods_reach_the_dashboard(defaults: Release) -> None:
    assert _spec(defaults, "eoray-dashboard") == {
        "podSelector": {"matchLabels": HEAD},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "ports": _tcp(8265),
                "from": [_namespace("kuberay-system"), {"podSelector": {"matchLabels": SUBMIT}}],
            }
        ],
    }


def test_more_peers_may_reach_the_dashboard(full: Release) -> None:
    (rule,) = _spec(full, "eoray-dashboard")["ingress"]
    assert rule["from"][-1] == {"ipBlock": {"cidr": "10.0.0.1/32"}}


def test_the_operators_namespace_is_a_value() -> None:
    release = render({"networkPolicy": {"operatorNamespace": "operators"}})
    (rule,) = _spec(release, "eoray-dashboard")["ingress"]
    assert rule["from"][0] == _namespace("operators")


def test_metrics_are_read_from_the_monitoring_namespace(defaults: Release) -> None:
    spec = _spec(defaults, "eoray-metrics")
    assert spec["podSelector"] == {
        "matchLabels": OURS,
        "matchExpressions": [{"key": "ray.io/node-type", "operator": "Exists"}],
    }
    assert spec["ingress"] == [{"ports": _tcp(8080), "from": [_namespace("monitoring")]}]


def test_without_a_monitoring_namespace_nobody_reads_metrics() -> None:
    policies = render({"networkPolicy": {"monitoringNamespace": ""}}).named("NetworkPolicy")
    assert "eoray-metrics" not in policies


def test_the_client_port_is_closed_by_default(releases: dict[str, Release]) -> None:
    assert "eoray-client" not in releases["gpu"].named("NetworkPolicy")


def test_the_client_port_opens_for_the_named_pods_alone(full: Release) -> None:
    assert _spec(full, "eoray-client") == {
        "podSelector": {"matchLabels": CLUSTER | HEAD},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "ports": _tcp(10001),
                "from": [
                    _namespace("notebooks") | {"podSelector": {"matchLabels": {"app": "jupyter"}}}
                ],
            }
        ],
    }


def test_names_are_looked_up_in_kube_system_or_on_the_node(defaults: Release) -> None:
    rule = _spec(defaults, "eoray-egress")["egress"][0]
    assert rule == {
        "ports": [{"protocol": "UDP", "port": 53}, *_tcp(53)],
        "to": [_namespace("kube-system"), {"ipBlock": {"cidr": "169.254.20.10/32"}}],
    }


def test_https_goes_anywhere_but_to_metadata(defaults: Release) -> None:
    assert _spec(defaults, "eoray-egress")["egress"][1:] == [{"ports": _tcp(443), "to": ANYWHERE}]


def test_https_may_be_narrowed() -> None:
    rules = _egress({"https": ["10.20.0.0/16"]})
    assert rules[1:] == [{"ports": _tcp(443), "to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}]}]


def test_https_may_be_closed() -> None:
    assert len(_egress({"https": []})) == 1


@pytest.mark.parametrize(
    ("cloud", "holes"),
    [
        ("none", []),
        ("eks", [("169.254.170.23/32", 80), ("fd00:ec2::23/128", 80)]),
        ("gke", [("169.254.169.252/32", 988), ("169.254.169.254/32", 80)]),
        ("azure", []),
    ],
)
def test_a_cloud_opens_its_own_metadata_addresses(cloud: str, holes: list[tuple[str, int]]) -> None:
    expected = [{"ports": _tcp(port), "to": [{"ipBlock": {"cidr": c}}]} for c, port in holes]
    assert _egress({"cloud": cloud})[2:] == expected


def test_extra_egress_to_pods(full: Release) -> None:
    rule = _spec(full, "eoray-egress")["egress"][-2]
    minio = _namespace("minio") | {"podSelector": {"matchLabels": {"app": "minio"}}}
    assert rule == {"ports": _tcp(9000), "to": [minio]}


def test_extra_egress_anywhere_leaves_metadata_out(full: Release) -> None:
    rule = _spec(full, "eoray-egress")["egress"][-1]
    assert rule == {"ports": _tcp(80, 3128), "to": ANYWHERE[:1]}


def test_submit_pods_reach_the_api_server_and_heads(defaults: Release) -> None:
    spec = _spec(defaults, "eoray-submit")
    assert spec["podSelector"] == {"matchLabels": SUBMIT}
    assert spec["egress"] == [
        {"ports": _tcp(443, 6443), "to": ANYWHERE},
        {"ports": _tcp(8265), "to": [{"podSelector": {"matchLabels": HEAD}}]},
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_heads_of_runs_reach_the_api_server(releases: dict[str, Release], profile: str) -> None:
    spec = _spec(releases[profile], "eoray-autoscaler")
    assert spec["podSelector"] == {"matchLabels": HEAD, "matchExpressions": RUN}
    assert spec["egress"] == [{"ports": _tcp(443, 6443), "to": ANYWHERE}]


def test_heads_of_runs_may_be_kept_from_the_api_server(defaults: Release) -> None:
    closed = render({"networkPolicy": {"egress": {"apiServer": {"runs": False}}}})
    left = set(defaults.named("NetworkPolicy")) - set(closed.named("NetworkPolicy"))
    assert left == {"eoray-autoscaler"}


def test_an_autoscaling_head_that_stays_reaches_the_api_server(full: Release) -> None:
    spec = _spec(full, "eoray-cluster-autoscaler")
    assert spec["podSelector"] == {"matchLabels": CLUSTER | HEAD}
    assert spec["egress"] == [{"ports": _tcp(443, 6443), "to": ANYWHERE}]


@pytest.mark.parametrize("profile", ["defaults", "local"])  # no cluster, a fixed one
def test_without_autoscaling_no_pod_that_stays_reaches_the_api_server(
    releases: dict[str, Release], profile: str
) -> None:
    assert "eoray-cluster-autoscaler" not in releases[profile].named("NetworkPolicy")


def test_policies_can_be_left_to_others() -> None:
    assert render({"networkPolicy": {"enabled": False}}).named("NetworkPolicy") == {}
