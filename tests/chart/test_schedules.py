"""Schedules: a CronJob whose pod waits, and the run file that it submits."""

from __future__ import annotations

import helm_python
import pytest
import yaml

from eoray.config import parse_config
from eoray.k8s.phases import split_phases
from tests.chart.release import Manifest, Release, render

RUN_FILE = "version: 1\nname: weekly\ncluster: {image: maps}\n"
SCHEDULE = {"name": "weekly", "cron": "0 3 * * 1", "runFile": RUN_FILE}


def _render(**changes: object) -> Release:
    return render({"schedules": [SCHEDULE | changes]})


def _job(**changes: object) -> Manifest:
    job = _render(**changes).one("CronJob", "weekly")["spec"]["jobTemplate"]["spec"]
    return dict(job)


@pytest.fixture(scope="module")
def plain() -> Release:
    return _render()


@pytest.fixture(scope="module")
def spec(plain: Release) -> Manifest:
    return dict(plain.one("CronJob", "weekly")["spec"])


@pytest.fixture(scope="module")
def job(spec: Manifest) -> Manifest:
    return dict(spec["jobTemplate"]["spec"])


@pytest.fixture(scope="module")
def pod(job: Manifest) -> Manifest:
    return dict(job["template"]["spec"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schedule", "0 3 * * 1"),
        ("timeZone", "Etc/UTC"),
        ("suspend", False),
        ("concurrencyPolicy", "Forbid"),
        ("startingDeadlineSeconds", 3600),
        ("successfulJobsHistoryLimit", 3),
        ("failedJobsHistoryLimit", 5),
    ],
)
def test_a_schedule_has_careful_defaults(spec: Manifest, field: str, value: object) -> None:
    assert spec[field] == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeZone", "Europe/Ljubljana"),
        ("startingDeadlineSeconds", 1200000),
        ("successfulJobsHistoryLimit", 0),
    ],
)
def test_a_schedules_fields_are_values(full: Release, field: str, value: object) -> None:
    assert full.one("CronJob", "weekly-slovenia")["spec"][field] == value


def test_a_schedule_can_be_suspended(full: Release) -> None:
    assert full.one("CronJob", "paused")["spec"]["suspend"] is True


def test_a_schedule_is_labelled_with_its_name(full: Release) -> None:
    labels = full.one("CronJob", "weekly-slovenia")["metadata"]["labels"]
    assert labels["eoray.dev/schedule"] == "weekly-slovenia"


def test_jobs_and_pods_are_labelled_with_the_schedule(spec: Manifest, job: Manifest) -> None:
    assert spec["jobTemplate"]["metadata"]["labels"]["eoray.dev/schedule"] == "weekly"
    assert job["template"]["metadata"]["labels"]["eoray.dev/schedule"] == "weekly"


def test_the_pods_exit_is_the_runs(pod: Manifest) -> None:
    command = ["eoray", "submit", "/etc/eoray/run.yaml", "--wait", "--json"]
    assert pod["containers"][0]["command"][:5] == command


@pytest.mark.parametrize(
    ("cluster", "settings"),
    [
        ("{image: maps}", ["cluster.ray_version=2.60.0"]),
        ("{image: maps, ray_version: 2.59.0}", []),
        ("{ray_cluster: eoray}", []),
    ],
)
def test_the_small_image_learns_rays_version_from_the_chart(
    cluster: str, settings: list[str]
) -> None:
    (container,) = _job(runFile=f"cluster: {cluster}")["template"]["spec"]["containers"]
    assert container["command"][5:] == settings


def test_a_failed_run_is_not_started_again(job: Manifest) -> None:
    assert job["podFailurePolicy"]["rules"] == [
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "submit", "operator": "In", "values": [1, 2, 5]},
        },
    ]


def test_the_failure_policy_names_a_container_that_exists(job: Manifest, pod: Manifest) -> None:
    named = {r["onExitCodes"]["containerName"] for r in job["podFailurePolicy"]["rules"][1:]}
    assert named == {container["name"] for container in pod["containers"]}


def test_timeouts_and_outages_are_tried_twice_more(job: Manifest, pod: Manifest) -> None:
    assert job["backoffLimit"] == 2
    assert pod["restartPolicy"] == "Never"


def test_a_job_outlives_its_run_by_a_quarter_of_an_hour(full: Release) -> None:
    spec = full.one("CronJob", "weekly-slovenia")["spec"]["jobTemplate"]["spec"]
    assert spec["activeDeadlineSeconds"] == 36000 + 900


@pytest.mark.parametrize(
    ("cluster", "minutes"),
    [
        ({}, 30 + 720),
        ({"deadline_minutes": 4320}, 30 + 4320),
        ({"deadline_minutes": 60, "start_minutes": 10}, 70),
    ],
)
def test_a_job_has_the_time_that_its_run_file_says(
    cluster: dict[str, object], minutes: int
) -> None:
    job = _job(runFile=yaml.safe_dump({"cluster": {"image": "maps", **cluster}}))
    assert job["activeDeadlineSeconds"] == minutes * 60 + 900


@pytest.mark.parametrize(
    ("groups", "phases"),
    [
        ([], 1),
        ([{"name": "all"}], 1),
        ([{"name": "cpu", "stages": ["cube"]}, {"name": "gpu", "stages": ["fit", "predict"]}], 2),
        ([{"name": "cpu", "stages": ["cube", "change"]}, {"name": "gpu", "stages": ["fit"]}], 3),
    ],
)
def test_phases_have_their_time_one_after_another(groups: list[Manifest], phases: int) -> None:
    cluster = {"image": "maps", "ray_version": "2.60.0", **({"workers": groups} if groups else {})}
    run = {"name": "maps", "aoi": [14, 46, 15, 47], "time": "2024-01-01/2024-12-31",
           "task": "land-cover-change", "store": "s3://maps/maps", "fit": {"labels": "s3://maps/l"},
           "cluster": cluster}  # fmt: skip
    assert len(split_phases(parse_config(yaml.safe_dump(run)))) == phases
    job = _job(runFile=yaml.safe_dump(run), phases=True)
    assert job["activeDeadlineSeconds"] == phases * (30 + 720) * 60 + 900


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name: weekly", "has no cluster.image: name the image"),
        (f"{RUN_FILE}include: base.yaml", "includes other files, and its pod has this one alone"),
        (f"{RUN_FILE}store: out", 'pods do not see store "out"; put it where they do'),
        (f"{RUN_FILE}aoi: place.geojson", 'pods do not see aoi "place.geojson"'),
        (f"{RUN_FILE}fit: {{labels: /home/me/l.gpkg}}", 'do not see fit.labels "/home/me/l.gpkg"'),
        (
            "store: /database/out\ncluster: {image: maps, claims: [{claim: c, path: /data}]}",
            'pods do not see store "/database/out"',
        ),
    ],
)
def test_a_run_file_that_no_pod_could_submit_is_refused(text: str, match: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=match):
        _render(runFile=text)


@pytest.mark.parametrize(
    "text",
    [
        f"{RUN_FILE}store: s3://maps/weekly\naoi: [33TVM, 33TVN]",
        f"vars: {{where: 's3://maps'}}\n{RUN_FILE}store: ${{where}}\naoi: [14, 46, 15, 47]",
        "store: /data/out\ncluster: {image: maps, claims: [{claim: c, path: /data}]}",
    ],
)
def test_a_run_file_with_paths_that_pods_see_is_taken(text: str) -> None:
    assert _render(runFile=text).named("CronJob")


def test_a_job_that_would_end_before_its_run_is_refused() -> None:
    with pytest.raises(helm_python.HelmRenderError, match=r"is 3600, but .* are 45000 s together"):
        _render(runDeadlineSeconds=3600)


def test_the_pod_knows_its_job_and_schedule(pod: Manifest) -> None:
    env = {entry["name"]: entry for entry in pod["containers"][0]["env"]}
    field = "metadata.labels['batch.kubernetes.io/job-name']"
    assert env["EORAY_JOB_NAME"]["valueFrom"] == {"fieldRef": {"fieldPath": field}}
    assert env["EORAY_SCHEDULE"]["value"] == "weekly"


def test_the_run_file_is_mounted_where_it_is_read(plain: Release, pod: Manifest) -> None:
    (name,) = plain.named("ConfigMap")
    assert {"name": "run", "configMap": {"name": name}} in pod["volumes"]
    mount = {"name": "run", "mountPath": "/etc/eoray", "readOnly": True}
    assert mount in pod["containers"][0]["volumeMounts"]


@pytest.mark.parametrize(
    "text",
    [
        RUN_FILE,
        "  version: 1\n  name: indented\n  cluster: {image: maps}",
        'version: 1\nname: "{{ x }}"\ncluster: {image: maps}',
    ],
)
def test_the_run_file_arrives_as_it_was_given(text: str) -> None:
    (config,) = _render(runFile=text).named("ConfigMap").values()
    assert config["data"]["run.yaml"].rstrip() == text.rstrip()
    assert yaml.safe_load(config["data"]["run.yaml"]) == yaml.safe_load(text)


def test_the_run_file_is_immutable(plain: Release) -> None:
    (config,) = plain.named("ConfigMap").values()
    assert config["immutable"] is True


def test_a_changed_run_file_is_another_object(plain: Release) -> None:
    changed = _render(runFile=RUN_FILE.replace("weekly", "other"))
    assert set(changed.named("ConfigMap")).isdisjoint(plain.named("ConfigMap"))


def test_an_upgrade_keeps_the_run_file_of_an_unfinished_tick(plain: Release) -> None:
    (config,) = plain.named("ConfigMap").values()
    assert config["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_rollback_makes_the_run_file_that_it_goes_back_to(plain: Release) -> None:
    (config,) = plain.named("ConfigMap").values()
    hooks = config["metadata"]["annotations"]["helm.sh/hook"].split(",")
    assert hooks == ["pre-install", "pre-upgrade", "pre-rollback"]
