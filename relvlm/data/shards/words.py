"""What of a sample has words: a caption `...` or a label `?` leaves no token, and no kind of batch can use it."""

from __future__ import annotations

from dataclasses import replace

from relvlm.data.shards.schema import Sample
from relvlm.data.text import pre_caption


def has_words(text: str) -> bool:
    """Whether a batch's text of it is not empty."""
    return any(map(str.isalnum, text)) or bool(pre_caption(text, 1))


def with_words(sample: Sample) -> Sample:
    """The sample without wordless captions and entities, and without the relations of such entities."""
    captions = tuple(filter(has_words, sample.captions))
    entities = tuple(entity for entity in sample.entities if has_words(entity.label))
    if len(captions) == len(sample.captions) and len(entities) == len(sample.entities):
        return sample
    ids = {entity.id for entity in entities}
    relations = tuple(r for r in sample.relations if r.subject in ids and r.object in ids)
    return replace(sample, captions=captions, entities=entities, relations=relations)
