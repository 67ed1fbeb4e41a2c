"""How well each text matches each photo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from relvlm.errors import UserError
from relvlm.evals.scoring.photos import Photo
from relvlm.evals.scoring.scorer import ScoreOptions, Scorer
from relvlm.explain.query import EVERY_WORD, words_of
from relvlm.model import RelVLM


def score(model: RelVLM, images: Iterable[str | Path], texts: Sequence[str]) -> Tensor:
    """(B, X) probability that text x is true of photo b; computed where the model is, and given in main memory.

    Each photo and each text is encoded once, and the pairs are fused in packed batches. UserError names a photo that
    cannot be read and a text that is too long; and for a model that has diverged.
    """
    return matrix(whole_text_scorer(model), [Path(image) for image in images], texts)


def whole_text_scorer(model: RelVLM, device: str = "", dtype: str = "fp32", image_batch: int = 32) -> Scorer:
    """A Scorer that takes texts as they are, as long as the model has positions for them; `device` "": the model's."""
    where = device or str(model.temperature.device)
    options = ScoreOptions(
        device=where, dtype="bf16" if dtype == "bf16" else "fp32", image_batch=image_batch, max_words=EVERY_WORD
    )
    return Scorer(model, model.tokenizer, options)


def matrix(scorer: Scorer, images: Sequence[Path], texts: Sequence[str]) -> Tensor:
    """The same with a scorer that may hold encoded photos and texts."""
    if not images or not texts:
        return torch.zeros(len(images), len(texts))
    check_texts(scorer, texts)
    faults = scorer.faults([Photo(image) for image in dict.fromkeys(images)])
    if faults:
        photo, fault = next(iter(faults.items()))
        more = f"; {len(faults)} such photos in all" * (len(faults) > 1)
        raise UserError(f"{photo.path}: {fault} (replace the image, or leave it out{more})")
    image, text = torch.cartesian_prod(torch.arange(len(images)), torch.arange(len(texts))).unbind(1)
    logits = scorer.match_logits(images, texts, image, text)
    if not bool(torch.isfinite(logits).all()):
        raise UserError("scores: not finite (has the model diverged? take an earlier checkpoint)")
    return logits.softmax(-1)[:, 1].view(len(images), len(texts))


def check_texts(scorer: Scorer, texts: Sequence[str]) -> None:
    """Encode them; UserError for one without words, and one that is longer than the model has positions for."""
    empty = next((text for text in texts if not words_of(text)), None)
    if empty is not None:
        raise UserError(f"TEXTS: {empty!r} has no word")
    scorer.add_texts(texts)
    long = next((text for text in texts if scorer.cut([text])), None)
    if long is not None:
        raise UserError(f"TEXTS: {long[:40]!r}... is longer than the model has positions for (shorten it)")
