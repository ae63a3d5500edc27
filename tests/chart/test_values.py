"""Wrong values are refused before anything is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from eoray.errors import ConfigError
from eoray.k8s.cron import parse_cron
from tests.chart.release import CHART, Manifest, render

CRON = Path(__file__).resolve().parents[1] / "k8s" / "cron.json"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
(GROUP,) = VALUES["cluster"]["groups"]
RUN_FILE = "version: 1\ncluster: {image: maps}"
SCHEDULE = {"name": "weekly", "cron": "0 3 * * 1", "runFile": RUN_FILE}


def _objects(node: Any, at: str = "$") -> Iterator[tuple[str, Manifest]]:
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield at, node
        for key, value in node.items():
            yield from _objects(value, f"{at}.{key}")


OBJECTS = dict(_objects(SCHEMA))


@pytest.mark.parametrize("at", sorted(set(OBJECTS) - {"$.properties.global"}))
def test_the_schema_is_closed_everywhere(at: str) -> None:
    extra = OBJECTS[at].get("additionalProperties", True)
    assert extra is False or extra.get("type") == "string" or "$ref" in extra


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"clutser": {}}, "clutser"),
        ({"image": {"tags": "1"}}, "tags"),
        ({"networkPolicy": {"egress": {"dns": {"ports": 53}}}}, "ports"),
        ({"schedules": [SCHEDULE | {"timezone": "Etc/UTC"}]}, "timezone"),
        ({"cluster": {"head": {"replicas": 2}}}, "replicas"),
        ({"test": {"store": "s3://maps"}}, "store"),
        ({"submit": {"resources": {"limits": {"gpu": "1"}}}}, "gpu"),
    ],
)
def test_unknown_values_are_refused(values: Manifest, match: str) -> None:
    with pytest.raises(helm_python.HelmError, match=match):
        render(values)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"ray": {"autoscaling": "yes"}}, "ray/autoscaling"),
        ({"ray": {"version": "2.60"}}, "ray/version"),
        ({"image": {"digest": "sha256:12"}}, "image/digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "image/pullPolicy"),
        ({"networkPolicy": {"egress": {"cloud": "gce"}}}, "egress/cloud"),
        ({"networkPolicy": {"egress": {"https": ["10.0.0.0"]}}}, "egress/https/0"),
        ({"networkPolicy": {"dashboard": {"from": [{}]}}}, "dashboard/from/0"),
        ({"schedules": [SCHEDULE | {"name": "w" * 53}]}, "schedules/0/name"),
        ({"schedules": [SCHEDULE | {"cron": "0 3 * *"}]}, "schedules/0/cron"),
        ({"schedules": [SCHEDULE | {"cron": "TZ=UTC 0 3 * * 1"}]}, "schedules/0/cron"),
        ({"schedules": [SCHEDULE | {"startingDeadlineSeconds": 10}]}, "startingDeadlineSeconds"),
        ({"schedules": [SCHEDULE | {"runDeadlineSeconds": -1}]}, "runDeadlineSeconds"),
        ({"submit": {"resources": {"limits": {"memory": 5e8}}}}, "resources/limits/memory"),
        ({"cluster": {"groups": []}}, "cluster/groups"),
        ({"ray": {"env": {"AWS_SECRET_ACCESS_KEY": "x"}}}, "AWS_SECRET_ACCESS_KEY"),
        ({"submit": {"env": {"STAC_TOKEN": "x"}}}, "STAC_TOKEN"),
        ({"network": {"proxy": "http://ada:secret@proxy:3128"}}, "network/proxy"),
        ({"network": {"proxy": "proxy:3128"}}, "network/proxy"),
        ({"network": {"noProxy": ["a,b"]}}, "network/noProxy/0"),
        ({"network": {"ca": {"configMap": "Own_CA"}}}, "network/ca/configMap"),
    ],
)
def test_wrong_values_are_refused(values: Manifest, match: str) -> None:
    with pytest.raises(helm_python.HelmError, match=match):
        render(values)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (
            {"serviceAccounts": {"ray": {"name": "eoray-submit"}}},
            "serves both Ray pods and submissions",
        ),
        ({"networkPolicy": {"client": {"enabled": True}}}, "client is enabled for nobody"),
        (
            {"networkPolicy": {"client": {"enabled": True, "from": [{"namespace": "a"}]}}},
            "client is enabled without a long-lived cluster",
        ),
        ({"network": {"noProxy": [".example"]}}, "network.noProxy names exceptions from a proxy"),
        (
            {"network": {"ca": {"configMap": "own", "secret": "own"}}},
            "a ConfigMap and a Secret, and one file is trusted",
        ),
        ({"quota": {"enabled": True}}, "enabled and limits nothing"),
        (
            {"cluster": {"groups": [GROUP | {"minReplicas": 9}]}},
            'group "cpu" has minReplicas 9 above maxReplicas 4',
        ),
        ({"quota": {"hard": {"count/rayjobs.ray.io": "9"}}}, "finished runs count too"),
        ({"schedules": [SCHEDULE, SCHEDULE]}, 'two schedules are named "weekly"'),
        ({"schedules": [SCHEDULE | {"runFile": "- 1"}]}, 'schedule "weekly" is no YAML mapping'),
        ({"test": {"runFile": "- 1"}}, "test.runFile is no YAML mapping"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: Manifest, match: str) -> None:
    with pytest.raises(helm_python.HelmError, match=match):
        render(values)


@pytest.mark.parametrize("cidr", ["169.254.169.254/32", "169.254.0.0/16", "169.0.0.0/8"])
def test_extra_egress_to_metadata_addresses_is_refused(cidr: str) -> None:
    extra = [{"to": {"cidr": cidr}, "ports": [80]}]
    with pytest.raises(helm_python.HelmError, match="which holds metadata addresses"):
        render({"networkPolicy": {"egress": {"extra": extra}}})


NEVER = [
    "0 3 30 2 *", "0 3 31 4,6 *", "0 3 30,31 2 *", "0 3 31 11 *", " 0  3  31 9 * ",
    "0 3 30-31 2 *", "0 3 30/1 FEB *", "0 3 31 2-6/2 *", "0 3 31 sep,Nov ?", "0 3 31 2,4-4 */1",
    "0 3 31 4/7 *",
]  # fmt: skip
FIRES = [
    "0 3 29 2 *", "0 3 31 2,3 *", "0 3 30 2 1", "@weekly", "0 3 29-31 2 *", "0 3 30 feb-mar *",
    "0 3 31 2/3 *", "0 3 30-31 2 1-5", "0 3 31 */5 *", "0 3 ? 2 *", "0 3 30 2 */2",
]  # fmt: skip
ANSWERS: list[dict[str, str]] = json.loads(CRON.read_text())
"""What the library of Kubernetes says."""


@pytest.mark.parametrize(
    "cron", sorted({*NEVER, *(row["cron"] for row in ANSWERS if not {"ticks", "error"} & set(row))})
)
def test_expressions_that_never_fire_are_refused(cron: str) -> None:
    with pytest.raises(helm_python.HelmError, match="never fires"):
        render({"schedules": [SCHEDULE | {"cron": cron}]})


def test_expressions_that_fire_are_taken() -> None:
    crons = sorted({*FIRES, *(row["cron"] for row in ANSWERS if "ticks" in row)})
    schedules = [SCHEDULE | {"name": f"n{n}", "cron": cron} for n, cron in enumerate(crons)]
    jobs = render({"schedules": schedules}).named("CronJob")
    assert {job["spec"]["schedule"] for job in jobs.values()} == set(crons)


@pytest.mark.parametrize(("crons", "is_taken"), [(NEVER, False), (FIRES, True)])
def test_expressions_are_judged_as_by_eoray(crons: list[str], *, is_taken: bool) -> None:
    for cron in crons:
        with nullcontext() if is_taken else pytest.raises(ConfigError, match="never fires"):
            parse_cron(cron)


def test_a_chart_that_depends_on_this_one_may_hand_in_globals() -> None:
    assert render({"global": {"region": "eu"}}).objects == render().objects


def test_the_schema_knows_exactly_the_values_of_the_file() -> None:
    assert set(SCHEMA["properties"]) - {"global"} == set(VALUES)
