"""Keys and names stay the same for the same run and fit what KubeRay allows."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.config import RunConfig, parse_config
from eoray.errors import ConfigError
from eoray.k8s.names import MAX_NAME, attempt_name, run_key, split_attempt
from tests.k8s.conftest import RUN_FILE

RFC_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@given(
    name=st.from_regex(r"[a-z0-9][a-z0-9-]{0,39}", fullmatch=True),
    number=st.integers(1, 999),
    work=st.sampled_from(["", "heal"]),
)
def test_any_run_name_gives_a_name_that_kuberay_takes_and_that_reads_back(
    name: str, number: int, work: str
) -> None:
    config = parse_config(RUN_FILE.replace("name: slovenia", f"name: '{name}'"))
    key = run_key(config, "image:1", work=work)
    made = attempt_name(key, number)
    assert len(made) <= MAX_NAME
    assert RFC_1035.fullmatch(made)
    assert split_attempt(made) == (key, number)


def test_key_follows_run_file_image_and_stages_and_not_the_cluster(
    config: RunConfig, read_config: Any
) -> None:
    key = run_key(config, "image:1")
    assert run_key(read_config("cluster.deadline_minutes=7"), "image:1") == key
    others = {
        run_key(config, "image:2"),
        run_key(config, "image:1", ["cube"]),
        run_key(read_config("time=2024-01-01/2024-06-30"), "image:1"),
    }
    assert len(others | {key}) == 4


def test_thousandth_attempt_is_refused(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match="attempt 1000 of run 'a-01234567' has no name"):
        attempt_name("a-01234567", 1000)


@pytest.mark.parametrize("name", ["slovenia", "slovenia-01234567", "slovenia-0123456-1"])
def test_other_names_are_no_attempts(name: str) -> None:
    assert split_attempt(name) is None
