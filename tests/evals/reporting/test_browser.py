"""The error browser's data: which examples are chosen, their thumbnails, their fields."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from relvlm.evals.reporting.browser import THUMBNAIL, Pictures, browser, choose, plot_tag, records_of
from relvlm.evals.results import cards_of
from relvlm.evals.tasks.task import Card


def cards(*sides: tuple[str, bool, int]) -> list[Card]:
    """So many of each piece and outcome, named by their number."""
    return [Card((), (), right, piece, str(i)) for piece, right, number in sides for i in range(number)]


def test_of_each_piece_some_right_and_some_wrong_ones_are_chosen() -> None:
    chosen = choose(cards(("a", True, 5), ("a", False, 1), ("b", True, 3)), 2)
    assert [(c.piece, c.right, c.what) for c in chosen] == [
        ("a", True, "0"),
        ("a", True, "2"),
        ("a", False, "0"),
        ("b", True, "0"),
        ("b", True, "1"),
    ]


def test_they_are_spread_over_the_file() -> None:
    assert [c.what for c in choose(cards(("a", True, 12)), 4)] == ["0", "3", "6", "9"]
    assert [c.what for c in choose(cards(("a", True, 4)), 4)] == ["0", "1", "2", "3"]


def test_none_is_left_out_where_all_are_wanted() -> None:
    assert len(choose(cards(("a", True, 50)), 0)) == 50
    assert len(choose(cards(("a", True, 50)))) == 12


def picture(src: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2])))


@pytest.fixture()
def images(tmp_path: Path) -> Path:
    image = Image.new("RGB", (900, 450), (255, 255, 255))
    image.paste((255, 0, 0), (0, 0, 40, 20))
    (tmp_path / "images").mkdir()
    image.save(tmp_path / "images/a.png")
    return tmp_path / "images"


def test_a_picture_is_a_thumbnail_once_however_often_it_is_shown(images: Path) -> None:
    pictures = Pictures()
    assert [pictures.add("a", images, box) for box in (None, (0, 0, 40, 20), None)] == [0, 1, 0]
    whole, crop = (picture(item["src"]) for item in pictures.items)
    assert (whole.size, crop.size) == ((THUMBNAIL, THUMBNAIL // 2), (40, 20))
    red, green, _ = crop.convert("RGB").getpixel((20, 10))  # type: ignore[misc]
    assert red > 240 and green < 20
    assert THUMBNAIL == 224


def test_a_picture_that_is_gone_is_named(images: Path) -> None:
    pictures = Pictures()
    pictures.add("b", images, None)
    pictures.add("a", images / "none", None)
    assert pictures.items == [{"name": "b", "src": ""}, {"name": "a", "src": ""}]


SUGAR = [{"label": f"0_{e}", "piece": "swap_obj", "score": 0.5, "image": "a", "text": e} for e in "cn"]


@pytest.mark.parametrize(("split", "task"), [({}, ""), ({"split": "test"}, ""), ({"split": "val"}, " val")])
def test_an_example_is_its_card_with_model_and_task(images: Path, tmp_path: Path, split: dict, task: str) -> None:
    figures = {"task": "sugarcrepe", "protocol": {"images": str(images)}, **split}
    (tmp_path / "metrics.json").write_text(json.dumps(figures))
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SUGAR))
    pictures = Pictures()
    assert records_of("A", [tmp_path], pictures, 1) == [
        {
            "model": "A",
            "task": f"sugarcrepe{task}",
            "piece": "swap_obj",
            "right": False,
            "images": [0],
            "lines": (("caption:", "c", 0.5), ("foil:", "n", 0.5)),
            "what": "",
        }
    ]


def test_a_photo_is_looked_up_as_it_was_scored(images: Path, tmp_path: Path) -> None:
    """Another data set has one of the same number."""
    for folder in ("flickr30k-images", "VG_100K"):
        (images / folder).mkdir()
        shutil.copy(images / "a.png", images / folder / "1234567.png")
    (tmp_path / "metrics.json").write_text(json.dumps({"task": "flickr30k", "protocol": {"images": str(images)}}))
    (tmp_path / "gallery.json").write_text(json.dumps({"images": ["1234567"], "texts": ["a"]}))
    row = {"image": 0, "text": 0, "score": 0.5, "label": 1, "tr": 1, "ir": 1}
    (tmp_path / "scores.jsonl").write_text(json.dumps(row))
    pictures = Pictures()
    records_of("A", [tmp_path], pictures, 1)
    assert [bool(picture["src"]) for picture in pictures.items] == [True]


def test_an_example_with_a_page_comes_first_and_names_it(images: Path, tmp_path: Path) -> None:
    rows = [{**row, "label": f"{n}_{row['text']}", "score": 0.1 * n} for n in range(9) for row in SUGAR]
    (tmp_path / "metrics.json").write_text(json.dumps({"task": "sugarcrepe", "protocol": {"images": str(images)}}))
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    last = cards_of(tmp_path)[-1]
    first, second = records_of("A", [tmp_path], Pictures(), 1, {tmp_path: {last: "explain/1.html"}})
    assert (first["page"], first["lines"]) == ("explain/1.html", last.lines)
    assert "page" not in second and second["lines"] != last.lines


def test_no_text_ends_the_script_and_the_data_are_read_again() -> None:
    records = [{"lines": [["caption:", "</script><b>é", 0.5]]}]
    page = browser(records, Pictures())
    data = re.findall(r"id=examples>(.*?)</script>", page)[0]
    assert json.loads(data) == {"examples": records, "pictures": []} and "<" not in data
    assert all(f"<select name={name}>" in page for name in ("model", "task", "piece", "outcome"))


def test_a_plot_is_held_in_the_page(tmp_path: Path) -> None:
    (tmp_path / "a&b.png").write_bytes(b"png")
    assert plot_tag(tmp_path / "a&b.png") == '<img class=plot alt="a&amp;b" src="data:image/png;base64,cG5n">'
