"""Submitting: attach, say done, next attempt; and what is never created."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from eoray.config import RunConfig
from eoray.errors import ClusterError, ConfigError, ConflictError
from eoray.k8s.client import Cluster
from eoray.k8s.names import ATTEMPT, CANCELLED, LIFE, RUN
from eoray.k8s.records import Recorded
from eoray.k8s.refusals import AbsentError, ForbiddenError, RefusedError
from eoray.k8s.states import DEPLOYMENT, JOB, resolve_word
from eoray.k8s.submit import find_attempt, plan_attempt, prune_history, submit_run
from eoray.k8s.window import Window, move_window
from tests.k8s.fake_api import FakeApi

NO_RIGHT = 'pods is forbidden: User "ann" cannot create resource "pods" in API group ""'


@pytest.fixture
def first(cluster: Cluster, config: RunConfig, folder: Path) -> str:
    """Name of the first attempt, created."""
    made = submit_run(cluster, config, folder)
    assert made.what == "created"
    return made.name


def owned(api: FakeApi, plural: str) -> dict[str, Any]:
    """The only object of a kind."""
    (name,) = api.names(plural)
    return api.objects[plural, "maps", name]


def mounted(api: FakeApi, name: str) -> str:
    """The ConfigMap that pods of an attempt wait for."""
    head = api.objects["rayjobs", "maps", name]["spec"]["rayClusterSpec"]["headGroupSpec"]
    found: str = head["template"]["spec"]["volumes"][0]["configMap"]["name"]
    return found


def test_rayjob_is_tried_dry_then_created_then_its_run_file(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path
) -> None:
    made = submit_run(cluster, config, folder)
    assert made.name == f"{made.key}-1"
    posts = [path for method, path in api.requests if method == "POST"]
    assert ["dryRun=All" in path for path in posts] == [True] * 3 + [False] * 3
    assert all("fieldValidation=Strict" in path for path in posts)
    assert api.written() == ["POST rayjobs", "POST configmaps", "POST poddisruptionbudgets"]
    for plural in ("configmaps", "poddisruptionbudgets"):
        (owner,) = owned(api, plural)["metadata"]["ownerReferences"]
        assert owner["uid"] == api.objects["rayjobs", "maps", made.name]["metadata"]["uid"]
    assert mounted(api, made.name) == owned(api, "configmaps")["metadata"]["name"]


def test_head_of_this_attempt_alone_is_protected(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path
) -> None:
    made = submit_run(cluster, config, folder)
    budget = owned(api, "poddisruptionbudgets")
    head = api.objects["rayjobs", "maps", made.name]["spec"]["rayClusterSpec"]["headGroupSpec"]
    wanted = budget["spec"]["selector"]["matchLabels"]
    assert wanted.pop("ray.io/node-type") == "head"  # which KubeRay adds
    assert wanted.items() <= head["template"]["metadata"]["labels"].items()
    assert set(wanted) == {RUN, ATTEMPT}
    assert budget["spec"]["minAvailable"] == 1
    assert budget["metadata"]["annotations"] == {LIFE: str((30 + 720) * 60 + 60)}


def test_head_is_left_unprotected_where_the_right_is_missing_and_that_is_said(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path
) -> None:
    api.refuse["POST", "poddisruptionbudgets"] = (403, "poddisruptionbudgets is forbidden")
    told: list[str] = []
    made = submit_run(cluster, config, folder, tell=told.append)
    assert made.what == "created"
    (line,) = told
    assert line.startswith(f"a drain of its node may end the head of {made.name}: you may not")


def test_head_is_not_protected_where_the_run_file_says_so(
    api: FakeApi, cluster: Cluster, read_config: Any, folder: Path
) -> None:
    submit_run(cluster, read_config("cluster.protect_head=false"), folder)
    assert api.names("poddisruptionbudgets") == []


@pytest.mark.parametrize("deployment", DEPLOYMENT)
@pytest.mark.parametrize("job", JOB)
def test_submitting_again_attaches_says_done_or_begins_the_next_attempt(
    api: FakeApi,
    cluster: Cluster,
    config: RunConfig,
    folder: Path,
    first: str,
    deployment: str,
    job: str,
) -> None:
    api.set_status(first, jobDeploymentStatus=deployment, jobStatus=job)
    word = resolve_word(deployment, job, is_cancelled=False, is_deleted=False)
    again = submit_run(cluster, config, folder)
    expected = {
        "succeeded": "done",
        "failed": "created",
        "stopped": "created",
        "invalid": "created",
    }
    assert again.what == expected.get(word, "attached")
    assert again.name == (first if again.what != "created" else first[:-1] + "2")


def test_cancelled_run_begins_the_next_attempt(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path, first: str
) -> None:
    api.set_status(first, jobDeploymentStatus="Suspended")
    api.objects["rayjobs", "maps", first]["metadata"]["annotations"] = {CANCELLED: "now ann"}
    assert submit_run(cluster, config, folder).what == "created"


@pytest.mark.parametrize("ending", ["annotations", "deletionTimestamp"])
def test_attempt_that_somebody_ends_is_not_attached_to(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path, first: str, ending: str
) -> None:
    api.set_status(first, jobDeploymentStatus="Running")
    marks = {"annotations": {CANCELLED: "now ann"}, "deletionTimestamp": "now"}
    api.objects["rayjobs", "maps", first]["metadata"][ending] = marks[ending]
    assert submit_run(cluster, config, folder).name.endswith("-2")


def test_submitter_that_may_not_delete_keeps_the_history(
    api: FakeApi, cluster: Cluster, read_config: Any, folder: Path
) -> None:
    api.refuse["DELETE", "rayjobs"] = (403, "rayjobs is forbidden")
    config = read_config("cluster.history=1")
    for _ in range(3):
        made = submit_run(cluster, config, folder)
        api.set_status(made.name, jobDeploymentStatus="Complete", jobStatus="FAILED")
    assert len(api.names("rayjobs")) == 3


def test_again_runs_what_is_done_once_more(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path, first: str
) -> None:
    api.set_status(first, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    assert submit_run(cluster, config, folder, again=True).name.endswith("-2")


@pytest.mark.parametrize("is_dry", [True, False])
def test_two_submitters_of_one_attempt_meet_in_it(
    api: FakeApi,
    cluster: Cluster,
    config: RunConfig,
    folder: Path,
    monkeypatch: Any,
    is_dry: bool,
) -> None:
    plain, others = cluster.create_rayjob, list[str]()

    def slower(body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        if dry_run == is_dry:  # the other one, between our look and our dry or real creation
            monkeypatch.setattr(cluster, "create_rayjob", plain)
            others.append(submit_run(cluster, config, folder).what)
        return plain(body, dry_run=dry_run)

    monkeypatch.setattr(cluster, "create_rayjob", slower)
    met = submit_run(cluster, config, folder)
    assert (others, met.what) == (["created"], "attached")
    assert api.names("rayjobs") == [met.name]
    assert api.names("configmaps") == [mounted(api, met.name)]


def test_pods_of_a_faster_submitter_are_no_earlier_attempts(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path, monkeypatch: Any
) -> None:
    plain, others = cluster.rayjobs, list[str]()

    def slower(selector: str) -> list[dict[str, Any]]:
        found = plain(selector)
        monkeypatch.setattr(cluster, "rayjobs", plain)  # the other one, behind our look
        others.append(submit_run(cluster, config, folder).name)
        labels = {RUN: others[0][:-2], "ray.io/cluster": "ray-x"}
        pod = {"metadata": {"name": "head", "labels": labels}, "status": {"phase": "Pending"}}
        api.put("pods", pod)
        return found

    monkeypatch.setattr(cluster, "rayjobs", slower)
    waits: list[float] = []
    met = submit_run(cluster, config, folder, wait=waits.append)
    assert (met.what, [met.name], waits) == ("attached", others, [])


def test_run_file_that_a_dead_submitter_left_out_is_made(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path, first: str
) -> None:
    (run_file,) = api.names("configmaps")
    del api.objects["configmaps", "maps", run_file]
    assert submit_run(cluster, config, folder).what == "attached"
    assert api.names("configmaps") == [run_file] == [mounted(api, first)]


def test_what_a_deleted_attempt_owned_is_not_taken_for_that_of_the_next(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path, first: str
) -> None:
    doomed = mounted(api, first)
    cluster.delete_rayjob(first)  # what it owned is collected seconds later
    made = submit_run(cluster, config, folder)
    assert (made.what, made.name) == ("created", first)
    for plural in ("configmaps", "poddisruptionbudgets"):
        del api.objects[plural, "maps", doomed]
    uid = api.objects["rayjobs", "maps", first]["metadata"]["uid"]
    assert mounted(api, first) == owned(api, "configmaps")["metadata"]["name"]
    for plural in ("configmaps", "poddisruptionbudgets"):
        assert owned(api, plural)["metadata"]["ownerReferences"][0]["uid"] == uid


def test_pods_of_a_deleted_attempt_are_waited_for_but_not_those_of_a_faster_submitter(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path, first: str
) -> None:
    cluster.delete_rayjob(first)
    for name in ("old", "new"):
        labels = {RUN: first[:-2], "ray.io/cluster": f"ray-{name}"}
        pod = {"metadata": {"name": name, "labels": labels}, "status": {"phase": "Running"}}
        api.put("pods", pod)
    later = api.objects.pop(("pods", "maps", "new"))
    waits: list[float] = []

    def pass_time(seconds: float) -> None:
        waits.append(seconds)
        api.put("pods", later)
        if len(waits) == 2:
            del api.objects["pods", "maps", "old"]

    assert submit_run(cluster, config, folder, wait=pass_time).what == "created"
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("recorded", "again", "what", "number"),
    [
        (None, False, "created", 1),
        (Recorded(4, is_done=False), False, "created", 5),
        (Recorded(4, is_done=True), False, "done", 4),
        (Recorded(4, is_done=True), True, "created", 5),
    ],
)
def test_attempts_that_were_deleted_are_counted_by_their_record(
    cluster: Cluster, config: RunConfig, folder: Path, monkeypatch: Any,
    recorded: Recorded | None, again: bool, what: str, number: int,
) -> None:  # fmt: skip
    monkeypatch.setattr("eoray.k8s.submit.find_recorded", lambda *_: recorded)
    made = submit_run(cluster, config, folder, again=again)
    assert (made.what, made.name) == (what, f"{made.key}-{number}")
    assert made.state.word == ("succeeded" if what == "done" else "pending")


def test_cluster_stands_before_older_records(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path, first: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(
        "eoray.k8s.submit.find_recorded", lambda *_: Recorded(1, is_done=True)
    )  # of an attempt that was deleted, and whose name it took
    assert submit_run(cluster, config, folder).what == "attached"
    api.set_status(first, jobDeploymentStatus="Failed")
    assert submit_run(cluster, config, folder).name == f"{first[:-1]}2"


def test_next_attempt_waits_until_no_pod_of_the_earlier_lives(
    api: FakeApi,
    cluster: Cluster,
    config: RunConfig,
    folder: Path,
    first: str,
) -> None:
    key = first[:-2]
    api.set_status(first, jobDeploymentStatus="Failed", reason="DeadlineExceeded")
    labels = {RUN: key}
    api.put(
        "pods", {"metadata": {"name": "head", "labels": labels}, "status": {"phase": "Running"}}
    )
    told: list[str] = []
    waits: list[float] = []

    def pass_time(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            api.objects["pods", "maps", "head"]["status"]["phase"] = "Succeeded"

    made = submit_run(cluster, config, folder, tell=told.append, wait=pass_time)
    assert made.what == "created"
    assert len(waits) == 3
    assert told == ["waiting for the pods of the earlier attempt to end: head"]


def test_pods_that_do_not_end_stop_the_next_attempt(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path, first: str
) -> None:
    api.set_status(first, jobDeploymentStatus="Failed")
    labels = {RUN: first[:-2]}
    api.put(
        "pods", {"metadata": {"name": "head", "labels": labels}, "status": {"phase": "Running"}}
    )
    with pytest.raises(ConflictError, match=r"still live \(head\); wait .* `eoray cancel"):
        submit_run(cluster, config, folder, wait=lambda _: None)
    assert api.names("rayjobs") == [first]


def test_local_paths_are_refused_before_anything_is_asked(
    api: FakeApi, cluster: Cluster, read_config: Any, folder: Path
) -> None:
    with pytest.raises(ConfigError, match="pods do not see"):
        submit_run(cluster, read_config("store=out"), folder)
    assert api.requests == []


@pytest.mark.parametrize(
    ("status", "message", "error", "said"),
    [
        (403, "rayjobs.ray.io is forbidden: User ann", ClusterError, "you may not create rayjobs"),
        (403, 'rayjobs "a" is forbidden: ', ForbiddenError, "you may not create rayjobs"),
        (403, "exceeded quota: count/rayjobs.ray.io", RefusedError, "exceeded quota"),
        (
            400,
            'strict decoding error: unknown field "spec.x"',
            RefusedError,
            "upgrade its KubeRay to 1.6",
        ),
        (422, "spec.x: Invalid value", RefusedError, "mend `cluster` in the run file"),
        (404, 'namespaces "maps" not found', AbsentError, "there is no namespace 'maps'"),
        (500, "etcd is sad", ClusterError, "failed to create rayjobs"),
    ],
)
def test_refusal_of_the_server_is_told_and_leaves_nothing(
    api: FakeApi,
    cluster: Cluster,
    config: RunConfig,
    folder: Path,
    status: int,
    message: str,
    error: type[Exception],
    said: str,
) -> None:
    api.refuse["POST", "rayjobs"] = (status, message)
    with pytest.raises(error, match=said):
        submit_run(cluster, config, folder)
    assert api.objects == {}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, 'pods "a" is forbidden: violates PodSecurity "restricted:latest"'),
        (403, 'pods "a" is forbidden: error looking up service account maps/eoray-ray'),
        (403, 'pods "a" is forbidden: maximum memory usage per Container is 4Gi'),
        (422, 'Pod "a" is invalid: spec.tolerations[0].operator: Unsupported value'),
    ],
)
def test_pods_that_the_server_would_refuse_are_refused_before_anything_is_created(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path, status: int, message: str
) -> None:
    api.refuse["POST", "pods"] = (status, message)
    with pytest.raises(RefusedError, match=rf"^pods of head: .*{message[-20:]}"):
        submit_run(cluster, config, folder)
    assert api.objects == {}


@pytest.mark.parametrize("message", [NO_RIGHT, 'pods "a" is forbidden: exceeded quota: small'])
def test_without_the_right_or_with_a_quota_used_up_pods_are_left_to_the_operator(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path, message: str
) -> None:
    api.refuse["POST", "pods"] = (403, message)
    assert submit_run(cluster, config, folder).what == "created"


def test_image_by_tag_is_told_with_its_remedy(
    cluster: Cluster, config: RunConfig, read_config: Any, folder: Path
) -> None:
    told: list[str] = []
    submit_run(cluster, config, folder, tell=told.append)
    assert told == []
    tagged = read_config("cluster.image=registry.example/eoray:latest")
    submit_run(cluster, tagged, folder, tell=told.append)
    (line,) = told
    assert line.startswith("cluster.image: 'registry.example/eoray:latest' is a tag")


def test_group_whose_image_is_a_tag_is_told(
    cluster: Cluster, read_config: Any, folder: Path
) -> None:
    told: list[str] = []
    groups = "[{name: readers}, {name: gpu, image: 'registry.example/eoray-gpu:latest'}]"
    submit_run(cluster, read_config(f"cluster.workers={groups}"), folder, tell=told.append)
    (line,) = told
    assert line.startswith("cluster.workers[1].image: 'registry.example/eoray-gpu:latest' is a tag")


def test_oldest_ended_attempts_beyond_the_history_are_deleted(
    api: FakeApi, cluster: Cluster, read_config: Any, folder: Path
) -> None:
    config = read_config("cluster.history=2")
    for _ in range(4):
        made = submit_run(cluster, config, folder)
        api.set_status(made.name, jobDeploymentStatus="Complete", jobStatus="FAILED")
    assert [name[-1] for name in api.names("rayjobs")] == ["2", "3", "4"]
    assert prune_history(cluster, made.key, 1) == [f"{made.key}-2", f"{made.key}-3"]


def _tick(
    cluster: Cluster, config: RunConfig, folder: Path, day: int, schedule: str = "daily"
) -> str:
    """Name of what a tick submits: each has a window, and so a run, of its own."""
    window = Window(datetime(2024, 6, day, 3, tzinfo=UTC), 21)
    return submit_run(cluster, move_window(config, window), folder, schedule=schedule).name


def test_ended_runs_of_a_schedule_beyond_the_history_are_deleted(
    api: FakeApi, cluster: Cluster, read_config: Any, folder: Path
) -> None:
    config = read_config("cluster.history=2")
    lives = _tick(cluster, config, folder, 28)
    api.set_status(lives, jobDeploymentStatus="Running", jobStatus="RUNNING")
    by_hand = submit_run(cluster, config, folder).name
    other = _tick(cluster, config, folder, 29, "weekly")
    for name in (by_hand, other):
        api.set_status(name, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    ticks = []
    for day in range(1, 21):
        ticks.append(_tick(cluster, config, folder, day))
        api.set_status(ticks[-1], jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    lasts = _tick(cluster, config, folder, 21)
    assert len({name[:-2] for name in ticks}) == 20
    assert set(api.names("rayjobs")) == {lives, by_hand, other, *ticks[-2:], lasts}


def test_run_is_found_by_attempt_key_or_name(cluster: Cluster, first: str) -> None:
    for name in (first, first[:-2], "slovenia"):
        assert find_attempt(cluster, name)["metadata"]["name"] == first
    with pytest.raises(ClusterError, match="no run or attempt 'italy' in namespace 'maps'"):
        find_attempt(cluster, "italy")


@pytest.mark.parametrize("name", ["My Run", "italy,slovenia", "a" * 64])
def test_what_no_run_can_be_called_is_not_asked_for_by_label(
    api: FakeApi, cluster: Cluster, name: str
) -> None:
    with pytest.raises(ClusterError, match="no run or attempt"):
        find_attempt(cluster, name)
    assert not any("labelSelector" in path for _, path in api.requests)


def test_missing_ray_version_is_named(read_config: Any, monkeypatch: Any) -> None:
    from importlib.metadata import PackageNotFoundError

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("eoray.k8s.submit.version", absent)
    with pytest.raises(ConfigError, match=r"cluster\.ray_version: missing"):
        plan_attempt(read_config("cluster.ray_version=null"), Path())


def test_schedule_needs_no_right_beyond_those_of_its_role(
    api: FakeApi, cluster: Cluster, read_config: Any, folder: Path
) -> None:
    api.refuse["POST", "pods"] = (403, NO_RIGHT)  # tried, and done without
    config = read_config("cluster.history=1")
    for day in (1, 2, 3):
        name = _tick(cluster, config, folder, day)
        api.set_status(name, jobDeploymentStatus="Complete", jobStatus="FAILED")
    _tick(cluster, config, folder, 3)
    place = "/namespaces/maps/"
    asked = {(method, path.split(place)[1].split("?")[0]) for method, path in api.requests}
    assert {(method, kind.partition("/")[0]) for method, kind in asked} == {
        ("POST", "rayjobs"), ("GET", "rayjobs"), ("DELETE", "rayjobs"), ("POST", "configmaps"),
        ("GET", "pods"), ("POST", "pods"), ("POST", "poddisruptionbudgets"),
    }  # fmt: skip
