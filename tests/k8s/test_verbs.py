"""The verbs of the command line against an API server of our own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from eoray.cli import main
from tests.k8s.conftest import RUN_FILE
from tests.k8s.fake_api import FakeApi

Verb = Callable[..., tuple[int, str, str]]


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
    monkeypatch.setattr("eoray.k8s.follow._POLL_S", 0.01)

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
    assert "at most 12.2 h x 5 pods, 18 CPUs, 72 GiB if admitted once; no price given" in err


def test_submit_follows_to_the_end_and_leaves_with_its_code(
    api: FakeApi, verb: Verb, run_file: Path
) -> None:
    name = json.loads(verb("submit", run_file, "--detach", "--json")[1])["name"]
    labels = {"ray.io/cluster": "ray-x", "ray.io/node-type": "head"}
    api.put("pods", {"metadata": {"name": "head", "labels": labels}})
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


def test_render_prints_the_rayjob_without_any_cluster(
    api: FakeApi, verb: Verb, run_file: Path
) -> None:
    code, out, _ = verb("render", run_file, "--stage", "cube")
    rayjob = yaml.safe_load(out)
    assert code == 0
    assert rayjob["spec"]["entrypoint"].endswith("--json --stage cube")
    assert rayjob["metadata"]["annotations"] == {"argocd.argoproj.io/sync-options": "Prune=false"}
    assert api.requests == []


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
        "import sys, eoray.k8s.job, eoray.cli.app; from eoray.k8s.render import render_rayjob; "
        f"render_rayjob({str(run_file)!r}); import kubernetes.client; "
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
