"""Cosines of pairs' features: what dual encoders score by, and what some protocols ask of every model.

Legend: G pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from relvlm.evals.scoring.scorer import Picture, Scorer, distinct


def image_text_cosines(scorer: Scorer, images: Sequence[Picture], texts: Sequence[str]) -> Tensor:
    """(G,) of pair g = (images[g], texts[g]); each is encoded once."""
    names, image = distinct(images)
    said, text = distinct(texts)
    return (scorer.image_features(names)[image] * scorer.text_features(said)[text]).sum(-1)


def text_cosines(scorer: Scorer, first: Sequence[str], second: Sequence[str]) -> Tensor:
    """(G,) of texts first[g] and second[g]."""
    said, place = distinct([*first, *second])
    features_GE = scorer.text_features(said)[place]
    return (features_GE[: len(first)] * features_GE[len(first) :]).sum(-1)
