"""Which image a pod gets."""

from __future__ import annotations

import tomllib

import pytest

from tests.chart.release import CHART, Manifest, render

DIGEST = "sha256:" + "a" * 64


def _image_of_submit(image: Manifest) -> str:
    pod = render({"image": image}).one("Pod", "eoray-doctor")
    return str(pod["spec"]["containers"][0]["image"])


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, "eoray/eoray-submit:0.1.0"),
        ({"submit": {"tag": "1.2"}}, "eoray/eoray-submit:1.2"),
        ({"submit": {"tag": "1.2", "digest": DIGEST}}, f"eoray/eoray-submit@{DIGEST}"),
        ({"registry": "r.example.org:5000"}, "r.example.org:5000/eoray/eoray-submit:0.1.0"),
        ({"registry": "r.example.org/m/"}, "r.example.org/m/eoray/eoray-submit:0.1.0"),
        ({"submit": {"repository": "other/submit"}}, "other/submit:0.1.0"),
        ({"digest": DIGEST, "tag": "9"}, "eoray/eoray-submit:0.1.0"),
    ],
)
def test_the_digest_wins_over_the_tag_over_the_charts_version(
    image: Manifest, reference: str
) -> None:
    assert _image_of_submit(image) == reference


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({"tag": "1.2"}, "eoray/eoray:1.2"),
        ({"tag": "1.2", "digest": DIGEST}, f"eoray/eoray@{DIGEST}"),
    ],
)
def test_the_head_takes_the_main_image(image: Manifest, reference: str) -> None:
    cluster = render({"image": image, "cluster": {"enabled": True}}).one("RayCluster")
    head = cluster["spec"]["headGroupSpec"]["template"]["spec"]
    assert head["containers"][0]["image"] == reference


def test_the_default_tag_is_the_packages_version() -> None:
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text())["project"]
    assert _image_of_submit({}) == f"eoray/eoray-submit:{project['version']}"
