"""The pointing game on annotated photos: how much heat falls into the box of what a text names.

Zhang et al., 2016: a hit is a map whose maximum lies in the box. Of several boxes of one label in a photo any is right.
A map is no finer than its patches, so all is counted twice: in pixels, a patch's heat spread evenly over it, and in the
patches that the boxes touch, as the model itself reads boxes. Chance is about the share of the photo in either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from relvlm.data.batches.transforms import eval_transform
from relvlm.data.shards.schema import Entity, Sample
from relvlm.data.shards.store import DataFault, ShardSet
from relvlm.data.tools import inspect
from relvlm.explain.heat import heat, positive
from relvlm.explain.predictions import UnitBox
from relvlm.explain.query import Triplet, words_of
from relvlm.explain.reading import read_text
from relvlm.model import RelVLM

Role = Literal["label", "subject", "object"]
FINE = 16  # places a patch is looked at along each side, for boxes that cut it


@dataclass(frozen=True)
class Pointing:
    """One map: of its heat the share in the boxes, whether its warmest patch's centre is in one, and their area.

    The same for the patches that the boxes `touch`.
    """

    heat: float
    hit: bool
    area: float
    touched_heat: float
    touched_hit: bool
    touched_area: float


@dataclass(frozen=True)
class Example:
    """The map of `label`, in a text of its own or within a triplet's."""

    image_id: str
    role: Role
    text: str
    label: str
    pointing: Pointing


def pointings(model: RelVLM, shards: ShardSet, limit: int, faults: list[str]) -> Iterator[Example]:
    """Of the first `limit` photos that have entities (0: of all): each label alone, each entity within its triplets.

    What cannot be read is left out and appended to `faults`.
    """
    transform, seen = eval_transform(model.config.image_size), 0
    for index in range(len(shards)):
        if limit and seen == limit:
            break
        try:
            record = shards.read(index)
            photo = inspect.picture(record)
        except DataFault as fault:
            faults.append(str(fault))
            continue
        if record.sample.entities:
            seen += 1
            with torch.no_grad():
                tokens_SD = model.encode_image(transform(photo)[None])[0]
            yield from _of_labels(model, tokens_SD, record.sample)
            yield from _of_triplets(model, tokens_SD, record.sample)


def figures(found: Sequence[Example]) -> dict[str, dict[str, float]]:
    """By role, means in percent, and how many; chance of `heat` and `hit` is `area`."""
    result: dict[str, dict[str, float]] = {}
    for role in dict.fromkeys(each.role for each in found):
        rows = [asdict(each.pointing) for each in found if each.role == role]
        result[role] = {name: round(100 * fmean(row[name] for row in rows), 2) for name in rows[0]} | {"n": len(rows)}
    return result


def as_row(found: Example) -> dict[str, object]:
    """A line of the file of examples."""
    row = asdict(found)
    return row | row.pop("pointing")


def inside(boxes: Sequence[UnitBox], grid: tuple[int, int]) -> Tensor:
    """(N,) share of each patch that any of the boxes covers, row by row."""
    rows, columns = (torch.arange(side * FINE).add(0.5) / (side * FINE) for side in grid)
    covered = torch.zeros(len(rows), len(columns), dtype=torch.bool)
    for x0, y0, x1, y1 in boxes:
        covered |= ((rows >= y0) & (rows < y1))[:, None] & ((columns >= x0) & (columns < x1))[None]
    return covered.unflatten(0, (grid[0], FINE)).unflatten(2, (grid[1], FINE)).float().mean((1, 3)).flatten()


def point(heat_N: Tensor, boxes: Sequence[UnitBox], grid: tuple[int, int]) -> Pointing:
    """Of the positive heat on a map of `grid` patches, row by row."""
    covered_N, positive_N = inside(boxes, grid), positive(heat_N)
    touched_N = (covered_N > 0).to(covered_N.dtype)
    row, column = divmod(int(heat_N.argmax()), grid[1])
    x, y = (column + 0.5) / grid[1], (row + 0.5) / grid[0]
    hit = any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in boxes)
    shares = [((positive_N * seen_N).sum().item(), seen_N.mean().item()) for seen_N in (covered_N, touched_N)]
    touched_hit = bool(touched_N[int(heat_N.argmax())])
    return Pointing(shares[0][0], hit, shares[0][1], shares[1][0], touched_hit, shares[1][1])


def _of_labels(model: RelVLM, tokens_SD: Tensor, sample: Sample) -> Iterator[Example]:
    for label in dict.fromkeys(entity.label for entity in sample.entities):
        if words_of(label):
            whole_N = heat(model, tokens_SD, read_text(model, label)).whole_N
            yield _example(model, sample, "label", label, label, whole_N)


def _of_triplets(model: RelVLM, tokens_SD: Tensor, sample: Sample) -> Iterator[Example]:
    """Heat of an entity's words within `subject predicate object`, each wording once."""
    label = {entity.id: entity.label for entity in sample.entities}
    named = [Triplet(label[r.subject], r.predicate, label[r.object]) for r in sample.relations]
    for triplet in dict.fromkeys(named):
        subject, target = len(words_of(triplet.subject)), len(words_of(triplet.object))
        if not (subject and target):
            continue
        found = heat(model, tokens_SD, read_text(model, triplet.text))
        end = len(found.reading.words)
        yield _example(model, sample, "subject", triplet.text, triplet.subject, found.of_words(0, subject))
        yield _example(model, sample, "object", triplet.text, triplet.object, found.of_words(end - target, end))


def _example(model: RelVLM, sample: Sample, role: Role, text: str, label: str, heat_N: Tensor) -> Example:
    boxes = [_unit(entity, sample) for entity in sample.entities if entity.label == label]
    return Example(sample.image_id, role, text, label, point(heat_N, boxes, model.vision.grid))


def _unit(entity: Entity, sample: Sample) -> UnitBox:
    x0, y0, x1, y1 = entity.box
    return (x0 / sample.width, y0 / sample.height, x1 / sample.width, y1 / sample.height)
