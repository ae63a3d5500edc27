from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from eoray.report import ReportData, write_report
from eoray.report.page import render_page, to_document
from eoray.report.sections import SECTIONS, headline


class Reader(HTMLParser):
    """Collects what a page loads, its anchors, texts and whether its tags close."""

    VOID = frozenset(("meta", "img", "path", "rect", "circle"))

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.anchors: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if values.get("src") or tag == "link":
            self.loads.append(str(values.get("src") or values.get("href")))
        if tag == "a":
            self.anchors.append(str(values["href"]))
        if tag == "img":
            self.images.append(values)
        if values.get("id"):
            self.ids.append(str(values["id"]))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(scope="module")
def html(data: ReportData) -> str:
    return render_page(data)


@pytest.fixture(scope="module")
def page(html: str) -> Reader:
    return Reader(html)


@pytest.fixture(scope="module")
def bare(data: ReportData) -> ReportData:
    """A run that made a cube and nothing else."""
    return replace(
        data,
        legend=(),
        views=(),
        validation=None,
        assessment=None,
        change=None,
        stages=(),
        skipped=(),
        limits=(),
        is_synthetic=False,
        notice="Contains modified Copernicus Sentinel data [2020-2023]",
        input=replace(data.input, lineage=(), clear_by_year={}, missing_share=None, audit=None),
    )


def test_page_has_every_section_and_a_link_to_it(page: Reader) -> None:
    assert page.ids == [section.id for section in SECTIONS]
    assert [f"#{name}" for name in page.ids] == page.anchors[-len(SECTIONS) :]
    assert set(page.anchors) <= {f"#{name}" for name in page.ids}


def test_missing_passes_have_a_table_and_a_chart(html: str, bare: ReportData) -> None:
    assert "Passes that are missing" in html
    assert '<th scope="row">065</th><td>S2B</td><td class="num">72</td>' in html
    assert "no scene from 2022-03-04 to 2022-04-13, 5 passes" in html
    assert "Passes that are missing" not in render_page(bare)


def test_page_loads_nothing(html: str, page: Reader) -> None:
    assert page.loads
    assert all(source.startswith("data:image/png;base64,") for source in page.loads)
    assert "script" not in page.tags
    assert not re.search(r"url\(|@import|https?://", html)


def test_tags_close_in_order(page: Reader) -> None:
    assert page.open == []


def test_every_picture_and_chart_is_described(html: str, page: Reader) -> None:
    assert len(page.images) == 8
    assert all(len(str(image["alt"])) > 8 for image in page.images)
    assert html.count("<svg") == html.count('role="img" aria-label=') == 6


def test_figures_are_numbered_in_order(html: str) -> None:
    numbers = [int(n) for n in re.findall(r"<b>Figure (\d+)\.</b>", html)]
    assert numbers == list(range(1, 12))


@pytest.mark.parametrize(
    "text",
    [
        "Synthetic data.",
        "Mapped area (biased), ha",
        "Validation score",
        "this is not the accuracy of the map",
        "per-pixel nearest mean, same split",
        "never observed",
        "observed, but not monitored",
        "an older processing of the same datatake and granule",
        "Clear on fewer than 5 % of dates by SCL",
        "1 date beyond 0.5 px left out of change",
        "0.95 ± 0.07",
        "Contains no Copernicus Sentinel data",
        "Registration was not measured.",
        "every break found there is false",
        "sentinel-2a",
        "05.10",
        "3X9K2Q7W",
        "1.9 GB",
    ],
)
def test_page_says(page: Reader, text: str) -> None:
    assert text in " ".join(" ".join(page.texts).split())


def test_estimates_stand_with_their_intervals(page: Reader, data: ReportData) -> None:
    assert data.assessment is not None
    water = data.assessment["classes"][0]
    value, half = (water["area_m2"][key] / 1e4 for key in ("value", "ci95_half_width"))
    assert f"{value:,.1f} ± {half:,.1f}" in page.texts
    assert "309.8" in page.texts  # 31 000 px of 99.93 m2


def test_missing_parts_are_said_in_words(bare: ReportData) -> None:
    text = " ".join(Reader(render_page(bare)).texts)
    assert "not assessed" in text
    assert text.count("not run") == 3
    assert "Not measured." in text
    assert "Nothing was left out." in text
    assert "Synthetic" not in text
    assert "Contains modified Copernicus Sentinel data [2020-2023]" in text


def test_map_without_a_sample_shows_biased_areas_only(data: ReportData) -> None:
    unassessed = replace(data, assessment=None, mapped_m2={1: 1e6, 2: 2.5e6})
    text = " ".join(Reader(render_page(unassessed)).texts)
    assert "Not assessed." in text
    assert "250.0" in text
    assert "producer" not in text.lower()


def test_text_of_a_run_is_escaped(data: ReportData) -> None:
    html = render_page(replace(data, title="<script>alert(1)</script>", place="a & b"))
    assert "<script" not in html
    assert "a &amp; b" in html


def test_written_page_and_twin_are_the_same_every_time(data: ReportData, tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        url = write_report(data, str(tmp_path / name))
        assert url.endswith("index.html")
        files = [Path(url), Path(url).with_name("report.json")]
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1]


def test_twin_holds_the_same_figures(data: ReportData) -> None:
    document = json.loads(json.dumps(to_document(data), allow_nan=False))
    assert [row["value"] for row in document["headline"]] == [row[1] for row in headline(data)]
    assert document["input"]["lineage"][0]["n_dates"] == 18
    assert document["views"][0]["classes"] == {"shape": [420, 520], "dtype": "uint8"}
    assert document["limits"][-1] == "Registration was not measured."
    assert document["assessment"]["overall_accuracy"]["value"] == pytest.approx(0.872, abs=5e-4)


def test_twin_says_not_assessed(bare: ReportData) -> None:
    assert to_document(bare)["assessment"] == "not assessed"
