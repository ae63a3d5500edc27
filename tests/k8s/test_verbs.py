"""The verbs of the command line against an API server of our own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

import eoray
from eoray.buckets import bucket_of, use_buckets
from eoray.cli import main
from eoray.config import RunConfig, config_key, parse_config
from eoray.k8s.client import Cluster
from eoray.k8s.records import Recorded
from eoray.k8s.states import State
from eoray.run.record import RunPaths
from tests.k8s.conftest import RUN_FILE
from tests.k8s.fake_api import FakeApi

Verb = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _no_buckets_are_left_described() -> Iterator[None]:
    yield
    use_buckets({})


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN_FILE)
    return path


@pytest.fixture
def verb(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Verb:
    """Run a verb with a kubeconfig of the fake server: (exit code, stdout, stderr)."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": api.url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "maps"}}],
        "current-context": "x",
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    monkeypatch.setattr("eoray.k8s.patience._POLL_S", 0.01)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_submit_shows_the_bound_creates_and_leaves_when_detached(
    api: FakeApi, verb: Verb, run_file: Path
) -> None:
    code, out, err = verb("submit", run_file, "--detach", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["what"], result["state"]) == ("created", "pending")
    assert api.names("rayjobs") == [result["name"]]
    assert "at most 12.7 h x 5 pods, 18 CPUs, 72 GiB if admitted once; no price given" in err


def test_submit_follows_to_the_end_and_leaves_with_its_code(
    api: FakeApi, verb: Verb, run_file: Path
) -> None:
    name = json.loads(verb("submit", run_file, "--detach", "--json")[1])["name"]
    labels = {"ray.io/cluster": "ray-x", "ray.io/node-type": "head"}
    spec = {"containers": [{"name": "ray-head"}]}
    api.put("pods", {"metadata": {"name": "head", "labels": labels}, "spec": spec})
    api.logs["head"] = "T1 stage cube\n"
    ended = {"jobStatus": "FAILED", "reason": "AppFailed", "rayClusterName": "ray-x"}
    api.set_status(name, jobDeploymentStatus="Running", **ended)

    class Ends:
        """The operator calls it complete with the third look at the job."""

        looks = 0

        def append(self, request: tuple[str, str]) -> None:
            self.looks += request[1].endswith(f"/rayjobs/{name}")
            if self.looks == 3:
                api.set_status(name, jobDeploymentStatus="Complete", **ended)

    api.requests = Ends()  # type: ignore[assignment]
    code, out, err = verb("submit", run_file)
    assert code == 1
    assert out == f"{name}  failed: AppFailed\n"
    assert err.count("stage cube") == 1
    assert f"{name}: attached" in err


def test_wait_leaves_with_the_code_of_the_run(api: FakeApi, verb: Verb, run_file: Path) -> None:
    name = json.loads(verb("submit", run_file, "--detach", "--json")[1])["name"]
    api.set_status(name, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    assert verb("wait", "slovenia")[:2] == (0, f"{name}  succeeded\n")
    api.set_status(name, jobDeploymentStatus="ValidationFailed", message="bad")
    assert verb("wait", name)[:2] == (2, f"{name}  invalid: bad\n")


@pytest.mark.parametrize("words", [("submit", "{run_file}", "--wait"), ("wait", "slovenia")])
def test_run_that_somebody_deletes_meanwhile_leaves_with_5(
    api: FakeApi, verb: Verb, run_file: Path, words: tuple[str, ...]
) -> None:
    name = json.loads(verb("submit", run_file, "--detach", "--json")[1])["name"]

    class Deletes:
        """Somebody deletes it after the second look at the job."""

        looks = 0

        def append(self, request: tuple[str, str]) -> None:
            self.looks += request[1].endswith(f"/rayjobs/{name}")
            if self.looks == 2:
                api.objects.pop(("rayjobs", "maps", name), None)

    api.requests = Deletes()  # type: ignore[assignment]
    code, out, _ = verb(*(word.format(run_file=run_file) for word in words), "--json")
    found = json.loads(out)
    assert (code, found["state"], found["name"], found["attempt"]) == (5, "deleted", name, 1)


def test_detached_submission_waits_for_the_operators_verdict(
    api: FakeApi, verb: Verb, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(cluster: Any, name: str, **_: Any) -> State:
        api.set_status(name, jobDeploymentStatus="ValidationFailed", message="bad")
        return State("invalid", message="bad")

    monkeypatch.setattr("eoray.k8s.job.wait_for_verdict", refuse)
    code, out, _ = verb("submit", run_file, "--detach")
    assert code == 2
    assert out.endswith("  invalid: bad\n")


def test_run_that_is_done_by_its_record_alone_is_said_to_be(
    api: FakeApi, verb: Verb, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Recorded(3, is_done=True)
    monkeypatch.setattr("eoray.k8s.submit.find_recorded", lambda *_: done)
    code, out, _ = verb("submit", run_file, "--json")
    found = json.loads(out)
    assert (code, found["what"], found["state"], found["attempt"]) == (0, "done", "succeeded", 3)
    assert api.names("rayjobs") == []
    job = eoray.submit(run_file)
    assert (job.status().word, job.wait().word) == ("succeeded", "succeeded")


@pytest.mark.parametrize("words", [("wait",), ("logs", "--follow"), ("submit",)])
def test_ctrl_c_leaves_a_run_alone_with_a_code_that_no_end_has(
    api: FakeApi,
    verb: Verb,
    run_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    name = json.loads(verb("submit", run_file, "--detach", "--json")[1])["name"]
    api.set_status(name, jobDeploymentStatus="Running")
    looks: list[str] = []

    def interrupt(_: Cluster, asked: str) -> dict[str, Any]:
        looks.append(asked)
        if len(looks) == 2:
            raise KeyboardInterrupt
        return api.objects["rayjobs", "maps", name]

    monkeypatch.setattr("eoray.k8s.client.Cluster.rayjob", interrupt)
    code, _, err = verb(*words, run_file if words == ("submit",) else name)
    assert code == 130
    assert err.splitlines()[-1] == (
        f"detached: {name} goes on; follow it again with `eoray logs --follow {name}`, end it "
        f"with `eoray cancel {name}`"
    )
    assert {change.split()[0] for change in api.written()} == {"POST"}  # no end, no mark of one


def test_wait_that_takes_too_long_is_exit_3(verb: Verb, run_file: Path) -> None:
    verb("submit", run_file, "--detach")
    code, _, err = verb("wait", "slovenia", "--timeout", "0.05")
    assert code == 3
    assert "it goes on: `eoray wait" in err


def test_status_explains_what_does_not_start(api: FakeApi, verb: Verb, run_file: Path) -> None:
    name = json.loads(verb("submit", run_file, "--detach", "--json")[1])["name"]
    involved = {"kind": "RayJob", "name": name}
    event = {"metadata": {"name": "e"}, "type": "Warning", "reason": "Quota", "message": "full"}
    api.put("events", {**event, "involvedObject": involved})
    assert verb("status", name)[:2] == (0, f"{name}  pending\n  Quota: full\n")


def test_status_explains_workers_that_a_running_attempt_waits_for_and_keeps_it(
    api: FakeApi, verb: Verb, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[list[str]] = []
    monkeypatch.setattr(
        "eoray.run.last_seen.keep_view", lambda _, view, **__: kept.append(view["warnings"])
    )
    name = json.loads(verb("submit", run_file, "--detach", "--json")[1])["name"]
    api.set_status(name, jobDeploymentStatus="Running", rayClusterName="ray-x")
    involved = {"kind": "RayCluster", "name": "ray-x"}
    now = datetime.now(UTC).isoformat()
    event = {"type": "Warning", "reason": "FailedToCreateWorkerPod", "message": "exceeded quota"}
    api.put("events", {**event, "metadata": {"name": "e"}, "lastTimestamp": now,
                       "involvedObject": involved})  # fmt: skip
    told = "FailedToCreateWorkerPod: exceeded quota"
    assert verb("status", name)[:2] == (0, f"{name}  running\n  {told}\n")
    assert kept == [[f"{now} RayCluster ray-x: {told}"]]


def test_logs_print_what_the_head_said(api: FakeApi, verb: Verb, run_file: Path) -> None:
    name = json.loads(verb("submit", run_file, "--detach", "--json")[1])["name"]
    api.set_status(name, jobDeploymentStatus="Running", rayClusterName="ray-x")
    labels = {"ray.io/cluster": "ray-x", "ray.io/node-type": "head"}
    api.put("pods", {"metadata": {"name": "head", "labels": labels}})
    api.logs["head"] = "T1 one\nT2 two\n"
    assert verb("logs", name)[:2] == (0, "one\ntwo\n")


def test_cancel_list_and_delete_go_through_an_attempts_life(
    api: FakeApi, verb: Verb, run_file: Path
) -> None:
    name = json.loads(verb("submit", run_file, "--detach", "--json")[1])["name"]
    assert verb("list", "--unfinished", "--exit-code")[0] == 1
    assert verb("cancel", "slovenia")[:2] == (0, f"{name}  cancelling\n")
    api.set_status(name, jobDeploymentStatus="Suspended")
    code, out, _ = verb("list", "--json")
    (row,) = json.loads(out)["attempts"]
    assert (code, row["state"], row["attempt"], row["run"]) == (0, "cancelled", 1, "slovenia")
    assert verb("list", "--unfinished", "--exit-code")[:2] == (0, "no runs\n")
    assert verb("delete", name)[:2] == (0, f"{name}  deleted\n")
    assert api.names("rayjobs") == []


def test_render_prints_the_rayjob_to_read_without_any_cluster(
    api: FakeApi, verb: Verb, run_file: Path
) -> None:
    code, out, _ = verb("render", run_file, "--rayjob", "--stage", "cube")
    rayjob = yaml.safe_load(out)
    assert code == 0
    assert rayjob["spec"]["entrypoint"].endswith("--json --stage cube")
    assert rayjob["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] == "Prune=false"
    assert out.startswith("# To read, not to apply")
    assert api.requests == []


def test_render_prints_the_job_that_submits_and_its_run_file(
    api: FakeApi, verb: Verb, run_file: Path
) -> None:
    code, out, _ = verb("render", run_file, "cluster.namespace=maps", "--stage", "cube")
    config_map, job = yaml.safe_load_all(out)
    assert (code, config_map["kind"], job["kind"]) == (0, "ConfigMap", "Job")
    pod = job["spec"]["template"]["spec"]
    assert pod["volumes"][1]["configMap"]["name"] == config_map["metadata"]["name"]
    assert pod["containers"][0]["command"][-2:] == ["--stage", "cube"]
    assert {body["metadata"]["namespace"] for body in (config_map, job)} == {"maps"}
    assert parse_config(config_map["data"]["run.yaml"]).name == "slovenia"
    assert "  run.yaml: |\n" in out
    assert api.requests == []


def test_rendering_twice_gives_equal_bytes_and_another_run_file_other_names(
    verb: Verb, run_file: Path
) -> None:
    first = verb("render", run_file)[1]
    assert verb("render", run_file)[1] == first
    other = verb("render", run_file, "cluster.deadline_minutes=60")[1]
    names = [{body["metadata"]["name"] for body in yaml.safe_load_all(t)} for t in (first, other)]
    assert names[0].isdisjoint(names[1])


def test_render_with_cron_prints_the_schedule_and_warns_of_summer_time(
    api: FakeApi, verb: Verb, run_file: Path
) -> None:
    zone = ("--time-zone", "Europe/Ljubljana")
    code, out, err = verb("render", run_file, "--cron", "30 2 * * *", *zone, "--name", "nightly")
    config_map, cronjob = yaml.safe_load_all(out)
    assert (code, cronjob["kind"], cronjob["metadata"]["name"]) == (0, "CronJob", "nightly")
    assert cronjob["spec"]["timeZone"] == "Europe/Ljubljana"
    assert config_map["metadata"]["labels"]["eoray.dev/schedule"] == "nightly"
    assert err.count("warning: ") == 2
    assert api.requests == []


def test_render_lists_the_images_to_mirror(verb: Verb, run_file: Path) -> None:
    code, out, _ = verb("render", run_file, "--images", "cluster.submit.image=tiny:1")
    assert (code, out) == (0, "registry.example/eoray@sha256:0123\ntiny:1\n")


@pytest.mark.parametrize("submit", [(), ("cluster.submit.image=tiny:1",)])
def test_images_to_mirror_are_those_of_all_that_is_rendered(
    verb: Verb, run_file: Path, submit: tuple[str, ...]
) -> None:
    groups = "cluster.workers=[{name: a}, {name: gpu, gpus: 1}]"
    given = (run_file, groups, "cluster.deadline_minutes=9", *submit)
    used: set[str] = set()
    for options in ((), ("--rayjob",), ("--cron", "0 3 * * 1")):
        for body in yaml.safe_load_all(verb("render", *given, *options)[1]):
            used |= images_in(body)
    assert sorted(used) == verb("render", *given, "--images")[1].split()


def images_in(value: Any) -> set[str]:
    """Images of all containers anywhere in an object."""
    if isinstance(value, dict):
        own = {value["image"]} if isinstance(value.get("image"), str) else set()
        return own.union(*map(images_in, value.values()))
    return set().union(*map(images_in, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rayjob", "--images"), "exclude each other"),
        (("--name", "weekly"), "belong to a schedule; add --cron"),
        (("--cron", "0 3 30 2 *"), "never fires"),
    ],
)
def test_options_of_render_that_do_not_fit_are_exit_2(
    verb: Verb, run_file: Path, options: tuple[str, ...], said: str
) -> None:
    code, _, err = verb("render", run_file, *options)
    assert code == 2
    assert said in err


def test_schedule_goes_through_its_life(api: FakeApi, verb: Verb, run_file: Path) -> None:
    code, out, err = verb("schedule", "apply", run_file, "--cron", "0 3 * * 1", "--json")
    row = json.loads(out)
    assert "each run: at most 12.7 h x 5 pods, 18 CPUs" in err
    assert (code, row["name"], row["what"], row["warnings"]) == (0, "slovenia", "created", [])
    moment = datetime.fromisoformat(row["next"])
    assert (moment.weekday(), moment.hour) == (0, 3)
    told = f"next tick {row['next']}"
    assert verb("schedule", "suspend", "slovenia")[:2] == (0, "slovenia  suspended\n")
    assert "  suspended  last " in verb("schedule", "list")[1]
    assert verb("schedule", "resume", "slovenia")[:2] == (0, f"slovenia  {told}\n")
    code, out, _ = verb("schedule", "run-now", "slovenia", "--scheduled-time", "2026-02-02T03:00")
    assert (code, out) == (
        0, "slovenia  Job slovenia-now-x7k2p submits the run of 2026-02-02T03:00Z\n"
    )  # fmt: skip
    (row,) = json.loads(verb("schedule", "list", "--json")[1])["schedules"]
    assert (row["outcome"], row["why"]) == ("running", "slovenia-now-x7k2p")
    assert verb("schedule", "delete", "slovenia")[:2] == (0, "slovenia  deleted\n")
    assert api.names("cronjobs") == []
    assert verb("schedule", "list")[:2] == (0, "no schedules\n")


def test_schedule_that_never_fires_is_exit_2(api: FakeApi, verb: Verb, run_file: Path) -> None:
    code, _, err = verb("schedule", "apply", run_file, "--cron", "0 3 30 2 *")
    assert code == 2
    assert "'0 3 30 2 *' never fires: no month in it has that day" in err
    assert api.requests == []


def test_pod_of_a_schedule_submits_the_window_of_its_tick(
    api: FakeApi, verb: Verb, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the pod does with its environment is what run-now does with the minute."""
    monkeypatch.setenv("EORAY_SCHEDULE", "slovenia")
    monkeypatch.setenv("EORAY_JOB_NAME", "slovenia-now-x7k2p")
    moment = ("--scheduled-time", "2024-06-03T03:00Z", "--lookback-days", "21")
    by_hand = json.loads(verb("submit", run_file, *moment, "--detach", "--json")[1])
    monkeypatch.setenv("EORAY_JOB_NAME", f"slovenia-{1717383600 // 60}")
    days = ("--lookback-days", "21")
    ticked = json.loads(verb("submit", run_file, *days, "--detach", "--json")[1])
    assert (by_hand["what"], ticked["what"]) == ("created", "attached")
    assert ticked["name"] == by_hand["name"]
    labels = api.objects["rayjobs", "maps", ticked["name"]]["metadata"]["labels"]
    assert labels["eoray.dev/schedule"] == "slovenia"


def test_end_of_an_attempt_is_kept_with_its_record_and_a_running_one_is_left_alone(
    api: FakeApi, verb: Verb, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "eoray.run.last_seen.keep_view",
        lambda folder, view, **_: kept.append((folder, view["reason"])),
    )
    bucket = 'storage={"s3://maps": {"endpoint": "http://127.0.0.1:1"}}'
    name = json.loads(verb("submit", run_file, bucket, "--detach", "--json")[1])["name"]
    api.set_status(name, jobDeploymentStatus="Running", jobStatus="RUNNING")
    verb("status", name)
    assert kept == []
    silent = "JobStatusCheckTimeoutExceeded"
    api.set_status(name, jobDeploymentStatus="Failed", jobStatus="RUNNING", reason=silent)
    assert [verb(word, name)[0] for word in ("status", "wait", "delete")] == [0, 1, 0]
    folder = run_paths(parse_config(RUN_FILE)).attempt(name)
    assert kept == [(folder, silent)] * 3
    assert bucket_of("s3://maps/slovenia").endpoint == "http://127.0.0.1:1"


def run_paths(config: RunConfig) -> RunPaths:
    return RunPaths(config.store, config.name, config_key(config))


def test_name_that_no_run_has_is_exit_4(verb: Verb) -> None:
    code, _, err = verb("status", "italy")
    assert code == 4
    assert "no run or attempt 'italy'" in err


def test_run_file_that_pods_cannot_see_is_exit_2(verb: Verb, run_file: Path, api: FakeApi) -> None:
    code, _, err = verb("submit", run_file, "store=out")
    assert code == 2
    assert "store: pods do not see" in err
    assert api.requests == []


def test_submitting_imports_neither_ray_nor_torch_nor_rasterio(run_file: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys, eoray.k8s.job, eoray.cli.app; from eoray.k8s.render import render_job; "
        f"render_job({str(run_file)!r}); import kubernetes.client; "
        "print(sorted({'ray', 'torch', 'rasterio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_namespace_of_the_environment_serves_where_the_run_file_names_none(
    verb: Verb, run_file: Path, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EORAY_NAMESPACE", "atlas")
    name = json.loads(verb("submit", run_file, "--detach", "--json")[1])["name"]
    assert ("rayjobs", "atlas", name) in api.objects
    verb("submit", run_file, "cluster.namespace=maps", "--detach")
    assert ("rayjobs", "maps", name) in api.objects


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the record of an attempt that failed."""
    store, record = tmp_path / "out", {"name": "italy-01234567-1", "run": "italy-89abcdef"}
    folder = store / "_eoray/runs/italy-89abcdef/attempts/italy-01234567-1"
    folder.mkdir(parents=True)
    start = {"time": 0.0, "commit": "", "ray_cluster": "italy-01234567-1-x"}
    ended = {"status": "failed", "reason": "AccessError: no right", "ended_at": 60.0}
    (folder / "record.json").write_text(json.dumps({**record, "starts": [start], **ended}))
    (folder / "driver.log").write_text('{"event": "stage"}\n')
    return store


def test_record_in_place_of_a_cluster_that_was_not_asked_is_told_and_is_exit_4(
    verb: Verb, store: Path, api: FakeApi
) -> None:
    api.refuse["GET", "rayjobs"] = (403, "not yours")
    code, out, err = verb("status", "italy", "--store", store, "--json")
    found = json.loads(out)
    assert (code, found["state"]) == (4, "failed")
    assert "you may not get rayjobs" in found["unreached"]
    assert err.startswith("what follows is the record alone")
    assert found["unreached"] in err
    code, out, err = verb("logs", "italy", "--store", store)
    assert (code, out) == (4, '{"event": "stage"}\n')
    assert "you may not get rayjobs" in err
    code, _, err = verb("status", "spain", "--store", store)
    assert code == 1
    assert "you may not get rayjobs" in err
    assert "no record of a run or attempt 'spain'" in err


def test_attempt_that_the_cluster_has_forgotten_is_told_by_its_record(
    verb: Verb, run_file: Path, store: Path
) -> None:
    assert verb("status", "italy", "--store", store)[:2] == (
        0,
        "italy-01234567-1  failed (record): AccessError: no right\n",
    )
    assert verb("logs", "italy", "--store", store)[:2] == (0, '{"event": "stage"}\n')
    name = json.loads(verb("submit", run_file, "--detach", "--json")[1])["name"]
    rows = json.loads(verb("list", "--store", store, "--json")[1])["attempts"]
    assert [(row["name"], row["state"]) for row in rows] == [
        ("italy-01234567-1", "failed"),
        (name, "pending"),
    ]
    assert verb("status", name, "--store", store)[1] == f"{name}  pending\n"
    assert verb("status", "italy")[0] == 4
