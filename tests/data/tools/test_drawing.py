"""Labels do not hide each other, and an arrow goes from subject to object."""

import numpy as np
import pytest
from PIL import Image

from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.tools.drawing import ARROWS, color, draw, free_place

EXTENT = (0, 3, 60, 14)  # of a text written at 0, 0


def at(place):
    return (place[0] + EXTENT[0], place[1] + EXTENT[1], place[0] + EXTENT[2], place[1] + EXTENT[3])


def overlap(a, b):
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def test_the_first_place_is_taken_where_it_is_free():
    assert free_place((400, 300), EXTENT, [(50, 60), (0, 0)], [(200, 200, 300, 220)]) == (50, 60)
    assert free_place((400, 300), EXTENT, [(50, 60), (0, 0)], [at((50, 60))]) == (0, 0)


@pytest.mark.parametrize("start", [(-20, -20), (390, 290)])
def test_a_text_stays_inside(start):
    x0, y0, x1, y1 = at(free_place((400, 300), EXTENT, [start], []))
    assert x0 >= 0 and y0 >= 0 and x1 <= 400 and y1 <= 300


def test_ten_labels_of_one_box_hide_nothing():
    taken = []
    for _ in range(10):
        taken.append(at(free_place((400, 300), EXTENT, [(100, 100)], taken)))
    assert not any(overlap(a, b) for i, a in enumerate(taken) for b in taken[:i])


def test_where_all_is_full_the_least_is_hidden():
    whole, half = (0, 0, 70, 20), (0, 0, 35, 20)
    place = free_place((70, 20), EXTENT, [(0, 0)], [whole, half])
    assert place[0] >= 0 and place[1] >= 0


def canvas_of(relations):
    boxes = ((10, 90, 50, 130), (250, 90, 290, 130))
    sample = Sample("1", 300, 220, entities=tuple(Entity(str(n), "x", box) for n, box in enumerate(boxes)))
    canvas = Image.new("RGB", (300, 220), "black")
    draw(canvas, sample, 1.0, relations)
    return np.asarray(canvas)


def test_an_arrow_is_of_its_subjects_colour_and_has_its_head_at_the_object():
    for subject, target in (("0", "1"), ("1", "0")):
        pixels = canvas_of([Relation(subject, "on", target)])
        coloured = (pixels == color(int(subject))).all(-1)
        wide = {x: coloured[85:135, x - 8 : x + 8].any(1).sum() for x in (62, 238)}
        head, tail = (238, 62) if subject == "0" else (62, 238)
        assert wide[head] > wide[tail] > 0


def test_two_entities_have_one_arrow():
    relations = [Relation("0", "left of", "1"), Relation("1", "right of", "0"), Relation("0", "near", "1")]
    assert np.array_equal(canvas_of(relations), canvas_of(relations[:1]))
    assert not np.array_equal(canvas_of(relations), canvas_of(relations[1:]))


@pytest.mark.parametrize("count", [ARROWS, ARROWS + 1])
def test_so_many_arrows_at_most(count):
    entities = tuple(Entity(str(n), "x", (20 * n, 10, 20 * n + 15, 30)) for n in range(ARROWS + 2))
    relations = [Relation("0", "on", str(n + 1)) for n in range(ARROWS + 1)]
    drawn = []
    for given in (relations[:count], relations[:ARROWS]):
        canvas = Image.new("RGB", (300, 220), "black")
        draw(canvas, Sample("1", 300, 220, entities=entities), 1.0, given)
        drawn.append(np.asarray(canvas))
    assert np.array_equal(*drawn)
    canvas = Image.new("RGB", (300, 220), "black")
    draw(canvas, Sample("1", 300, 220, entities=entities), 1.0, relations[: ARROWS - 1])
    assert not np.array_equal(drawn[0], np.asarray(canvas))
