"""What is shown of one photo and one text: match, heat, boxes, relations, and the same with the entities swapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from relvlm.data.batches.transforms import eval_transform
from relvlm.explain.heat import Heat, heat
from relvlm.explain.predictions import UnitBox, predicted_boxes, relation_shares
from relvlm.explain.query import Query, Triplet
from relvlm.explain.reading import encode, read_text
from relvlm.model import RelVLM

SHOWN_RELATIONS = 8
ROLES = ("subject", "object")


@dataclass(frozen=True)
class EntityView:
    """An entity: heat of its label as a text of its own, the box that the model predicts, and the one that was given.

    Alone, for its words within the sentence point worse (docs/where_it_looks.md).
    """

    role: str
    label: str
    heat_N: Tensor
    predicted: UnitBox | None
    given: UnitBox | None

    @property
    def box(self) -> UnitBox | None:
        """Where it is taken to be."""
        return self.given or self.predicted


@dataclass(frozen=True)
class RelationBar:
    """`mrc`: MRC's probability; `caption`: that of a match, were the sentence to have this relation."""

    name: str
    mrc: float
    caption: float


@dataclass(frozen=True)
class Reply:
    """What the model says of one wording: of the text as given, or swapped."""

    query: Query
    heat: Heat
    relations: tuple[RelationBar, ...]


@dataclass(frozen=True)
class Explanation:
    """`photo`: RGB; `grid`: rows and columns of the heat maps; `caption_box`: of a caption without entities."""

    photo: Image.Image
    grid: tuple[int, int]
    reply: Reply
    swapped: Reply | None
    entities: tuple[EntityView, ...]
    caption_box: UnitBox | None
    notes: tuple[str, ...]


def explain(
    model: RelVLM, photo: Image.Image, query: Query, given: Sequence[UnitBox | None] = (None, None)
) -> Explanation:
    """`given`: boxes of subject and object, that stand in for predicted ones. UserError for a text that is too long."""
    pixels_CHW = eval_transform(model.config.image_size)(photo)
    with torch.no_grad():
        tokens_SD = model.encode_image(pixels_CHW[None])[0]
    found = heat(model, tokens_SD, read_text(model, query.text))
    if query.triplet is None:
        box = predicted_boxes(model, tokens_SD, [query.text])[0] if model.box_head else None
        return Explanation(photo, model.vision.grid, Reply(query, found, ()), None, (), box, _notes(model, query, ()))
    entities = _entities(model, tokens_SD, query.triplet, given)
    other = Query(query.triplet.swapped.text, query.triplet.swapped)
    swapped = heat(model, tokens_SD, read_text(model, other.text))
    return Explanation(
        photo,
        model.vision.grid,
        Reply(query, found, _relations(model, pixels_CHW, tokens_SD, query.triplet, entities)),
        Reply(other, swapped, _relations(model, pixels_CHW, tokens_SD, other.triplet, entities[::-1])),
        entities,
        None,
        _notes(model, query, entities),
    )


def _entities(
    model: RelVLM, tokens_SD: Tensor, triplet: Triplet, given: Sequence[UnitBox | None]
) -> tuple[EntityView, ...]:
    labels = (triplet.subject, triplet.object)
    maps = [heat(model, tokens_SD, read_text(model, label)).whole_N for label in labels]
    boxes = predicted_boxes(model, tokens_SD, labels) if model.box_head else (None, None)
    return tuple(
        EntityView(role, label, map_N, box, known)
        for role, label, map_N, box, known in zip(ROLES, labels, maps, boxes, given, strict=True)
    )


def _relations(
    model: RelVLM, pixels_CHW: Tensor, tokens_SD: Tensor, triplet: Triplet | None, entities: Sequence[EntityView]
) -> tuple[RelationBar, ...]:
    """The likeliest by MRC, and the sentence's own; none for a model without relation head, or without boxes."""
    boxes = [entity.box for entity in entities if entity.box]
    if model.mrc_head is None or triplet is None or len(boxes) != len(ROLES):
        return ()
    shares_V = relation_shares(model, pixels_CHW, [entity.label for entity in entities], boxes)
    chosen = shares_V.argsort(descending=True)[:SHOWN_RELATIONS].tolist()
    own = [i for i, name in enumerate(model.relation_names) if name == triplet.relation]
    chosen += [i for i in own if i not in chosen]
    names = [model.relation_names[i] for i in chosen]
    texts = [Triplet(triplet.subject, name, triplet.object).text for name in names]
    matches = match_probabilities(model, tokens_SD, texts)
    rows = zip(names, shares_V[chosen].tolist(), matches, strict=True)
    return tuple(RelationBar(name, mrc, caption) for name, mrc, caption in rows)


@torch.no_grad()
def match_probabilities(model: RelVLM, tokens_SD: Tensor, texts: Sequence[str]) -> list[float]:
    """That each text is true of the image."""
    text_tokens, mask = encode(model, texts)
    fused = model.fuse(text_tokens, mask, tokens_SD.expand(len(texts), -1, -1))
    return model.match_logits(fused).softmax(-1)[:, 1].tolist()


def _notes(model: RelVLM, query: Query, entities: Sequence[EntityView]) -> tuple[str, ...]:
    """What is not shown, and why."""
    notes = []
    if model.box_head is None:
        notes.append("This model has no box head (it was trained without boxes): no box is predicted.")
    if model.mrc_head is None:
        notes.append("This model has no relation head (it was trained without MRC): no relation is predicted.")
    if query.triplet is None:
        notes.append("A caption: for boxes and relations of two entities, ask for 'subject; relation; object'.")
    elif model.mrc_head is not None:
        if not all(entity.box for entity in entities):
            notes.append("Relations need two boxes: give --subject-box and --object-box.")
        if query.triplet.relation not in model.relation_names:
            notes.append(
                f"{query.triplet.relation!r} is none of the {len(model.relation_names)} relations that MRC knows; "
                "the sentence is read all the same."
            )
    return tuple(notes)
