"""One table in three markups."""

from relvlm.evals.tables import html_table, latex, markdown

LINES = [["a_b", "50%"], ["**x & y**", "<i>|"], ["l~", "**1"]]


def test_markdown_lines_up_and_escapes_bars() -> None:
    assert markdown(LINES) == "\n".join(
        [
            "| a_b       |   50% |",
            "|-----------|------:|",
            r"| **x & y** | <i>\| |",
            "| l~        |   **1 |",
        ]
    )


def test_latex_is_escaped_and_bold() -> None:
    lines = latex(LINES, "50% of it").split("\n")
    assert lines[:3] == [r"\begin{table}", r"\centering", r"\caption{50\% of it}"]
    assert lines[3:6] == [r"\begin{tabular}{lr}", r"\toprule", r"a\_b & 50\% \\"]
    assert lines[6:9] == [r"\midrule", r"\textbf{x \& y} & <i>| \\", r"l\textasciitilde{} & **1 \\"]
    assert lines[9:] == [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    assert r"{lrr}" in latex([["a", "b", "c"]], "")


def test_html_is_escaped_and_bold() -> None:
    assert html_table(LINES) == (
        "<table><tr><th>a_b</th><th>50%</th></tr>\n"
        "<tr><td><b>x &amp; y</b></td><td>&lt;i&gt;|</td></tr>\n"
        "<tr><td>l~</td><td>**1</td></tr></table>"
    )
