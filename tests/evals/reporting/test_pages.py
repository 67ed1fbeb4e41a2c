"""Sections in three markups."""

from pathlib import Path

from relvlm.evals.reporting.browser import Pictures
from relvlm.evals.reporting.pages import Section, as_html, as_latex, as_markdown

LINES = [["a", "b"], ["<x>", "1"]]


def sections(folder: Path) -> list[Section]:
    (folder / "p q.png").write_bytes(b"png")
    first = Section("One", "Note <1>.", (("", LINES), ("Caption", LINES)), (folder / "p q.png",))
    return [first, Section("Two", "Note.", (("", LINES),), (), folded=True)]


def test_markdown_has_titles_notes_tables_and_links(tmp_path: Path) -> None:
    table = "| a   | b |\n|-----|--:|\n| <x> | 1 |"
    one = f"## One\n\nNote <1>.\n\n{table}\n\nCaption:\n\n{table}\n\n![p q](p%20q.png)"
    assert as_markdown(sections(tmp_path), tmp_path) == f"{one}\n\n## Two\n\nNote.\n\n{table}"


def test_latex_has_every_table_with_its_title(tmp_path: Path) -> None:
    text = as_latex(sections(tmp_path))
    assert [line for line in text.split("\n") if "caption" in line] == [
        r"\caption{One}",
        r"\caption{One: Caption}",
        r"\caption{Two}",
    ]
    assert text.count("\n\n") == 2


def test_html_is_escaped_and_folded_where_it_says_so(tmp_path: Path) -> None:
    page = as_html(sections(tmp_path), [], Pictures())
    assert "<p>Note &lt;1&gt;.</p>" in page and "<p><b>Caption</b></p>" in page
    assert page.count("<div class=wide>") == 3 and page.count("<p><b>") == 1
    assert page.count("<details>") == 1 and page.index("<details>") > page.index("Two")
    assert page.count("<img class=plot") == 1
    assert "id=browser" not in page
    assert "id=browser" in as_html([], [{"model": "A"}], Pictures())
