"""A report's sections as Markdown, as LaTeX, and as one HTML page that needs no other file."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from relvlm.evals.files import Row
from relvlm.evals.reporting.browser import STYLE as BROWSER_STYLE
from relvlm.evals.reporting.browser import Pictures, browser, plot_tag
from relvlm.evals.tables import Lines, html_table, latex, markdown

STYLE = """
body{font:15px/1.4 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:.85em;margin:.7rem 0;font-variant-numeric:tabular-nums}
td,th{white-space:nowrap;padding:.2rem .6rem;text-align:right;border-bottom:1px solid #e4e4e4}
td:first-child,th:first-child{text-align:left}th{border-bottom:1px solid #999}
.wide{overflow-x:auto}h2{margin-top:2rem}
.plots{display:grid;gap:.6rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));align-items:start}
img.plot{max-width:100%}.plots.one{display:block}
"""


@dataclass(frozen=True)
class Section:
    """`tables`: (caption, lines) each; `folded`: closed at first in HTML."""

    title: str
    note: str
    tables: tuple[tuple[str, Lines], ...]
    plots: tuple[Path, ...]
    folded: bool = False


def as_markdown(sections: Sequence[Section], folder: Path) -> str:
    """All tables; plots as links from `folder`."""
    parts = []
    for section in sections:
        parts += [f"## {section.title}", section.note]
        for caption, lines in section.tables:
            parts += [f"{caption}:"] * bool(caption) + [markdown(lines)]
        parts += [f"![{plot.stem}]({quote(str(plot.relative_to(folder)))})" for plot in section.plots]
    return "\n\n".join(parts)


def as_latex(sections: Sequence[Section]) -> str:
    """The tables, for a paper that loads booktabs."""
    tables = [
        latex(lines, ": ".join(filter(None, (section.title, caption))))
        for section in sections
        for caption, lines in section.tables
    ]
    return "\n\n".join(tables)


def as_html(sections: Sequence[Section], examples: list[Row], pictures: Pictures) -> str:
    """One page: sections, then the error browser where there are examples."""
    body = "\n".join(_section(section) for section in sections)
    shown = browser(examples, pictures) if examples else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>relvlm report</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}{BROWSER_STYLE}</style>"
        f"<h1>Report</h1>{body}{shown}</html>"
    )


def _section(section: Section) -> str:
    plots = "".join(plot_tag(path) for path in section.plots)
    if plots:
        plots = f"<div class='plots{' one' * (len(section.plots) == 1)}'>{plots}</div>"
    tables = "".join(
        f"<p><b>{html.escape(caption)}</b></p>" * bool(caption) + f"<div class=wide>{html_table(lines)}</div>"
        for caption, lines in section.tables
    )
    inner = f"<p>{html.escape(section.note)}</p>{plots}{tables}"
    if section.folded:
        inner = f"<details><summary>show</summary>{inner}</details>"
    return f"<section><h2>{html.escape(section.title)}</h2>{inner}</section>"
