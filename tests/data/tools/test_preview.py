"""A sheet shows what can be shown, and names the rest."""

import io
from dataclasses import replace
from itertools import pairwise

import pytest
from PIL import Image
from support.shards import toy_photo, toy_sample, write_toys

from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.shards.store import Record, write_shards
from relvlm.data.tools.chosen import Card, Chosen, spread
from relvlm.data.tools.drawing import color
from relvlm.data.tools.preview import HEIGHT, LINES, WIDTH, picture, png_sheet, preview
from relvlm.errors import UserError


def damage(folder, number, part):
    """Overwrite some of a member's bytes: the photo's pixels, or the JSON's first character."""
    tar = folder / "000000.tar"
    data = toy_photo(number)
    old, new = (
        (data[40:50], b"\xff" * 10) if part == "photo" else (b'{"image_id":"%d"' % number, b'["image_id":"%d"' % number)
    )
    place = tar.read_bytes().index(data) + 40 if part == "photo" else tar.read_bytes().index(old)
    with tar.open("r+b") as stream:
        stream.seek(place)
        stream.write(new)


@pytest.mark.parametrize("suffix", ["html", "png"])
@pytest.mark.parametrize("part", ["photo", "JSON"])
def test_a_damaged_sample_is_named_and_the_others_shown(tmp_path, suffix, part):
    folder = write_toys(tmp_path / "set", 5, shard_size=5)
    damage(folder, 2, part)
    shown, faults = preview(folder, tmp_path / f"look.{suffix}")
    assert shown == 4 and len(faults) == 1
    assert faults[0].startswith("000000.tar: k2: ")
    if suffix == "html":
        page = (tmp_path / "look.html").read_text()
        assert page.count("<figure>") == 4 and "caption 2" not in page and "caption 3" in page


def test_a_photo_of_another_size_than_its_boxes_is_named(tmp_path):
    samples = [("a", toy_photo(1, (6, 8)), toy_sample(1)), ("b", toy_photo(2), toy_sample(2))]
    write_shards(tmp_path / "set", samples, source="toy", builder_args={})
    assert preview(tmp_path / "set", tmp_path / "look.png") == (
        1,
        ["000000.tar: a: image is 6x8, its JSON says 8x6"],
    )


def test_a_set_of_which_nothing_can_be_shown_is_one_error(tmp_path):
    folder = write_toys(tmp_path / "set", 1)
    damage(folder, 0, "photo")
    with pytest.raises(
        UserError, match=r"none of 1 samples can be shown, first: 000000\.tar: k0: not a readable image"
    ):
        preview(folder, tmp_path / "look.png")
    assert not (tmp_path / "look.png").exists()


def test_a_sheet_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "look.html").mkdir()
    with pytest.raises(UserError, match=r"look\.html: cannot be written: Is a directory"):
        preview(write_toys(tmp_path / "set", 1), tmp_path / "look.html")


def test_a_very_high_photo_stays_on_the_sheet():
    stream = io.BytesIO()
    Image.new("RGB", (2, 3000)).save(stream, "PNG")
    shown = picture(Card(Record("k", "0.tar", stream.getvalue(), Sample("1", 2, 3000)), ()))
    assert shown.height == HEIGHT and 1 <= shown.width < WIDTH


def card(number=0, captions=("a dog",), size=(8, 6), **changes):
    stream = io.BytesIO()
    Image.new("RGB", size, (200, 200, 200)).save(stream, "PNG")
    sample = Sample(str(number), *size, captions=captions, **changes)
    return Card(Record(f"k{number}", "0.tar", stream.getvalue(), sample), sample.relations)


def test_a_card_has_a_line_of_sixteen_pixels_for_each_of_its_lines():
    assert png_sheet([card()]).size == (WIDTH, 315 + 16 + 12)
    assert png_sheet([card(captions=("word " * 20,))]).height == 315 + 2 * 16 + 12  # wrapped


@pytest.mark.parametrize("count", [LINES, LINES + 1])
def test_a_card_has_so_many_lines_at_most(count):
    assert png_sheet([card(captions=tuple(map(str, range(count))))]).height == 315 + 16 * LINES + 12


def test_cards_are_in_rows_each_as_high_as_its_highest():
    high = card(captions=("a", "b", "c"))
    sheet = png_sheet([card(), high, card(), card(), card()])
    assert sheet.size == (4 * WIDTH, (315 + 3 * 16 + 12) + (315 + 16 + 12))
    assert sheet.getpixel((WIDTH + 5, 5)) == (200, 200, 200) == sheet.getpixel((5, 315 + 3 * 16 + 12 + 5))
    assert sheet.getpixel((WIDTH + 5, 315 + 3 * 16 + 12 + 5)) == (255, 255, 255)


def test_boxes_are_drawn_where_they_are_in_their_colours():
    boxes = [(2, 1, 6, 4), (0, 5, 4, 6)]
    entities = tuple(Entity(str(n), "x", box) for n, box in enumerate(boxes))
    shown = picture(card(entities=entities))
    scale = WIDTH / 8
    assert shown.size == (WIDTH, 315)
    edge = round(6 * scale)
    assert shown.getpixel((edge, 150)) == shown.getpixel((edge - 1, 150)) == color(0) == (203, 11, 11)
    assert shown.getpixel((edge - 2, 150)) == shown.getpixel((edge + 1, 150)) == (200, 200, 200)
    assert shown.getpixel((round(4 * scale), 300)) == color(1) == (11, 203, 65)


def test_samples_are_spread_evenly_over_the_set(tmp_path):
    folder = write_toys(tmp_path / "set", 10, shard_size=5)
    assert preview(folder, tmp_path / "look.html", 3) == (3, [])
    page = (tmp_path / "look.html").read_text()
    assert [n for n in range(10) if f"<small>k{n}</small>" in page] == [0, 3, 6]
    assert preview(folder, tmp_path / "all.html") == (10, [])


def shown(folder, out, **chosen):
    preview(folder, out, chosen=Chosen(**chosen))
    return [n for n in range(12) if f"<small>k{n}</small>" in out.read_text()]


@pytest.fixture
def varied(tmp_path):
    """12 toys; those of even number have a cow, every third is `on` it."""
    toys = []
    for n in range(12):
        sample = toy_sample(n)
        if n % 2 == 0:
            cow = Entity("c", "cow", (0, 0, 2, 2))
            on = (Relation("a", "on", "c", "boxes"),) if n % 3 == 0 else ()
            sample = replace(sample, entities=(*sample.entities, cow), relations=(*sample.relations, *on))
        toys.append((f"k{n}", toy_photo(n), sample))
    write_shards(tmp_path / "set", toys, source="toy", builder_args={}, shard_size=5)
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"labels": ("cow",)}, [0, 2, 4, 6, 8, 10]),
        ({"predicates": ("on", "under")}, [0, 6]),
        ({"labels": ("dog",), "predicates": ("on",)}, [0, 6]),
        ({"keys": ("k3", "k11")}, [3, 11]),
        ({"keys": ("k3",), "labels": ("dog", "none")}, [3]),
    ],
)
def test_samples_are_chosen_by_what_they_hold(varied, tmp_path, chosen, expected):
    assert shown(varied, tmp_path / "look.html", **chosen) == expected


def test_of_a_chosen_predicate_no_other_relation_is_shown_and_its_provenance_is(varied, tmp_path):
    shown(varied, tmp_path / "look.html", predicates=("on",))
    page = (tmp_path / "look.html").read_text()
    assert "<b>dog 0 on cow 2 [boxes]</b>" in page and "near" not in page


def test_what_is_not_there_is_one_error(varied, tmp_path):
    with pytest.raises(UserError, match=r"none of 12 samples is what was asked for \(run: relvlm data stats"):
        preview(varied, tmp_path / "look.html", chosen=Chosen(labels=("yak",)))


def test_a_sound_set_has_no_faults_to_show(varied, tmp_path):
    with pytest.raises(UserError, match=r"none of 12 samples is faulty and what was asked for \(leave out --faults\)"):
        preview(varied, tmp_path / "look.html", chosen=Chosen(faults=True))


def test_no_more_of_the_chosen_than_the_count(varied, tmp_path):
    assert preview(varied, tmp_path / "look.html", 3, Chosen(labels=("cow",))) == (3, [])


@pytest.mark.parametrize("count", [1, 2, 12, 100, 1001])
def test_a_search_comes_by_every_sample_once_and_soon_by_far_ones(count):
    found = list(spread(count))
    assert sorted(found) == list(range(count))
    first = sorted(found[:5])
    assert count < 100 or min(b - a for a, b in pairwise(first)) > count / 20


def test_faulty_samples_are_shown_as_far_as_they_can_be(tmp_path):
    folder = write_toys(tmp_path / "set", 5, shard_size=5)
    damage(folder, 2, "photo")
    damage(folder, 4, "JSON")
    count, faults = preview(folder, tmp_path / "look.html", chosen=Chosen(faults=True))
    page = (tmp_path / "look.html").read_text()
    assert count == 1 and "<small>k2</small>" in page and "caption 2" in page
    assert '<li class="fault">000000.tar: k2: not a readable image' in page
    assert len(faults) == 1 and faults[0].startswith("000000.tar: k4: invalid")
