"""Schedules: what is made, changed, started by hand and refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from eoray.config import RunConfig, parse_config
from eoray.errors import ClusterError, ConfigError, ConflictError
from eoray.k8s.client import Cluster
from eoray.k8s.names import run_key
from eoray.k8s.refusals import RefusedError
from eoray.k8s.schedule import Schedule, Timetable, apply_schedule, plan_schedule
from eoray.k8s.submit import submit_run
from eoray.k8s.window import Window, move_window, parse_moment
from tests.k8s.fake_api import FakeApi

MONDAYS = Timetable("0 3 * * 1")


def _apply(cluster: Cluster, config: RunConfig, **changes: Any) -> Schedule:
    when = changes.pop("when", MONDAYS)
    return apply_schedule(cluster, plan_schedule(config, Path(), when, **changes), when)


@pytest.fixture
def made(cluster: Cluster, config: RunConfig) -> Schedule:
    return _apply(cluster, config)


def _cronjob(api: FakeApi, name: str = "slovenia") -> dict[str, Any]:
    return api.objects["cronjobs", "maps", name]


def test_cronjob_is_tried_dry_then_applied_then_its_run_file(api: FakeApi, made: Schedule) -> None:
    sent = [path for method, path in api.requests if method == "PATCH"]
    assert ["dryRun=All" in path for path in sent] == [True, False]
    assert all("fieldValidation=Strict" in path and "force=true" in path for path in sent)
    assert api.written() == ["PATCH slovenia", "POST configmaps"]
    assert (made.name, made.what) == ("slovenia", "created")


def test_run_file_belongs_to_the_cronjob_and_never_changes(api: FakeApi, made: Schedule) -> None:
    (name,) = api.names("configmaps")
    run_file = api.objects["configmaps", "maps", name]
    (owner,) = run_file["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("CronJob", _cronjob(api)["metadata"]["uid"])
    assert run_file["immutable"] is True
    pod = _cronjob(api)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert {"name": "run", "configMap": {"name": name}} in pod["volumes"]


def test_scheduled_run_is_the_run_that_submitting_by_hand_asks_for(
    api: FakeApi, made: Schedule, config: RunConfig, cluster: Cluster
) -> None:
    (name,) = api.names("configmaps")
    sent = parse_config(api.objects["configmaps", "maps", name]["data"]["run.yaml"])
    window = Window(datetime(2026, 11, 16, 3, tzinfo=UTC), 21)
    by_hand = submit_run(cluster, move_window(config, window), Path())
    assert run_key(move_window(sent, window), str(sent.cluster.image)) == by_hand.key
    again = submit_run(cluster, move_window(sent, window), Path(), schedule="slovenia")
    assert (again.what, again.name) == ("attached", by_hand.name)


def test_run_file_of_a_schedule_names_nothing_of_the_machine_that_made_it(
    api: FakeApi, cluster: Cluster, read_config: Any
) -> None:
    config = read_config("cluster.context=laptop", "cluster.namespace=maps")
    _apply(cluster, config)
    (name,) = api.names("configmaps")
    section = yaml.safe_load(api.objects["configmaps", "maps", name]["data"]["run.yaml"])["cluster"]
    assert (section["context"], section["namespace"]) == (None, None)
    assert section["ray_version"] == "2.60.0"


def test_schedule_on_a_cluster_that_stays_leaves_its_ray_and_image_to_it(
    api: FakeApi, cluster: Cluster, read_config: Any
) -> None:
    stays = ("cluster.ray_cluster=eoray", "cluster.image=null", "cluster.ray_version=null")
    with pytest.raises(ConfigError, match=r"cluster\.submit\.image: missing"):
        _apply(cluster, read_config(*stays))
    _apply(cluster, read_config(*stays, "cluster.submit.image=tiny:1"))
    (name,) = api.names("configmaps")
    section = yaml.safe_load(api.objects["configmaps", "maps", name]["data"]["run.yaml"])["cluster"]
    assert (section["image"], section["ray_version"]) == (None, None)


def test_applying_again_changes_the_schedule_and_keeps_older_run_files(
    api: FakeApi, cluster: Cluster, made: Schedule, read_config: Any
) -> None:
    (older,) = api.names("configmaps")
    again = _apply(
        cluster, read_config("time=2025-01-01/2025-12-31"), when=Timetable("0 4 * * *"),
        lookback_days=7,
    )  # fmt: skip
    assert again.what == "updated"
    spec = _cronjob(api)["spec"]
    command = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert spec["schedule"] == "0 4 * * *"
    assert command[-2:] == ["--lookback-days", "7"]
    assert len(api.names("configmaps")) == 2
    assert older in api.names("configmaps")


def test_run_file_of_a_deleted_schedule_is_taken_over(
    api: FakeApi, cluster: Cluster, made: Schedule, config: RunConfig
) -> None:
    (name,) = api.names("configmaps")
    del api.objects["cronjobs", "maps", "slovenia"]
    uid = _apply(cluster, config).describe()["metadata"]["uid"]
    (owner,) = api.objects["configmaps", "maps", name]["metadata"]["ownerReferences"]
    assert owner["uid"] == uid


def test_suspended_schedule_stays_suspended_when_it_is_changed(
    api: FakeApi, cluster: Cluster, made: Schedule, config: RunConfig
) -> None:
    made.suspend()
    _apply(cluster, config)
    assert _cronjob(api)["spec"]["suspend"] is True
    made.resume()
    assert _cronjob(api)["spec"]["suspend"] is False


def test_stages_and_placement_of_the_pod_are_the_run_files(
    api: FakeApi, cluster: Cluster, read_config: Any
) -> None:
    config = read_config(
        "cluster.submit={image: tiny:1, service_account: me, node_selector: {pool: small}, "
        "tolerations: [{key: small, operator: Exists}]}",
        "cluster.pull_secrets=[mirror]",
        "cluster.deadline_minutes=60",
    )
    _apply(cluster, config, stages=("cube",), name="weekly")
    job = _cronjob(api, "weekly")["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    assert job["activeDeadlineSeconds"] == (30 + 60) * 60 + 15 * 60
    assert pod["containers"][0]["image"] == "tiny:1"
    assert pod["containers"][0]["command"][-2:] == ["--stage", "cube"]
    assert pod["serviceAccountName"] == "me"
    assert pod["nodeSelector"] == {"pool": "small"}
    assert pod["imagePullSecrets"] == [{"name": "mirror"}]


def test_first_pod_submits_with_the_image_of_the_run_where_none_is_given(
    api: FakeApi, made: Schedule, config: RunConfig
) -> None:
    pod = _cronjob(api)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == config.cluster.image


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"when": Timetable("0 3 30 2 *")}, "'0 3 30 2 .' never fires"),
        ({"when": Timetable("0 3 * *")}, "has 4 fields"),
        ({"when": Timetable("0 3 * * *", "Mars/Olympus")}, "time zone 'Mars/Olympus' is unknown"),
        ({"name": "a" * 53}, "has 53 characters, a CronJob allows 52; give a shorter one"),
        ({"name": "Weekly_1"}, "'Weekly_1' is no name .*--name"),
        ({"stages": ("paint",)}, "stage 'paint' is unknown"),
    ],
)
def test_wrong_schedule_is_refused_before_anything_is_asked(
    api: FakeApi, cluster: Cluster, config: RunConfig, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        _apply(cluster, config, **changes)
    assert api.requests == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("store=out", "pods do not see"),
        ("cluster.image=null", r"cluster\.submit\.image: missing"),
        ("time=2999-01-01/2999-12-31", "is empty, because `time` begins on 2999-01-01"),
    ],
)
def test_run_file_that_no_tick_could_submit_is_refused(
    api: FakeApi, cluster: Cluster, read_config: Any, override: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        _apply(cluster, read_config(override))
    assert api.requests == []


@pytest.mark.parametrize(
    ("labels", "error", "said"),
    [
        ({}, ConfigError, "is no schedule of eoray"),
        (
            {
                "eoray.dev/schedule": "slovenia",
                "app.kubernetes.io/managed-by": "Helm",
                "app.kubernetes.io/instance": "maps-release",
            },
            ConfigError,
            "belongs to the Helm release 'maps-release'; change `schedules`",
        ),
    ],
)
def test_cronjob_of_others_is_neither_changed_nor_deleted(
    api: FakeApi,
    cluster: Cluster,
    config: RunConfig,
    labels: dict[str, str],
    error: type[Exception],
    said: str,
) -> None:
    api.put("cronjobs", {"metadata": {"name": "slovenia", "labels": labels}, "spec": {}})
    with pytest.raises(error, match=said):
        _apply(cluster, config)
    with pytest.raises(error, match=said):
        Schedule(cluster, "slovenia").delete()
    assert api.written() == []


def test_schedule_that_is_being_deleted_is_not_changed(
    api: FakeApi, cluster: Cluster, made: Schedule, config: RunConfig
) -> None:
    _cronjob(api)["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with pytest.raises(ConflictError, match="is being deleted; try again"):
        _apply(cluster, config)


def test_refusal_of_the_server_leaves_nothing(
    api: FakeApi, cluster: Cluster, config: RunConfig
) -> None:
    api.refuse["PATCH", "cronjobs"] = (422, "spec.timeZone: Invalid value")
    with pytest.raises(RefusedError, match=r"patch cronjobs .* spec.timeZone"):
        _apply(cluster, config)
    assert api.objects == {}


def test_run_now_starts_the_run_of_the_last_tick_that_was_due(api: FakeApi, made: Schedule) -> None:
    _cronjob(api)["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    name, tick = made.run_now()
    assert datetime.now(UTC) - tick < timedelta(days=7)
    assert (tick.weekday(), tick.hour, tick.minute) == (0, 3, 0)
    job = api.objects["jobs", "maps", name]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][-2] == "--scheduled-time"
    assert parse_moment(container["command"][-1]) == tick
    assert name.startswith("slovenia-now-")
    (owner,) = job["metadata"]["ownerReferences"]
    assert owner["controller"] is True
    assert job["metadata"]["labels"]["eoray.dev/schedule"] == "slovenia"


def test_run_now_takes_the_tick_that_it_is_told(api: FakeApi, made: Schedule) -> None:
    name, _ = made.run_now(datetime(2025, 3, 3, 3, tzinfo=UTC))
    (container,) = api.objects["jobs", "maps", name]["spec"]["template"]["spec"]["containers"]
    assert container["command"][-1] == "2025-03-03T03:00Z"
    template = _cronjob(api)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert "--scheduled-time" not in template["containers"][0]["command"]


def test_run_now_refuses_a_minute_that_has_not_come(api: FakeApi, made: Schedule) -> None:
    with pytest.raises(ConfigError, match="2999-01-01T00:00Z has not come yet"):
        made.run_now(datetime(2999, 1, 1, tzinfo=UTC))
    assert api.names("jobs") == []


def test_run_now_before_the_first_tick_asks_for_one(api: FakeApi, made: Schedule) -> None:
    _cronjob(api)["metadata"]["creationTimestamp"] = "2999-01-01T00:00:00Z"
    with pytest.raises(ConfigError, match=r"was not due yet; .*--scheduled-time"):
        made.run_now()


def test_deleting_waits_until_it_is_gone(api: FakeApi, made: Schedule) -> None:
    _cronjob(api)["metadata"]["finalizers"] = ["foregroundDeletion"]
    waits: list[float] = []

    def pass_time(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            del api.objects["cronjobs", "maps", "slovenia"]

    assert made.delete(wait=pass_time) is True
    assert len(waits) == 2
    assert made.delete() is False


def test_schedule_that_does_not_go_is_told(api: FakeApi, made: Schedule) -> None:
    _cronjob(api)["metadata"]["finalizers"] = ["foregroundDeletion"]
    with pytest.raises(ClusterError, match="'slovenia' is not gone after 120 s"):
        made.delete(wait=lambda _: None)


def test_unknown_schedule_is_named(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="no schedule 'weekly' in namespace 'maps'"):
        Schedule(cluster, "weekly").describe()


def test_schedules_need_no_right_beyond_those_of_the_users_role(
    api: FakeApi, made: Schedule, cluster: Cluster, config: RunConfig
) -> None:
    _apply(cluster, config)
    made.run_now(datetime(2025, 3, 3, 3, tzinfo=UTC))
    made.status()
    made.suspend()
    made.delete()
    asked = {
        (method, path.split("?")[0].split("/namespaces/maps/")[1].split("/")[0])
        for method, path in api.requests
    }
    assert asked <= {
        ("GET", "cronjobs"), ("PATCH", "cronjobs"), ("DELETE", "cronjobs"),
        ("GET", "jobs"), ("POST", "jobs"), ("POST", "configmaps"), ("PATCH", "configmaps"),
    }  # fmt: skip
