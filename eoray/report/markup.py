"""Small pieces of HTML: escaped text in, markup out."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

MISSING = "\N{EN DASH}"
"""Shown where there is no figure."""

NOT_ASSESSED = "not assessed"
NOT_RUN = "not run"


def paragraph(text: str, *, css: str = "") -> str:
    """Write a paragraph of plain text."""
    return f"<p{_class(css)}>{escape(text)}</p>"


def bullets(lines: Iterable[str]) -> str:
    """Write a list of plain texts."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "", text_columns: int = 1
) -> str:
    """Write a table; columns after the first ``text_columns`` hold numbers and align right."""

    def css(column: int) -> str:
        return _class("num" if column >= text_columns else "")

    top = "".join(f'<th scope="col"{css(i)}>{escape(text)}</th>' for i, text in enumerate(head))
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{escape(text)}</th>' if i == 0 else f"<td{css(i)}>{escape(text)}</td>"
            for i, text in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{title}<thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(content: str, caption: str, *, legend: str = "") -> str:
    """Put a picture or chart into a figure with its caption."""
    return f"<figure>{content}{legend}<figcaption>{escape(caption)}</figcaption></figure>"


def picture(png: bytes, alt: str) -> str:
    """Embed a PNG file, so that the page needs nothing else."""
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    data = base64.b64encode(png).decode()
    return (
        f'<img alt="{escape(alt)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}">'
    )


def swatches(entries: Iterable[tuple[str, str]]) -> str:
    """Write a legend of (``#rrggbb``, name) pairs."""
    keys = "".join(
        f'<li><span style="background:{escape(color)}"></span>{escape(name)}</li>'
        for color, name in entries
    )
    return f'<ul class="legend">{keys}</ul>'


def grid(parts: Iterable[str]) -> str:
    """Lay figures side by side where the page is wide enough."""
    return f'<div class="grid">{"".join(parts)}</div>'


def _class(css: str) -> str:
    return f' class="{css}"' if css else ""
