"""Verbalised scene graphs (paper, section 2.2): triplets of an image as one text, read like a caption."""

from __future__ import annotations

from random import Random

from relvlm.config.schema import RelationWeights
from relvlm.data.batches.regions import EQUAL, describe, draw_relations
from relvlm.data.shards.schema import Relation, Sample
from relvlm.data.text import Tokenizer


def choose_triplets(
    sample: Sample, limit: int, rng: Random, weights: RelationWeights = EQUAL, in_order: bool = True
) -> list[Relation]:
    """At most `limit` random relations, by the centre of the subject's box: left to right, then top down.

    Not `in_order`: in a random order, which the paper found to be no worse (section 5).
    """
    centres = {e.id: ((e.box[0] + e.box[2]) / 2, (e.box[1] + e.box[3]) / 2) for e in sample.entities}
    chosen = draw_relations(sample.relations, limit, weights, rng)
    if not in_order:
        return rng.sample(chosen, len(chosen))
    return sorted(chosen, key=lambda relation: centres[relation.subject])


def verbalise(sample: Sample, triplets: list[Relation], rng: Random) -> list[str]:
    """`subject predicate object` of each triplet; an entity has the same attribute wherever it is named."""
    named = {r.subject for r in triplets} | {r.object for r in triplets}
    names = {e.id: describe(e, rng) for e in sample.entities if e.id in named}
    return [f"{names[r.subject]} {r.predicate} {names[r.object]}" for r in triplets]


def encode_triplets(phrases: list[str], tokenizer: Tokenizer, max_tokens: int) -> tuple[list[int], list[str], int]:
    """`[CLS] s r o [SEP] ... s r o [SEP]` ids, the phrases they hold, and the number that did not fit.

    A triplet goes in whole or not at all, so at most `max_tokens` ids never end within one.
    """
    ids, kept = [tokenizer.cls_id], []
    for phrase in phrases:
        pieces = tokenizer.pieces(phrase)
        if len(ids) + len(pieces) + 1 <= max_tokens:
            ids += [*pieces, tokenizer.sep_id]
            kept.append(phrase)
    return ids, kept, len(phrases) - len(kept)
