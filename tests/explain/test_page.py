"""The page: whole in itself, escaped, and without complaint in a real browser."""

import re
from pathlib import Path

import pytest
from support.chromium import ABSENT, CHROMIUM, rendered
from support.readers import ALBEF, VIT, noise, reader

from relvlm.explain.explanation import explain
from relvlm.explain.overlay import heat_address
from relvlm.explain.page import _meter, _percent, page
from relvlm.explain.query import Query, Triplet, read_query


@pytest.fixture(scope="module")
def triplet_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    model = reader(tmp_path_factory.mktemp("reader"), VIT)
    return page("man riding horse", [explain(model, noise(0), read_query("man; riding; horse"))], "p.png")


def test_it_needs_no_other_file(triplet_page: str) -> None:
    assert not re.findall(r"(?:src|href)=[\"']?(?!data:|[\"']?data:)", triplet_page)
    assert not re.findall(r"url\((?!data:)", triplet_page)
    assert "http" not in triplet_page


def test_the_photo_is_held_once_however_often_it_is_shown(triplet_page: str) -> None:
    assert triplet_page.count("background-image:url(data:image/png") == 1
    assert triplet_page.count('<div class="view p0') == 2 + 2 + 1 + 3  # photo, all, entities, swapped, words


def test_it_has_each_word_both_bars_and_a_legend(triplet_page: str) -> None:
    for word in ("man", "riding", "horse"):
        assert f"<b>{word}</b>" in triplet_page
    assert triplet_page.count("<table class=bars>") == 2 and triplet_page.count("<tr class=own>") == 2
    assert "<span class='key subject'>subject</span>" in triplet_page and "predicted" in triplet_page
    assert "<b class=given>" not in triplet_page


def test_each_word_has_its_own_map(tmp_path: Path) -> None:
    found = explain(reader(tmp_path), noise(0), read_query("man; riding; horse"))
    made = page("t", [found]).partition("Word by word")[2]
    places = [made.index(heat_address(found.reply.heat.of_words(i, i + 1), found.grid)) for i in range(3)]
    assert places == sorted(places)


def test_texts_are_escaped(tmp_path: Path) -> None:
    query = Query("<b>man", Triplet("<b>man", "<i>on", "horse"))
    made = page("<u>", [explain(reader(tmp_path), noise(0), query)], "<s>")
    assert not re.search(r"<b>man|<i>on|<u>|<s>", made)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    made = page("t", [explain(reader(tmp_path, ALBEF), noise(0), read_query("man; on; horse"))])
    assert "no box head" in made and "no relation head" in made and "<rect" not in made and "class=bars" not in made


def test_several_photos_have_classes_of_their_own(tmp_path: Path) -> None:
    model = reader(tmp_path)
    made = page("t", [explain(model, noise(i), read_query("a man")) for i in range(2)])
    assert made.count("<section>") == 2 and ".p1 i{" in made and 'class="view p1' in made


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0.0%"), (0.0004, "&lt;0.1%"), (0.001, "0.1%"), (0.5, "50.0%"), (0.9995, "&gt;99.9%"), (1.0, "100.0%")],
)
def test_a_percentage_never_says_none_or_all_of_what_is_neither(share: float, said: str) -> None:
    assert _percent(share) == said


def test_a_bar_is_as_long_as_its_share() -> None:
    assert "width:25.0%" in _meter(0.25) and "width:100.0%" in _meter(1)


@pytest.mark.skipif(CHROMIUM is None, reason=ABSENT)
@pytest.mark.slow
def test_a_real_browser_shows_it_without_complaint(triplet_page: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(triplet_page)
    shown, console = rendered(f"file://{tmp_path}/page.html", tmp_path / "profile")
    assert console == []
    assert shown.count("<figure>") == 8 and shown.count("<svg") == 3 and shown.count("<tr") == 8
