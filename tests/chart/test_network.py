"""Proxy and certificates of the chart's own pods: the same as in pods of a run."""

from __future__ import annotations

import pytest

from eoray.config.cluster import NetworkSection
from eoray.k8s.network import ca_volume, network_environment
from tests.chart.release import Manifest, render

PROXY = "http://proxy.example.org:3128"
EXCEPTIONS = [".example.org", "10.0.0.0/8"]
PLACES = {
    "config map": ({"configMap": "own-ca"}, {"config_map": "own-ca"}),
    "secret": ({"secret": "own-ca", "key": "pem"}, {"secret": "own-ca", "key": "pem"}),
}


def variables(container: Manifest) -> dict[str, str]:
    entries = container.get("env", [])  # the autoscaler's come from the operator
    return {entry["name"]: entry["value"] for entry in entries if "value" in entry}


@pytest.mark.parametrize("place", PLACES)
def test_every_pod_of_the_chart_has_what_pods_of_a_run_have(place: str) -> None:
    chart_ca, run_ca = PLACES[place]
    release = render(
        {
            "network": {"proxy": PROXY, "noProxy": EXCEPTIONS, "ca": chart_ca},
            "ray": {"env": {"HTTPS_PROXY": "http://other.example.org:1"}},
        },
        profile="full",
    )
    section = NetworkSection.model_validate(
        {"proxy": PROXY, "no_proxy": tuple(EXCEPTIONS), "ca": run_ca}
    )
    expected = network_environment(section)
    assert len(expected) == 12
    volumes, mounts = ca_volume(section)
    seen = 0
    for at, pod in release.pods():
        assert volumes[0] in pod["spec"]["volumes"], at
        for container in pod["spec"]["containers"]:
            if container["name"] == "autoscaler":
                continue
            seen += 1
            assert mounts[0] in container["volumeMounts"], at
            own = (
                {"HTTPS_PROXY": "http://other.example.org:1"} if "ray" in container["name"] else {}
            )
            found = variables(container)
            assert {name: found[name] for name in expected} == {**expected, **own}, at
            names = [entry["name"] for entry in container["env"]]
            assert len(names) == len(set(names)), at
    assert seen == 8


def test_without_values_nothing_is_added() -> None:
    release = render(profile="full")
    for at, container in release.containers():
        assert not {"NO_PROXY", "SSL_CERT_FILE"} & variables(container).keys(), at
    assert all("ca" not in {v["name"] for v in pod["spec"]["volumes"]} for _, pod in release.pods())
