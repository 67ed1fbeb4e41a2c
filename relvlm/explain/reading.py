"""Words to token ids, with the tokens of each word; texts side by side as the model's methods take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from relvlm.errors import UserError
from relvlm.explain.query import words_of
from relvlm.model import RelVLM


@dataclass(frozen=True)
class Reading:
    """A text's token ids, special ones included; `word_T`: the word that each is of, -1 for special ones."""

    words: tuple[str, ...]
    ids: tuple[int, ...]
    word_T: tuple[int, ...]


def read_text(model: RelVLM, text: str) -> Reading:
    """As training and evaluation read it; UserError for one that is longer than the model has positions for."""
    tokenizer, words = model.tokenizer, words_of(text)
    pieces = [tokenizer.pieces(word) for word in words]
    ids = [tokenizer.cls_id, *(i for piece in pieces for i in piece)]
    of_word = [-1, *(number for number, piece in enumerate(pieces) for _ in piece)]
    if model.sep:
        ids, of_word = [*ids, tokenizer.sep_id], [*of_word, -1]
    room = model.config.text.max_positions
    if len(ids) > room:
        raise UserError(f"TEXT: {len(ids)} tokens, the model has positions for {room} (shorten {text[:40]!r}...)")
    return Reading(tuple(words), tuple(ids), tuple(of_word))


def encode(model: RelVLM, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Text tokens (B, L, D), and which of them are real (B, L)."""
    ids = [read_text(model, text).ids for text in texts]
    longest = max(map(len, ids))
    mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in ids])
    padded = torch.tensor([[*row] + [0] * (longest - len(row)) for row in ids])
    return model.encode_text(padded, mask), mask
