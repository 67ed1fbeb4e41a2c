"""Photos that are missing, damaged, or found under another name: all listed before anything is scored."""

import json
import logging
from pathlib import Path

import pytest
from PIL import Image

from relvlm.errors import UserError
from relvlm.evals.evaluate import evaluate
from relvlm.evals.scoring.scorer import Scorer
from relvlm.evals.tasks import photos
from relvlm.evals.tasks.photos import SHOWN, Photos, usable_photos
from relvlm.evals.tasks.task import Selection


@pytest.fixture()
def images(tmp_path: Path) -> Path:
    for name in "abc":
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / f"images/{name}.jpg")
    return tmp_path / "images"


def whole(*names: str) -> list[tuple[str, None]]:
    return [(name, None) for name in names]


def cut_short(path: Path) -> Path:
    Image.effect_noise((64, 64), 90).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-200])
    return path


def test_all_photos_are_found_once(images: Path, model) -> None:
    found = usable_photos(Scorer(model, model.tokenizer), images, whole("a", "b", "a"), False)
    assert found == Photos({"a": images / "a.jpg", "b": images / "b.jpg"}, {}, (), {})
    assert found.figures() == {"images_missing": 0, "images_damaged": 0, "images_substituted": 0}


def test_missing_and_damaged_photos_are_all_named_at_once(images: Path, model) -> None:
    cut_short(images / "d.jpg")
    (images / "e.jpg").write_text("no image")
    wanted = whole("a", "x", "d", "e", "y")
    scorer = Scorer(model, model.tokenizer)
    with pytest.raises(UserError) as caught:
        usable_photos(scorer, images, wanted, False)
    assert "2 images missing: x, y" in str(caught.value) and "2 images damaged: d (" in str(caught.value)
    assert ", e (" in str(caught.value)
    found = usable_photos(scorer, images, wanted, True)
    assert (list(found.paths), found.missing, list(found.damaged)) == (["a"], ("x", "y"), ["d", "e"])
    assert found.figures()["missing_images"] == ["x", "y", "d", "e"]


def test_no_photo_at_all_is_refused_even_so(images: Path, model) -> None:
    with pytest.raises(UserError, match="1 images missing: x "):
        usable_photos(Scorer(model, model.tokenizer), images, whole("x"), True)


def test_what_several_files_fit_is_damaged(images: Path, model) -> None:
    Image.new("RGB", (8, 8)).save(images / "a.png")
    with pytest.raises(UserError, match=r"1 images damaged: a \(several files fit: a\.jpg, a\.png\)"):
        usable_photos(Scorer(model, model.tokenizer), images, whole("a"), False)


@pytest.mark.parametrize(("box", "fits"), [((39, 29, 50, 50), True), ((40, 0, 50, 30), False), ((-9, 0, 0, 9), False)])
def test_a_box_must_have_a_pixel_of_its_photo(images: Path, model, box: tuple, fits: bool) -> None:
    found = usable_photos(Scorer(model, model.tokenizer), images, [("a", box), ("b", None)], True)
    assert ("a" in found.paths, "a" in found.damaged) == (fits, not fits)


def test_another_name_is_counted_listed_and_logged(images: Path, model, tmp_path: Path, caplog) -> None:
    (images / "train2017").mkdir()
    (images / "a.jpg").rename(images / "train2017/000000000042.jpg")
    cut_short(images / "d.jpg")
    names = ("COCO_val2014_000000000042.jpg", "b.jpg", "d.jpg", "x.jpg")
    rows = [{"image": name, "caption": "a dog", "label": 1, "relation": "on"} for name in names]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = (model, model.tokenizer, "vsr", tmp_path / "test.jsonl", images, tmp_path / "out")
    with pytest.raises(UserError, match=r"1 images missing: x\.jpg; 1 images damaged: d\.jpg"):
        evaluate(*where)
    assert not (tmp_path / "out").exists()
    with caplog.at_level(logging.WARNING):
        found = evaluate(*where, selection=Selection(available=True))
    assert "1 photos have another name or folder: COCO_val2014_000000000042.jpg is train2017/0000" in caplog.text
    counts = ("n", "images_missing", "images_damaged", "images_substituted")
    assert [found[name] for name in counts] == [2, 1, 1, 1]
    assert {name: found["protocol"][name] for name in counts[1:]} == dict.fromkeys(counts[1:], 1)
    listing = json.loads((tmp_path / "out/images.json").read_text())
    assert listing["substituted"] == {names[0]: "train2017/000000000042.jpg"}
    assert (listing["missing"], list(listing["damaged"])) == (["x.jpg"], ["d.jpg"])


@pytest.mark.parametrize(("rank", "warnings"), [(0, 2), (1, 0)])
def test_one_rank_tells_what_is_left_out_and_stood_in_for(monkeypatch, caplog, rank: int, warnings: int) -> None:
    monkeypatch.setattr(photos, "rank", lambda: rank)
    photos._log({"a": "b"}, ("x",), {})
    assert len(caplog.records) == warnings
    photos._log({}, (), {})
    assert len(caplog.records) == warnings
    photos._log({}, (), {"y": "torn"})
    assert len(caplog.records) == warnings + (rank == 0)


@pytest.mark.parametrize(("count", "named"), [(SHOWN, f"n{SHOWN - 1}"), (SHOWN + 1, f"n{SHOWN - 1}, and 1 more")])
def test_the_first_names_are_shown_and_the_others_counted(count: int, named: str) -> None:
    assert photos._some([f"n{i}" for i in range(count)]).endswith(named)
