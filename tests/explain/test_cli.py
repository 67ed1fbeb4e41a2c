"""`relvlm explain`: what it writes, and what is wrong in one message, before anything is written."""

import argparse
import json
from pathlib import Path

import pytest
from support.readers import noise, write_reader
from support.shards import shard_set, toy_photo, write_toys

from relvlm.errors import UserError
from relvlm.explain import cli


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_reader(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture()
def photo(tmp_path: Path) -> str:
    noise(0).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    cli.main(parser.parse_args(arguments))


def test_it_writes_a_page(photo: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "new/page.html"
    boxes = ["--subject-box", "0,0,20,30", "--object-box", "20,0,40,30"]
    run(photo, "man; riding; horse", "--checkpoint", checkpoint, "--out", str(out), *boxes)
    assert capsys.readouterr().out == f"{out}\n"
    page = out.read_text()
    assert "<h1>man riding horse</h1>" in page and 'class="subject given" x="0.0000" y="0.0000" width="0.5000"' in page


def test_pointing_prints_one_object_and_writes_a_line_a_map(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shards, out = write_toys(tmp_path / "set", 3), tmp_path / "lines.jsonl"
    run("--pointing", str(shards), "--checkpoint", checkpoint, "--out", str(out), "--limit", "2")
    said = json.loads(capsys.readouterr().out)
    assert (said["photos"], said["damaged"], said["label"]["n"], said["object"]["n"]) == (2, 0, 4, 2)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 8 and rows[0].keys() == {
        *("image_id", "role", "text", "label"),
        *("heat", "hit", "area", "touched_heat", "touched_hit", "touched_area"),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a PHOTO and a TEXT, or --pointing"),
        (["{photo}", "a man", "--pointing", "x"], "give a PHOTO and a TEXT, or --pointing"),
        (["{photo}"], "TEXT: missing"),
        (["{photo}", "a man", "--limit", "2"], "--limit: of --pointing alone"),
        (["--pointing", "x", "--object-box", "0,0,1,1"], "--object-box: of a PHOTO alone"),
        (["{photo}", "man; riding"], "a triplet has three parts"),
        (["none.jpg", "a man"], "none.jpg: No such file or directory"),
        (["{text}", "a man"], "text.jpg: not a readable image"),
        (["{photo}", "a man", "--out", "page.txt"], "--out: page.txt: not .html"),
        (["{photo}", "a man", "--out", "{text}/page.html"], "--out: .*text.jpg is a file"),
        (["{photo}", "a man", "--subject-box", "0,0,1,1"], "of a triplet alone"),
        (["{photo}", "man; on; dog", "--subject-box", "0,0,1"], "--subject-box: '0,0,1': not four numbers"),
        (["{photo}", "man; on; dog", "--object-box", "0,0,41,30"], "--object-box: 0,0,41,30: empty, or not inside"),
        (["{photo}", "man; on; dog", "--object-box", "5,0,5,30"], "--object-box: 5,0,5,30: empty, or not inside"),
        (["{photo}", "man; on; dog", "--object-box", "nan,0,5,30"], "--object-box: nan,0,5,30: empty, or not inside"),
        (["{photo}", "man " * 11], "13 tokens, the model has positions for 12"),
        (["--pointing", "{folder}"], "manifest.json"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    arguments: list[str], message: str, photo: str, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jpg").write_text("no image")
    before = sorted(tmp_path.rglob("*"))
    places = {"photo": photo, "text": str(tmp_path / "text.jpg"), "folder": str(tmp_path)}
    with pytest.raises(UserError, match=message):
        run(*(part.format(**places) for part in arguments), "--checkpoint", checkpoint)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("box", "fits"), [("0,0,40,30", True), ("0,0,40,30.5", False)])
def test_a_box_may_reach_the_photos_edge(
    box: str, fits: bool, photo: str, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [photo, "man; on; dog", "--object-box", box, "--checkpoint", checkpoint]
    if fits:
        run(*arguments)
        assert (tmp_path / "page.html").exists()
    else:
        with pytest.raises(UserError, match="not inside"):
            run(*arguments)


def test_real_photographs_with_their_annotated_boxes(shared: Path, checkpoint: str, tmp_path: Path) -> None:
    data = shared / "data/coco_cc"
    known = json.loads((data / "annotations/instances.json").read_text())
    labels = {category["id"]: category["name"] for category in known["categories"]}
    for image in known["images"][:3]:
        boxes = [a for a in known["annotations"] if a["image_id"] == image["id"]][:2]
        if len(boxes) < 2:
            continue
        given = []
        for role, (x, y, w, h) in zip(("subject", "object"), (box["bbox"] for box in boxes), strict=True):
            x1, y1 = min(x + w, image["width"]), min(y + h, image["height"])
            given += [f"--{role}-box", f"{x},{y},{x1},{y1}"]
        text = f"{labels[boxes[0]['category_id']]}; on; {labels[boxes[1]['category_id']]}"
        out = tmp_path / f"{image['id']}.html"
        run(str(data / "images" / image["file_name"]), text, "--checkpoint", checkpoint, "--out", str(out), *given)
        page = out.read_text()
        assert page.count("url(data:image/jpeg;base64,") == 1 and page.count("<table class=bars>") == 2
        assert f"aspect-ratio:{image['width']}/{image['height']}" in page
    assert list(tmp_path.glob("*.html"))


def test_a_set_without_boxes_is_refused(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    members = [("b.png", toy_photo(1)), ("b.json", b'{"schema": 1, "image_id": "2", "width": 8, "height": 6}')]
    shard_set(tmp_path / "set", members, 1)
    with pytest.raises(UserError, match="no photo with a labelled box"):
        run("--pointing", str(tmp_path / "set"), "--checkpoint", checkpoint, "--out", str(tmp_path / "a.jsonl"))
    assert not (tmp_path / "a.jsonl").exists()
