"""A table of strings as Markdown, LaTeX and HTML. The first line is its head; `**cell**` is bold."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

Lines = Sequence[Sequence[str]]
LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "\\": "\\textbackslash{}",
}


def markdown(lines: Lines) -> str:
    """A Markdown table whose source lines up too."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = [
        "| " + " | ".join(_padded(cell, w, i) for i, (cell, w) in enumerate(zip(line, widths, strict=True))) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])


def latex(lines: Lines, caption: str) -> str:
    """A `table` environment of booktabs' rules."""
    head, *body = [" & ".join(_latex_cell(cell) for cell in line) + r" \\" for line in lines]
    columns = "l" + "r" * (len(lines[0]) - 1)
    rows = [r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    inner = [rf"\begin{{tabular}}{{{columns}}}", *rows, r"\end{tabular}"]
    return "\n".join([r"\begin{table}", r"\centering", rf"\caption{{{_escaped(caption)}}}", *inner, r"\end{table}"])


def html_table(lines: Lines) -> str:
    """A `<table>`; numbers to the right."""
    head, *body = lines
    rows = ["<tr>" + "".join(f"<th>{_html_cell(cell)}</th>" for cell in head) + "</tr>"]
    rows += ["<tr>" + "".join(f"<td>{_html_cell(cell)}</td>" for cell in line) + "</tr>" for line in body]
    return "<table>" + "\n".join(rows) + "</table>"


def _padded(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


def _bold(cell: str) -> tuple[bool, str]:
    found = re.fullmatch(r"\*\*(.*)\*\*", cell)
    return (True, found[1]) if found else (False, cell)


def _latex_cell(cell: str) -> str:
    bold, text = _bold(cell)
    return rf"\textbf{{{_escaped(text)}}}" if bold else _escaped(text)


def _escaped(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in text)


def _html_cell(cell: str) -> str:
    bold, text = _bold(cell)
    return f"<b>{html.escape(text)}</b>" if bold else html.escape(text)
