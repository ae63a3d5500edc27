"""Phases: which stages share a job, and the order in which jobs follow each other."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from eoray.cli import main
from eoray.config import STAGES, RunConfig, parse_config
from eoray.config.cluster import Stage
from eoray.errors import ConfigError
from eoray.k8s.client import Cluster
from eoray.k8s.job import submit_phases
from eoray.k8s.names import RUN
from eoray.k8s.phases import check_idle_gpus, split_phases
from eoray.k8s.render import render_rayjob
from eoray.k8s.schedule import Timetable, plan_schedule
from eoray.k8s.submit import plan_attempt, submit_run
from eoray.k8s.submitter import build_cronjob
from tests.k8s.conftest import RUN_FILE, ReadConfig
from tests.k8s.fake_api import FakeApi
from tests.k8s.fake_head import write_kubeconfig

READERS = "{name: readers, max: 4, stages: [cube, change]}"
GPU = "{name: gpu, gpus: 1, cpu: 8, max: 2, stages: [fit, predict]}"
BOTH = f"cluster.workers=[{READERS}, {GPU}]"
TASK = ("task=land-cover-change", "fit.labels=s3://maps/labels.gpkg", "cluster.deadline_minutes=60")


def names(config: RunConfig, stages: Sequence[str] = ()) -> list[tuple[str, str]]:
    return [
        (" ".join(phase.stages), " ".join(g.name for g in phase.config.cluster.workers))
        for phase in split_phases(config, stages)
    ]


def test_stages_of_the_same_groups_share_a_phase_in_the_order_of_a_run(
    read_config: ReadConfig,
) -> None:
    assert names(read_config(*TASK, BOTH)) == [
        ("cube", "readers"),
        ("fit predict", "gpu"),
        ("change assess publish report", "readers"),
    ]


def test_group_without_stages_serves_all(read_config: ReadConfig) -> None:
    anywhere = f"cluster.workers=[{{name: any}}, {GPU}]"
    assert names(read_config(*TASK, anywhere)) == [
        ("cube", "any"),
        ("fit predict", "any gpu"),
        ("change assess publish report", "any"),
    ]
    assert names(read_config(*TASK)) == [
        ("cube fit predict change assess publish report", "readers")
    ]


def test_asked_for_stages_alone_are_divided(read_config: ReadConfig) -> None:
    assert names(read_config(*TASK, BOTH), ["predict", "cube"]) == [
        ("cube", "readers"),
        ("predict", "gpu"),
    ]


@pytest.mark.parametrize(
    ("overrides", "stages", "message"),
    [
        ([f"cluster.workers=[{GPU}]"], [], "no group serves stage 'cube', the first one"),
        ([BOTH], ["cubes"], "stage 'cubes' is unknown"),
        (["cluster={ray_cluster: eoray}"], [], "phases and cluster.ray_cluster exclude"),
    ],
)
def test_run_that_cannot_be_divided_is_refused(
    read_config: ReadConfig, overrides: list[str], stages: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        split_phases(read_config(*TASK, *overrides), stages)


FIXED = "cluster.autoscale=false"


@pytest.mark.parametrize(
    ("overrides", "stages"),
    [
        ((*TASK, BOTH, FIXED), ()),
        ((*TASK, BOTH, FIXED), ("predict", "cube")),
        ((*TASK, "cluster.workers=[{name: gpu, gpus: 1, max: 2}]", FIXED), ()),
        ((*TASK, BOTH, FIXED, "cluster.queue=main"), ()),
    ],
)
def test_gpus_that_would_idle_while_scenes_are_read_are_refused(
    api: FakeApi,
    cluster: Cluster,
    read_config: ReadConfig,
    overrides: Sequence[str],
    stages: Sequence[str],
) -> None:
    with pytest.raises(ConfigError, match=r"group 'gpu' would hold 2 GPUs while .* --phases"):
        submit_run(cluster, read_config(*overrides), Path(), stages=stages)
    assert api.requests == []


@pytest.mark.parametrize(
    ("overrides", "stages"),
    [
        ((*TASK, BOTH), ()),
        ((*TASK, BOTH, FIXED), ("fit", "predict")),
        ((*TASK, f"cluster.workers=[{READERS}]", FIXED), ()),
        ((*TASK, "cluster.workers=[{name: gpu, gpus: 1, stages: [cube, fit]}]", FIXED), ()),
        (("cluster={ray_cluster: eoray, autoscale: false, workers: [{gpus: 1}]}",), ()),
    ],
)
def test_gpus_that_work_or_come_when_needed_are_taken(
    read_config: ReadConfig, overrides: Sequence[str], stages: Sequence[str]
) -> None:
    check_idle_gpus(read_config(*overrides), stages)


def test_each_phase_may_have_fixed_gpus(api: FakeApi, run_file: str) -> None:
    assert names_of_groups(run_file, *TASK, BOTH, FIXED) == [["readers"], ["gpu"], ["readers"]]


def names_of_groups(run_file: str, *overrides: str) -> list[list[str]]:
    """Worker groups of the RayJobs that are rendered, phase by phase."""
    rayjobs = yaml.safe_load_all(render_rayjob(run_file, overrides, phases=True))
    specs = [rayjob["spec"]["rayClusterSpec"] for rayjob in rayjobs]
    return [[group["groupName"] for group in spec["workerGroupSpecs"]] for spec in specs]


def test_schedule_submits_in_phases_and_its_job_has_the_time_of_all(
    read_config: ReadConfig,
) -> None:
    config, when = read_config(*TASK, BOTH, FIXED), Timetable("0 3 * * 1")
    with pytest.raises(ConfigError, match="--phases"):
        plan_schedule(config, Path(), when)
    plan = plan_schedule(config, Path(), when, phases=True)
    job = build_cronjob(plan, "maps", cron=when.cron, time_zone=when.time_zone)["spec"][
        "jobTemplate"
    ]["spec"]
    assert job["activeDeadlineSeconds"] == 3 * (30 + 60) * 60 + 15 * 60
    command = job["template"]["spec"]["containers"][0]["command"]
    assert command[:3] == ["eoray", "submit", "/etc/eoray/run.yaml"]
    assert "--phases" in command
    assert keys(parse_config(plan.text)) == keys(config)


def keys(config: RunConfig) -> list[str]:
    """Keys of the runs of all phases."""
    return [
        plan_attempt(phase.config, Path(), stages=phase.stages).key
        for phase in split_phases(config)
    ]


def test_stages_of_a_group_are_those_of_runs() -> None:
    assert typing.get_args(Stage) == STAGES


def test_unknown_stage_of_a_group_is_refused(read_config: ReadConfig) -> None:
    with pytest.raises(
        ConfigError, match=r"cluster\.workers\[0\]\.stages\[0\]: got 'cubes'; expected [^\n]*$"
    ):
        read_config("cluster.workers=[{name: a, stages: [cubes]}]")


@pytest.fixture
def run_file(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run file for the fake server."""
    kubeconfig = str(write_kubeconfig(tmp_path / "kubeconfig", api.url))
    place = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(place, kubeconfig)
    monkeypatch.setattr("eoray.k8s.patience._POLL_S", 0.01)
    path = tmp_path / "run.yaml"
    path.write_text(RUN_FILE)
    return str(path)


def end(api: FakeApi, name: str, job: str = "SUCCEEDED") -> None:
    api.set_status(name, jobDeploymentStatus="Complete", jobStatus=job)


def sent(api: FakeApi, name: str) -> tuple[str, list[str]]:
    """(stages of the entrypoint, worker groups) of a RayJob."""
    spec = api.objects["rayjobs", "maps", name]["spec"]
    words = spec["entrypoint"].split(" --stage ")[1:]
    groups = spec["rayClusterSpec"]["workerGroupSpecs"]
    return " ".join(words), [group["groupName"] for group in groups]


def test_next_phase_is_created_when_the_one_before_has_succeeded(
    api: FakeApi, run_file: str
) -> None:
    jobs = submit_phases(run_file, [*TASK, BOTH])
    made = []
    for job in jobs:
        made.append(job.name)
        assert api.names("rayjobs") == sorted(made)
        end(api, job.name)
    assert [sent(api, name) for name in made] == [
        ("cube", ["readers"]),
        ("fit predict", ["gpu"]),
        ("change assess publish report", ["readers"]),
    ]
    keys = {api.objects["rayjobs", "maps", n]["metadata"]["labels"][RUN] for n in made}
    assert len(keys) == 3


def test_first_failure_ends_it(api: FakeApi, run_file: str) -> None:
    jobs = submit_phases(run_file, [*TASK, BOTH])
    end(api, next(jobs).name)
    end(api, next(jobs).name, "FAILED")
    assert list(jobs) == []
    assert len(api.names("rayjobs")) == 2


def test_submitting_again_passes_what_is_done_and_attaches(api: FakeApi, run_file: str) -> None:
    first = submit_phases(run_file, [*TASK, BOTH])
    done = next(first)
    end(api, done.name)
    going = next(first)
    again = submit_phases(run_file, [*TASK, BOTH])
    assert [_what(next(again)) for _ in range(2)] == [(done.name, "done"), (going.name, "attached")]
    assert len(api.names("rayjobs")) == 2


def _what(job: Any) -> tuple[str, str]:
    return job.name, job.submission.what


def test_any_phase_that_pods_cannot_carry_out_stops_all_before_the_first(
    api: FakeApi, run_file: str
) -> None:
    overrides = [*TASK[:2], BOTH]  # GPUs in the second phase, and no deadline
    with pytest.raises(ConfigError, match="deadline_minutes: missing"):
        next(submit_phases(run_file, overrides))
    assert api.requests == []


def verb(*arguments: str) -> int:
    return run_main(["submit", *arguments])


def run_main(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


class Operator(list[tuple[str, str]]):
    """Ends each RayJob with its third look, as it is told to."""

    def __init__(self, api: FakeApi, ends: list[str]) -> None:
        super().__init__()
        self.api, self.ends = api, ends
        self.looks: dict[str, int] = {}

    def append(self, request: tuple[str, str]) -> None:
        super().append(request)
        name = request[1].rpartition("/rayjobs/")[2]
        if ("rayjobs", "maps", name) in self.api.objects:
            self.looks[name] = self.looks.get(name, 0) + 1
            if self.looks[name] == 3:
                end(self.api, name, self.ends.pop(0))


def test_verb_follows_phase_after_phase_and_leaves_with_the_first_failure(
    api: FakeApi, run_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    api.requests = Operator(api, ["SUCCEEDED", "FAILED"])
    assert verb(run_file, *TASK, BOTH, "--phases") == 1
    said = capsys.readouterr()
    assert "phase 2 of 3: fit, predict" in said.err
    assert "phase 3" not in said.err
    assert "fit, predict: at most 1.7 h x 3 pods, 18 CPUs, 40 GiB, 2 GPUs" in said.err
    assert said.err.count("not counted:") == 1
    assert said.out.endswith("  failed\n")
    api.requests = Operator(api, ["SUCCEEDED", "SUCCEEDED"])
    assert verb(run_file, *TASK, BOTH, "--phases") == 0
    assert len(api.names("rayjobs")) == 4


def test_verbs_that_make_schedules_know_phases(
    api: FakeApi, run_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [run_file, *TASK, BOTH, FIXED, "--cron", "0 3 * * 1", "--phases"]
    assert run_main(["render", *words]) == 0
    rendered = capsys.readouterr().out
    assert run_main(["schedule", "apply", *words, "cluster.namespace=maps"]) == 0
    assert "each run: fit, predict: at most" in capsys.readouterr().err
    (cronjob,) = [b for (kind, _, _), b in api.objects.items() if kind == "cronjobs"]
    job = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert "--phases" in job["command"]
    assert "- --phases" in rendered


def test_idle_gpus_end_the_verb_before_anything_is_asked(
    api: FakeApi, run_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb(run_file, *TASK, BOTH, FIXED) == 2
    assert "submit with --phases" in capsys.readouterr().err
    assert api.requests == []


def test_phases_cannot_be_left_alone(api: FakeApi, run_file: str) -> None:
    assert verb(run_file, *TASK, BOTH, "--phases", "--detach") == 2
    assert api.requests == []


def test_interrupt_says_that_the_rest_is_not_submitted(
    api: FakeApi,
    run_file: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("eoray.k8s.job.Job.follow", interrupt)
    assert verb(run_file, *TASK, BOTH, "--phases") == 130
    said = capsys.readouterr().err
    assert "detached: slovenia-" in said
    assert "the phases behind it are not submitted; submit again" in said
    assert len(api.names("rayjobs")) == 1
