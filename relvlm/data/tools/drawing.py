"""Boxes with labels that do not hide each other, and relations as arrows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import atan2, cos, sin

from PIL import Image, ImageColor, ImageDraw, ImageFont

from relvlm.data.shards.schema import Box, Relation, Sample

ARROWS = 8  # of a picture; more of them show nothing, nor does a second one between the same two
FONT = 12
PLACES = 24  # down and up from a label's first place


def color(number: int) -> tuple[int, int, int]:
    """A box colour; neighbours differ clearly."""
    red, green, blue = ImageColor.getrgb(f"hsl({number * 137 % 360}, 90%, 42%)")[:3]
    return red, green, blue


def draw(canvas: Image.Image, sample: Sample, scale: float, relations: Sequence[Relation]) -> None:
    """Draw on a photo at `scale` its numbered boxes, the first `relations` as arrows, and the labels of both.

    Two entities have one arrow: their other relations, mirrored ones above all, are for the text beside it.
    """
    pen = ImageDraw.Draw(canvas)
    boxes = {e.id: _scaled(e.box, scale) for e in sample.entities}
    for number, box in enumerate(boxes.values()):
        pen.rectangle(box, outline=color(number), width=2)
    taken: list[Box] = []
    number_of = {name: number for number, name in enumerate(boxes)}
    middles = []
    first: dict[frozenset[str], Relation] = {}
    for relation in relations:
        first.setdefault(frozenset((relation.subject, relation.object)), relation)
    shown = list(first.values())[:ARROWS]
    for relation in shown:
        ends = _arrow(boxes[relation.subject], boxes[relation.object])
        draw_arrow(pen, *ends, color(number_of[relation.subject]))
        middles.append(((ends[0][0] + ends[1][0]) / 2, (ends[0][1] + ends[1][1]) / 2))
    for number, (entity, box) in enumerate(zip(sample.entities, boxes.values(), strict=True)):
        text = f"{number} {' '.join((*entity.attributes, entity.label))}"
        _label(pen, canvas.size, text, _beside(box), color(number), "white", taken)
    for relation, middle in zip(shown, middles, strict=True):
        number = number_of[relation.subject]
        _label(pen, canvas.size, relation.predicate, [middle], (255, 255, 255), color(number), taken)


def _scaled(box: Box, scale: float) -> Box:
    x0, y0, x1, y1 = box
    return (x0 * scale, y0 * scale, x1 * scale, y1 * scale)


def _beside(box: Box) -> list[tuple[float, float]]:
    """Where the label of a box may begin: in its upper left corner, else above, below, in its lower left corner."""
    x0, y0, x1, y1 = box
    return [(x0 + 2, y0), (x0, y0 - FONT - 4), (x0, y1), (x0 + 2, y1 - FONT - 4), (x1 + 2, y0)]


def _arrow(subject: Box, target: Box) -> tuple[tuple[float, float], tuple[float, float]]:
    """From centre to centre, the middle fifths: arrows back and forth lie side by side."""
    (ax, ay), (bx, by) = (((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (subject, target))
    angle = atan2(by - ay, bx - ax)
    dx, dy = -4 * sin(angle), 4 * cos(angle)
    start = ax + 0.1 * (bx - ax) + dx, ay + 0.1 * (by - ay) + dy
    return start, (ax + 0.9 * (bx - ax) + dx, ay + 0.9 * (by - ay) + dy)


def draw_arrow(
    pen: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], fill: tuple[int, int, int]
) -> None:
    """A line with a head at `end`, on a white edge."""
    angle = atan2(end[1] - start[1], end[0] - start[0])
    head = [end, *((end[0] - 9 * cos(angle + turn), end[1] - 9 * sin(angle + turn)) for turn in (-0.45, 0.45))]
    pen.line((*start, *end), fill="white", width=4)
    pen.polygon(head, fill="white", outline="white", width=3)
    pen.line((*start, *end), fill=fill, width=2)
    pen.polygon(head, fill=fill)


def _label(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], text: str, starts: Sequence[tuple[float, float]],
    ground: tuple[int, int, int], ink: str | tuple[int, int, int], taken: list[Box],
) -> None:  # fmt: skip
    """Write `text` at the first place where it hides no label of `taken`, to which it is added."""
    font = ImageFont.load_default(FONT)
    place = free_place(size, pen.textbbox((0, 0), text, font=font), starts, taken)
    box = pen.textbbox(place, text, font=font)
    taken.append(box)
    pen.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), fill=ground)
    pen.text(place, text, fill=ink, font=font)


def free_place(
    size: tuple[int, int], extent: Box, starts: Sequence[tuple[float, float]], taken: Sequence[Box]
) -> tuple[float, float]:
    """Where a text of `extent` (its box, written at 0, 0) stays inside and hides least; the earliest of equals."""

    def hidden(place: tuple[float, float]) -> float:
        box = (extent[0] + place[0], extent[1] + place[1], extent[2] + place[0], extent[3] + place[1])
        return sum(_shared(box, other) for other in taken)

    best, least = (0.0, 0.0), float("inf")
    for place in _places(size, extent, starts):
        if (area := hidden(place)) < least:
            best, least = place, area
        if not area:
            break
    return best


def _places(size: tuple[int, int], extent: Box, starts: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """The starts, then places ever farther down and up from the first, all moved inside."""
    first = starts[0]
    steps = product(range(1, PLACES), (1, -1))
    for x, y in (*starts, *((first[0], first[1] + sign * step * (FONT + 3)) for step, sign in steps)):
        yield max(0.0, min(x, size[0] - extent[2] - 1)), max(0.0, min(y, size[1] - extent[3] - 1))


def _shared(a: Box, b: Box) -> float:
    """Area that two boxes share, a pixel of margin between them counted as shared."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + 2) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + 2)
