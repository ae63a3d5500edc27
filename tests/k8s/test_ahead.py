"""What `eoray submit` looks at before it creates anything: another writer, and at what cost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

import eoray
from eoray.buckets import use_buckets
from eoray.cli import main
from eoray.config import RunConfig
from eoray.errors import ConfigError
from eoray.k8s import forecast
from eoray.k8s.forecast import Forecast
from eoray.k8s.job import submit_phases
from eoray.run import lease
from tests.k8s.conftest import RUN_FILE
from tests.k8s.fake_api import FakeApi
from tests.k8s.fake_head import write_kubeconfig
from tests.s3_server import serve_s3

Submit = Callable[..., tuple[int, str, str]]

CHECK_FREE = lease.check_free
"""The real one, which the other tests of submissions do without."""

MODULES = """
import sys
from eoray.buckets import use_buckets
from eoray.cli import main
try:
    main(sys.argv[1:])
finally:
    print(sorted({"ray", "torch", "rasterio", "zarr", "icechunk"} & set(sys.modules)))
"""


@pytest.fixture
def run_file(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A run file for the fake server."""
    kubeconfig = str(write_kubeconfig(tmp_path / "kubeconfig", api.url))
    monkeypatch.setenv("KUBECONFIG", kubeconfig)
    place = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(place, kubeconfig)
    monkeypatch.setattr(lease, "check_free", CHECK_FREE)
    path = tmp_path / "run.yaml"
    path.write_text(RUN_FILE)
    yield str(path)
    use_buckets({})


@pytest.fixture
def submit(run_file: str, capsys: pytest.CaptureFixture[str]) -> Submit:
    """`eoray submit`: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["submit", run_file, "--detach", *arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def sent(api: FakeApi) -> dict[str, Any]:
    """The run file that pods get."""
    (name,) = api.names("configmaps")
    text = api.objects["configmaps", "maps", name]["data"]["run.yaml"]
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_store_that_another_run_writes_is_refused_and_nothing_is_created(
    api: FakeApi, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_s3(monkeypatch), lease.hold_store("s3://maps/slovenia", "italy-01234567"):
        code, _, err = submit("--no-estimate")
        assert code == 1
        assert "run 'italy-01234567' (process" in err
        assert "--wait-for-lease" in err
        assert api.requests == []
        assert submit("--no-estimate", "--wait-for-lease")[0] == 0
    assert sent(api)["run"]["lease"] == "wait"


def test_lease_is_looked_for_where_the_run_file_says_that_the_bucket_is(
    api: FakeApi, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_s3(monkeypatch) as s3, lease.hold_store("s3://maps/slovenia", "italy-01234567"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        bucket = f"storage={{s3://maps: {{endpoint: '{s3.url}', region: eu-central-1}}}}"
        code, _, err = submit("--no-estimate", bucket)
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    assert code == 1, err
    assert "run 'italy-01234567' (process" in err
    assert api.requests == []


def test_free_store_is_submitted_to_without_a_word_and_without_heavy_packages(
    api: FakeApi, run_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", MODULES, "submit", run_file, "--detach", "--no-estimate"]
    with serve_s3(monkeypatch):
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "another run" not in done.stderr
    result, modules = done.stdout.splitlines()
    assert json.loads(result)["what"] == "created"
    assert modules == "[]"


def test_taking_over_is_the_drivers_to_do(
    api: FakeApi, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_s3(monkeypatch), lease.hold_store("s3://maps/slovenia", "italy-01234567"):
        assert submit("--no-estimate", "--take-over")[0] == 0
    assert sent(api)["run"]["lease"] == "take-over"
    code, _, err = submit("--no-estimate", "--take-over", "--wait-for-lease")
    assert code == 2
    assert "exclude each other" in err


def test_what_cannot_be_seen_from_here_is_left_to_the_driver(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        forecast, "forecast", lambda *_, **__: Forecast(["no estimate from here: why"])
    )
    with serve_s3(monkeypatch) as s3:
        s3.refuse["GET"] = (403, "AccessDenied")
        code, _, err = submit()
    assert code == 0, err
    assert "whether another run writes the store is left to the driver: " in err
    assert "no estimate from here: why" in err
    assert "no estimate" not in submit("--no-estimate")[2]
    assert "at most 12.7 h" in err


@pytest.mark.parametrize(
    ("arguments", "pod", "shown"),
    [([], False, True), ([], True, False), (["--estimate"], True, True)],
)
def test_estimate_is_made_where_somebody_reads_it(
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    pod: bool,
    shown: bool,
) -> None:
    monkeypatch.setattr(lease, "check_free", lambda *_: "")
    monkeypatch.setattr(forecast, "forecast", lambda *_, **__: Forecast(["estimate of the test"]))
    monkeypatch.setattr(forecast, "is_pod", lambda: pod)
    assert ("estimate of the test" in submit("cluster.namespace=maps", *arguments)[2]) is shown


@pytest.mark.parametrize(
    ("arguments", "tasks", "gi", "told"),
    [
        ([], 300, 8, "head: 8 GiB for 300 tasks on at most 4 pods"),
        ([], 200_000, 19, "head: 19 GiB for 200,000 tasks on at most 4 pods"),
        (["cluster.head.memory_gi=3"], 300, 3, "head: 3 GiB, as the run file says, for 300 tasks"),
        (["cluster.head.memory_gi=3"], 9_000, 3, "9,000 tasks on at most 4 pods may need 5 GiB"),
    ],
)
def test_head_is_sized_from_the_estimate_and_told_before_the_bound(
    api: FakeApi,
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    tasks: int,
    gi: int,
    told: str,
) -> None:
    monkeypatch.setattr(lease, "check_free", lambda *_: "")
    monkeypatch.setattr(forecast, "forecast", lambda *_, **__: Forecast([], tasks))
    code, _, err = submit(*arguments)
    assert code == 0, err
    assert told in err
    assert f"18 CPUs, {64 + gi} GiB if admitted once" in err
    assert sent(api)["cluster"]["head"]["memory_gi"] == gi


def test_head_of_a_cluster_that_stays_is_not_ours_to_size(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "check_free", lambda *_: "")
    monkeypatch.setattr(forecast, "forecast", lambda *_, **__: Forecast([], 300))
    assert "head:" not in submit("--cluster", "eoray")[2]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Days of the estimates that were made, each of 200 000 tasks, which need 19 GiB."""
    days: list[str] = []

    def forecast_of(_: str, __: Sequence[str], config: RunConfig, **___: Any) -> Forecast:
        days.append(config.time)
        return Forecast(["estimate of the test"], 200_000)

    monkeypatch.setattr(lease, "check_free", lambda *_: "")
    monkeypatch.setattr(forecast, "forecast", forecast_of)
    return days


def head_gi(api: FakeApi) -> float:
    return float(sent(api)["cluster"]["head"]["memory_gi"])


def test_head_of_a_window_is_sized_for_its_days(
    api: FakeApi, submit: Submit, asked: list[str]
) -> None:
    assert submit("--scheduled-time", "2024-03-01T03:00", "--lookback-days", "10")[0] == 0
    assert asked == ["2024-02-20/2024-02-29"]
    assert head_gi(api) == 19


def test_head_of_a_submission_from_python_is_sized(
    api: FakeApi, run_file: str, asked: list[str]
) -> None:
    told: list[str] = []
    eoray.submit(run_file, tell=told.append)
    assert told[:2] == [
        "estimate of the test",
        "head: 19 GiB for 200,000 tasks on at most 4 pods",
    ]
    assert head_gi(api) == 19


def test_heads_of_phases_are_sized_once(api: FakeApi, run_file: str, asked: list[str]) -> None:
    next(submit_phases(run_file))
    assert (asked, head_gi(api)) == (["2024-01-01/2024-12-31"], 19)


@pytest.mark.parametrize(("how", "pod"), [({"estimate": False}, False), ({}, True)])
def test_head_stays_where_no_estimate_is_made(
    api: FakeApi,
    run_file: str,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    how: dict[str, Any],
    pod: bool,
) -> None:
    monkeypatch.setattr(forecast, "is_pod", lambda: pod)
    eoray.submit(run_file, **how)
    assert (asked, head_gi(api)) == ([], 8)


def test_run_file_that_pods_cannot_use_is_refused_before_the_estimate(
    run_file: str, asked: list[str]
) -> None:
    with pytest.raises(ConfigError, match="aoi"):
        eoray.submit(run_file, ["aoi=/data/aoi.geojson"])
    assert asked == []


def test_heads_of_a_schedule_are_sized_for_a_window_that_ends_today(
    api: FakeApi, run_file: str, asked: list[str]
) -> None:
    told: list[str] = []
    eoray.schedule(run_file, cron="0 3 * * 1", lookback_days=21, tell=told.append)
    assert told[1] == "head: 19 GiB for 200,000 tasks on at most 4 pods"
    (days,) = asked
    first, last = map(date.fromisoformat, days.split("/"))
    assert ((last - first).days, (datetime.now(UTC).date() - last).days) == (20, 1)
    assert head_gi(api) == 19


@pytest.mark.parametrize(
    ("arguments", "gi"),
    [([], 19), (["--no-estimate"], 8), (["cluster.head.memory_gi=3"], 3)],
)
def test_schedule_apply_sizes_the_heads_of_its_runs(
    api: FakeApi,
    run_file: str,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    gi: int,
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["schedule", "apply", run_file, "--cron", "0 3 * * 1", *arguments])
    said = capsys.readouterr().err
    assert not ended.value.code, said
    assert len(asked) == (gi != 8)
    assert f"18 CPUs, {64 + gi} GiB if admitted once" in said
    assert head_gi(api) == gi


def test_schedule_whose_days_are_to_come_has_no_estimate(
    api: FakeApi, run_file: str, asked: list[str]
) -> None:
    today = datetime.now(UTC).date()
    tick, last = today + timedelta(days=10), today + timedelta(days=100)
    told: list[str] = []
    eoray.schedule(
        run_file,
        [f"time={today}/{last}"],
        cron=f"0 3 {tick.day} {tick.month} *",
        tell=told.append,
    )
    assert "no estimate from here: the window up to" in told[0]
    assert (asked, head_gi(api)) == ([], 8)
