"""Write the page and its JSON twin; both depend on the data alone, byte for byte."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from html import escape
from importlib import resources
from typing import Any

import numpy as np

from eoray import storage
from eoray.report.data import ReportData
from eoray.report.glance import glance
from eoray.report.limits import derive_limits
from eoray.report.markup import NOT_ASSESSED
from eoray.report.sections import SECTIONS, headline

PAGE = "index.html"
TWIN = "report.json"


def write_report(data: ReportData, out_url: str) -> str:
    """Write ``index.html`` and ``report.json`` into a folder.

    The page needs nothing else: styles, pictures and charts are inside, there is no script, and
    nothing is loaded from the network.

    Args:
        data: What to say.
        out_url: Folder, local or in an object store.

    Returns:
        URL of the page.

    Raises:
        StoreError: The folder cannot be written.
    """
    storage.write_json(storage.join(out_url, TWIN), to_document(data))
    url = storage.join(out_url, PAGE)
    storage.write_bytes(url, render_page(data).encode())
    return url


def to_document(data: ReportData) -> dict[str, Any]:
    """Return the report's content as plain values for JSON; arrays become their shapes."""
    document: dict[str, Any] = _plain(data)
    document["limits"] = derive_limits(data)
    document["headline"] = [
        {"name": name, "value": value, "note": note} for name, value, note in headline(data)
    ]
    if data.assessment is None:
        document["assessment"] = NOT_ASSESSED
    return document


def render_page(data: ReportData) -> str:
    """Return the page as one HTML document."""
    css = resources.files("eoray.report").joinpath("page.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{s.id}">{escape(s.title)}</a></li>' for s in SECTIONS)
    body = "".join(
        f'<section id="{s.id}"><h2>{escape(s.title)}</h2>{s.make(data)}</section>' for s in SECTIONS
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(data.title)}</title><style>{css}</style></head>\n"
        f'<body><div class="layout">{_header(data)}<div class="columns">'
        f'<nav aria-label="Contents"><p>Contents</p><ol>{links}</ol></nav>\n'
        f"<main>{_numbered(body)}</main></div>{_footer(data)}</div></body></html>\n"
    )


def _header(data: ReportData) -> str:
    banner = (
        '<p class="synthetic" role="note"><strong>Synthetic data.</strong> <span>Every image in '
        "this report was rendered by a generator; nothing here describes a real place.</span></p>"
    )
    cards = "".join(
        f'<div class="card"><dt>{escape(name)}</dt>'
        f"<dd{_css(value)}>{escape(value)}</dd><small>{escape(note)}</small></div>"
        for name, value, note in headline(data)
    )
    return (
        f'<header><p class="eyebrow">eoray report · {escape(data.name)}</p>'
        f"<h1>{escape(data.title)}</h1>"
        f'<p class="lede">{escape(data.place)} · {data.period[0]} to {data.period[1]}</p>'
        f'{banner if data.is_synthetic else ""}<dl class="cards">{cards}</dl>'
        f"{glance(data)}</header>"
    )


def _css(value: str) -> str:
    return "" if any(char.isdigit() for char in value) else ' class="words"'


def _footer(data: ReportData) -> str:
    return f"<footer>{escape(data.notice)}</footer>"


def _numbered(body: str) -> str:
    """Number the figures in the order in which they stand."""
    first, *rest = body.split("<figcaption>")
    parts = [f"<figcaption><b>Figure {n}.</b> {part}" for n, part in enumerate(rest, start=1)]
    return first + "".join(parts)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "dtype": value.dtype.name}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
