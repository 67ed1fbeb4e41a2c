"""The nearest photos, in the order of their match."""

from pathlib import Path

import pytest
import torch

import relvlm
from relvlm.errors import UserError
from relvlm.library.index import Index
from relvlm.library.score import score, whole_text_scorer
from relvlm.library.search import search, search_photos
from relvlm.model import RelVLM

TEXT = "a man riding a horse"


def test_with_all_as_candidates_the_order_is_that_of_the_scores(model: RelVLM, photos: list[Path]) -> None:
    hits = search(model, photos[0].parent, TEXT)
    scores = score(model, photos, [TEXT])[:, 0]
    assert [hit.path for hit in hits] == [photos[i] for i in scores.argsort(descending=True).tolist()]
    assert [hit.match for hit in hits] == pytest.approx(scores.sort(descending=True).values.tolist(), abs=1e-6)


def test_only_the_nearest_by_features_are_re_scored(model: RelVLM, photos: list[Path]) -> None:
    scorer = whole_text_scorer(model)
    cosine = (scorer.image_features(photos) @ scorer.text_features([TEXT]).T)[:, 0]
    nearest = {photos[i] for i in cosine.topk(3).indices.tolist()}
    hits = search(model, photos[0].parent, TEXT, candidates=3)
    assert {hit.path for hit in hits} == nearest
    assert sorted((hit.cosine for hit in hits), reverse=True) == pytest.approx(cosine.topk(3).values.tolist(), abs=1e-6)
    matches = [hit.match for hit in hits]
    assert matches == sorted(matches, reverse=True)
    assert [hit.path for hit in search(model, photos[0].parent, TEXT, 2, 3)] == [hit.path for hit in hits[:2]]


def test_as_many_are_candidates_as_are_asked_for(model: RelVLM, photos: list[Path], monkeypatch) -> None:
    monkeypatch.setattr("relvlm.library.search.CANDIDATES", 2)
    assert [len(search(model, photos[0].parent, TEXT, best)) for best in (1, 2, 4)] == [1, 2, 4]


def test_it_is_there_by_its_name_and_keeps_an_index(model: RelVLM, photos: list[Path], tmp_path: Path) -> None:
    first = relvlm.search(model, photos[0].parent, TEXT, index=tmp_path / "index.npz")
    assert (tmp_path / "index.npz").exists()
    assert relvlm.search(model, str(photos[0].parent), TEXT, index=str(tmp_path / "index.npz")) == first


def test_damaged_photos_are_left_out_and_where_all_are_it_is_an_error(model: RelVLM, photos: list[Path]) -> None:
    scorer = whole_text_scorer(model)
    photos[0].write_bytes(b"no image")
    found = search_photos(scorer, Index("m"), photos, TEXT, 3, 6)
    assert (found.photos, list(found.faults), len(found.hits)) == (5, [photos[0]], 3)
    with pytest.raises(UserError, match=r"0\.png: not a readable image.*none of 1 photos"):
        search_photos(scorer, Index("m"), photos[:1], TEXT, 3, 6)


def test_a_text_that_is_too_long_is_refused_before_photos_are_read(model: RelVLM) -> None:
    scorer = whole_text_scorer(model)
    with pytest.raises(UserError, match="longer than"):
        search_photos(scorer, Index("m"), [Path("none.png")], "man " * 11, 3, 6)


def test_features_are_kept_as_they_were(model: RelVLM, photos: list[Path]) -> None:
    scorer = whole_text_scorer(model)
    _, features_BE = Index("m").features(scorer, photos, {})
    torch.testing.assert_close(features_BE.norm(dim=1), torch.ones(6))
