import json

import pytest
from PIL import Image
from support.pets import build, photo, run, sample
from support.shards import shard_set, toy_photo

from relvlm.data import cli
from relvlm.data.shards.store import DataFault, Record, ShardSet
from relvlm.data.tools.chosen import Card
from relvlm.data.tools.inspect import LISTED, picture, report_damaged
from relvlm.data.tools.preview import WIDTH, png_sheet
from relvlm.errors import UserError


def test_stats_name_what_is_damaged(tmp_path, capsys):
    shard_set(tmp_path / "set", [("k.png", toy_photo(0)), ("k.json", b"[]")], 1)
    assert run("stats", tmp_path / "set") == 0
    assert "damaged: 0.tar: k: invalid sample: record: [] is no JSON object" in capsys.readouterr().err


def test_what_training_counts_as_corrupt_is_a_fault_of_the_sample():
    record = Record("k", "0.tar", photo(1), sample(1))
    assert picture(record, 200).size == (20, 10)
    with pytest.raises(DataFault, match=r"0\.tar: k: image of 20x10 pixels, data\.max_pixels is 199"):
        picture(record, 199)
    with pytest.raises(DataFault, match=r"0\.tar: k: not a readable image"):
        picture(Record("k", "0.tar", b"no image", sample(1)))


def test_stats_prints_text_or_json(tmp_path, capsys):
    build(tmp_path / "set")
    assert run("stats", tmp_path / "set") == 0
    text = capsys.readouterr().out
    assert "left of" in text and "words per caption" in text
    assert run("stats", tmp_path / "set", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["totals"]["images"] == 4 and figures["totals"]["damaged"] == 0


def test_stats_look_at_the_folder_of_plots_before_the_set(tmp_path, capsys):
    build(tmp_path / "set")
    (tmp_path / "look").write_text("")
    with pytest.raises(UserError, match=r"--plots: .*look is a file"):
        run("stats", tmp_path / "set", "--plots", tmp_path / "look")
    assert not capsys.readouterr().out


def test_stats_count_damaged_samples(tmp_path, capsys):
    shard = build(tmp_path / "set") / "000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b'{"image_id"', b'["image_id"', 1))
    assert run("stats", tmp_path / "set", "--json") == 0
    totals = json.loads(capsys.readouterr().out)["totals"]
    assert (totals["images"], totals["damaged"]) == (3, 1)


def test_html_preview_shows_photos_captions_and_relations(tmp_path, capsys):
    assert run("preview", build(tmp_path / "set"), "--out", tmp_path / "look.html", "--count", 2) == 0
    page = (tmp_path / "look.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "a dog &lt;and&gt; a cat 0" in page and "a cat 2" in page
    assert "<b>dog 0 left of cat 1</b>" in page
    assert "2 samples" in capsys.readouterr().out


def test_png_preview_draws_the_boxes(tmp_path):
    assert run("preview", build(tmp_path / "set"), "--out", tmp_path / "look.png") == 0
    sheet = Image.open(tmp_path / "look.png")
    plain = png_sheet([Card(Record("k", "0.tar", photo(1), sample(1, entities=(), relations=())), ())])
    boxed = png_sheet([Card(Record("k", "0.tar", photo(1), sample(1)), ())])
    assert sheet.width == 4 * WIDTH
    assert plain.getpixel((1, 100)) == (0, 40, 0) != boxed.getpixel((1, 100))


def test_preview_knows_two_formats(tmp_path):
    with pytest.raises(UserError, match=r"\.html or \.png"):
        run("preview", build(tmp_path / "set"), "--out", tmp_path / "look.gif")


def test_counts_below_one_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("preview", tmp_path, "--out", tmp_path / "look.png", "--count", 0)
    assert "--count: '0' is no whole number above 0" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["relworld", "coco", "visual_genome", "gqa"])
def test_each_source_teaches_its_flags(source, capsys):
    with pytest.raises(SystemExit) as end:
        run("build", source, "--help")
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert f"relvlm data build {source} --" in text and "--out" in text and "example" in text


def test_build_lists_its_sources(capsys):
    with pytest.raises(SystemExit):
        run("build", "--help")
    text = capsys.readouterr().out
    assert all(source in text for source in cli.SOURCES)


def test_build_runs_a_source(tmp_path, capsys):
    Image.new("RGB", (40, 30)).save(tmp_path / "1.jpg")
    (tmp_path / "graphs.json").write_text('{"1": {"width": 40, "height": 30, "objects": {}}}')
    flags = ("--scene-graphs", tmp_path / "graphs.json", "--images", tmp_path, "--out", tmp_path / "gqa")
    assert run("build", "gqa", *flags) == 0
    assert len(ShardSet(tmp_path / "gqa")) == 1
    assert "1 samples" in capsys.readouterr().out


@pytest.mark.parametrize("count", [0, 1, LISTED, LISTED + 1])
def test_the_first_damaged_samples_are_named_and_all_counted_where_there_are_more(count, capsys):
    report_damaged([f"k{n}" for n in range(count)])
    lines = capsys.readouterr().err.splitlines()
    more = [f"damaged: {count} samples in all (relvlm data lint lists them)"]
    assert lines == [f"damaged: k{n}" for n in range(min(count, LISTED))] + (more if count > LISTED else [])
