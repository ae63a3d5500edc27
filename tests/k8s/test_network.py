"""Proxy and certificates of a run file, as pods get them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from eoray.config import RunConfig, config_key
from eoray.errors import ConfigError
from eoray.k8s.checks import check_rayjob
from eoray.k8s.client import Cluster
from eoray.k8s.network import network_environment
from eoray.k8s.rayjob import build_rayjob
from eoray.k8s.submit import plan_attempt, submit_run
from eoray.k8s.submitter import build_job, plan_submission
from tests.k8s.crds import problems
from tests.k8s.fake_api import FakeApi

PROXY = "cluster.network.proxy=http://proxy.example:3128"
AROUND = "cluster.network.no_proxy=[10.0.0.0/8, .corp.example]"
CA = "cluster.network.ca={config_map: corporate-ca}"
INSIDE = (
    "localhost,127.0.0.1,::1,.svc,.cluster.local,"
    "169.254.169.254,169.254.169.252,169.254.170.2,169.254.170.23,"
    "fd00:ec2::254,fd00:ec2::23,metadata.google.internal"
)


def pods(config: RunConfig) -> list[dict[str, Any]]:
    """Pods of head, worker, and of what submits."""
    rayjob = build_rayjob(plan_attempt(config, Path("/nowhere")), "maps")
    check_rayjob(rayjob)
    assert problems(rayjob, "rayjobs") == []
    spec = rayjob["spec"]["rayClusterSpec"]
    groups = [group["template"]["spec"] for group in spec["workerGroupSpecs"]]
    job = build_job(plan_submission(config, Path("/nowhere")), "maps")
    submits = job["spec"]["template"]["spec"]
    return [spec["headGroupSpec"]["template"]["spec"], *groups, submits]


def variables(pod: dict[str, Any]) -> dict[str, str]:
    return {e["name"]: e["value"] for e in pod["containers"][0]["env"] if "value" in e}


def test_every_pod_asks_the_proxy_for_what_lies_outside(read_config: Any) -> None:
    found = [variables(pod) for pod in pods(read_config(PROXY, AROUND))]
    assert len(found) == 3
    for env in found:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            assert env[name] == "http://proxy.example:3128"
        assert (
            env["NO_PROXY"]
            == env["no_proxy"]
            == (f"{INSIDE},$(KUBERNETES_SERVICE_HOST),10.0.0.0/8,.corp.example")
        )
        assert "SSL_CERT_FILE" not in env


@pytest.mark.parametrize(
    ("section", "source"),
    [
        (CA, {"configMap": {"name": "corporate-ca"}}),
        (
            "cluster.network.ca={secret: tls, key: bundle.pem}",
            {"secret": {"secretName": "tls"}},
        ),
    ],
)
def test_every_pod_mounts_and_trusts_the_certificates(
    read_config: Any, section: str, source: dict[str, Any]
) -> None:
    key = "bundle.pem" if "key" in section else "ca.crt"
    for pod in pods(read_config(section)):
        (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "ca"]
        (kind,) = source
        assert volume[kind] == {**source[kind], "items": [{"key": key, "path": "ca.crt"}]}
        (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "ca"]
        assert (mount["mountPath"], mount["readOnly"]) == ("/etc/eoray-ca", True)
        env = variables(pod)
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GDAL_CURL_CA_BUNDLE"):
            assert env[name] == "/etc/eoray-ca/ca.crt"
        assert "HTTPS_PROXY" not in env


def test_variables_of_the_user_win(read_config: Any) -> None:
    config = read_config(PROXY, "cluster.env={NO_PROXY: everything.example}")
    assert variables(pods(config)[0])["NO_PROXY"] == "everything.example"


def test_without_the_section_there_is_nothing_and_it_makes_no_other_run(
    config: RunConfig, read_config: Any
) -> None:
    assert network_environment(config.cluster.network) == {}
    assert all("ca" not in [v["name"] for v in pod["volumes"]] for pod in pods(config))
    assert config_key(read_config(PROXY, CA)) == config_key(config)


def test_cluster_that_stays_gets_the_proxy_for_the_job_and_no_certificates(
    api: FakeApi, cluster: Cluster, read_config: Any, folder: Path
) -> None:
    head = {"template": {"spec": {"containers": [{"image": "r/eoray@sha256:1"}]}}}
    spec = {"authOptions": {"mode": "token"}, "rayVersion": "2.60.0", "headGroupSpec": head}
    api.put("rayclusters", {"metadata": {"name": "eoray"}, "spec": spec})
    told: list[str] = []
    config = read_config("cluster={ray_cluster: eoray}", PROXY, CA)
    made = submit_run(cluster, config, folder, tell=told.append)
    sent = api.objects["rayjobs", "maps", made.name]["spec"]
    env = yaml.safe_load(sent["runtimeEnvYAML"])["env_vars"]
    # nobody fills in the address of the API there, and nobody asks it
    assert (env["HTTPS_PROXY"], env["NO_PROXY"]) == ("http://proxy.example:3128", INSIDE)
    assert "SSL_CERT_FILE" not in env
    (line,) = told
    assert line.startswith("cluster.network.ca does not reach RayCluster 'eoray'")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["cluster.network.proxy=http://ann:secret@proxy:3128"],
            "a proxy like .* without a password",
        ),
        (["cluster.network.proxy=proxy:3128"], "cluster.network.proxy: got"),
        (["cluster.network.no_proxy=[a.example]"], "none is given; add proxy"),
        ([PROXY, "cluster.network.no_proxy=['a, b']"], r"cluster.network.no_proxy\[0\]"),
        (["cluster.network.ca={key: x}"], "no config_map or secret that holds it"),
        (["cluster.network.ca={config_map: a, secret: b}"], "config_map and secret exclude"),
    ],
)
def test_what_pods_could_not_use_is_refused(
    read_config: Any, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(*overrides)
