"""The contact sheet of a search."""

from pathlib import Path

from relvlm.library.index import Index
from relvlm.library.score import whole_text_scorer
from relvlm.library.search import search_photos
from relvlm.library.sheet import sheet
from relvlm.model import RelVLM

TEXT = "a man riding a horse"


def test_the_sheet_shows_the_hits_in_order_and_needs_no_other_file(model: RelVLM, photos: list[Path]) -> None:
    found = search_photos(whole_text_scorer(model), Index("m"), photos, TEXT, 4, 6)
    page = sheet("<i>" + TEXT, found)
    assert page.count("<figure>") == 4 and page.count('<img src="data:image/png;base64,') == 4
    assert "<i>" not in page and "The best of 6 photos:" in page and "http" not in page
    places = [page.index(f"{number}. <b>{100 * hit.match:.1f}%") for number, hit in enumerate(found.hits, 1)]
    assert places == sorted(places)
