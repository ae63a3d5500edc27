"""A heal on a cluster: its command, its key, its attempts, what the command line says."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from eoray.config import RunConfig
from eoray.errors import ConfigError
from eoray.k8s.checks import check_rayjob
from eoray.k8s.client import Cluster
from eoray.k8s.healing import Healing
from eoray.k8s.rayjob import RUN_VARIABLE
from eoray.k8s.submit import plan_attempt, submit_run
from tests.k8s.crds import problems
from tests.k8s.fake_api import FakeApi
from tests.k8s.test_verbs import Verb, run_file, verb

__all__ = ["run_file", "verb"]

SOME = Healing(("S2A_33TVM_20240105_0_L2A",), ("503", "timeout"), "2024-01-01")


def test_driver_heals_what_is_asked_for(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path
) -> None:
    made = submit_run(cluster, config, folder, heal=SOME)
    rayjob = api.objects["rayjobs", "maps", made.name]
    assert rayjob["spec"]["entrypoint"] == (
        "eoray heal /etc/eoray/run.yaml --address auto --json --item S2A_33TVM_20240105_0_L2A "
        "--reason 503 --reason timeout --since 2024-01-01"
    )
    assert made.name.startswith("slovenia-heal-")
    assert len(api.names("configmaps")) == 1
    check_rayjob(rayjob)
    plain = {key: rayjob[key] for key in ("apiVersion", "kind", "metadata", "spec")}
    assert problems(plain, "rayjobs") == []


def test_entrypoint_is_what_the_verb_understands(config: RunConfig, folder: Path) -> None:
    from typer.main import get_command

    from eoray.cli.app import app
    from eoray.k8s.rayjob import build_rayjob

    attempt = plan_attempt(config, folder, heal=SOME)
    words = shlex.split(build_rayjob(attempt, "maps")["spec"]["entrypoint"])
    heal: Any = get_command(app)
    found = heal.commands["heal"].make_context("heal", words[2:]).params
    assert (found["item"], found["reason"]) == (list(SOME.items), list(SOME.reasons))
    assert (found["since"], found["address"], found["run_file"]) == (
        "2024-01-01", "auto", "/etc/eoray/run.yaml",
    )  # fmt: skip


def test_heal_on_a_cluster_that_stays_reads_the_run_file_from_its_environment(
    api: FakeApi, cluster: Cluster, read_config: Any, folder: Path
) -> None:
    head = {"template": {"spec": {"containers": [{"image": "r/eoray@sha256:1"}]}}}
    spec = {"authOptions": {"mode": "token"}, "rayVersion": "2.60.0", "headGroupSpec": head}
    api.put("rayclusters", {"metadata": {"name": "eoray"}, "spec": spec})
    made = submit_run(cluster, read_config("cluster={ray_cluster: eoray}"), folder, heal=Healing())
    sent = api.objects["rayjobs", "maps", made.name]["spec"]
    assert sent["entrypoint"] == f"eoray heal env:{RUN_VARIABLE} --address auto --json"


def test_heal_has_attempts_of_its_own_and_attaches(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path
) -> None:
    run = submit_run(cluster, config, folder)
    first = submit_run(cluster, config, folder, heal=Healing())
    assert (first.what, first.key == run.key) == ("created", False)
    again = submit_run(cluster, config, folder, heal=Healing())
    assert (again.what, again.name) == ("attached", first.name)
    assert submit_run(cluster, config, folder, heal=SOME).key not in (run.key, first.key)
    assert submit_run(cluster, config, folder).name == run.name


@pytest.mark.parametrize("job", ["SUCCEEDED", "FAILED"])
def test_heal_that_has_ended_begins_again(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path, job: str
) -> None:
    first = submit_run(cluster, config, folder, heal=SOME)
    api.set_status(first.name, jobDeploymentStatus="Complete", jobStatus=job)
    second = submit_run(cluster, config, folder, heal=SOME)
    assert (second.what, second.name) == ("created", f"{first.key}-2")


@pytest.mark.parametrize(
    "wrong",
    [{"items": ("a; rm -rf /",)}, {"reasons": ("$HOME",)}, {"items": ("--list",)},
     {"items": ("",)}, {"since": "tomorrow"}],
)  # fmt: skip
def test_what_a_shell_would_act_on_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"would stand in a command|is no day"):
        Healing(**wrong)


def test_stages_of_a_heal_are_refused(config: RunConfig, folder: Path) -> None:
    with pytest.raises(ConfigError, match="healing and stages exclude each other"):
        plan_attempt(config, folder, stages=["cube"], heal=Healing())


def test_dry_run_asks_the_server_and_creates_nothing(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path
) -> None:
    made = submit_run(cluster, config, folder, heal=SOME, dry_run=True)
    assert (made.what, made.name.endswith("-1")) == ("checked", True)
    assert [path for method, path in api.requests if method == "POST" and "dryRun=All" in path]
    assert (api.written(), api.names("rayjobs")) == ([], [])


def test_dry_run_tells_what_a_submission_would_attach_to(
    api: FakeApi, cluster: Cluster, config: RunConfig, folder: Path
) -> None:
    first = submit_run(cluster, config, folder)
    (run_file,) = api.names("configmaps")
    del api.objects["configmaps", "maps", run_file]
    again = submit_run(cluster, config, folder, dry_run=True)
    assert (again.what, again.name) == ("attached", first.name)
    assert api.names("configmaps") == []
    api.set_status(first.name, jobDeploymentStatus="Failed")
    assert submit_run(cluster, config, folder, dry_run=True).name == f"{first.key}-2"


def test_verb_submits_a_heal(api: FakeApi, verb: Verb, run_file: Path) -> None:
    arguments = ("--heal", "--item", "S2A_1", "--since", "2024-02-01", "--detach", "--json")
    code, out, err = verb("submit", run_file, *arguments)
    name = json.loads(out)["name"]
    assert (code, api.names("rayjobs")) == (0, [name])
    sent = api.objects["rayjobs", "maps", name]["spec"]["entrypoint"]
    assert sent.endswith("--json --item S2A_1 --since 2024-02-01")
    assert "at most 12.7 h" in err


def test_verb_checks_and_creates_nothing(api: FakeApi, verb: Verb, run_file: Path) -> None:
    code, out, _ = verb("submit", run_file, "--dry-run")
    assert (code, api.written()) == (0, [])
    assert out.endswith("-1  checked; nothing was created\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--item", "S2A_1"], "say what to read again; add --heal"),
        (["--heal", "--phases"], "--phases and --heal exclude each other"),
        (["--dry-run", "--phases"], "--phases and --dry-run exclude each other"),
        (["--heal", "--stage", "cube"], "healing and stages exclude each other"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    api: FakeApi, verb: Verb, run_file: Path, options: list[str], message: str
) -> None:
    code, _, err = verb("submit", run_file, *options)
    assert (code, api.requests) == (2, [])
    assert message in err
