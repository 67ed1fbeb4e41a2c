"""Which tokens of a text are masked for MLM: by whole words (the default), or as the official codes choose."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from relvlm.config.schema import DataConfig
from relvlm.data.text import Tokenizer, mask_words

Masked = tuple[
    list[int], list[int], list[int]
]  # ids after masking, masked positions (ascending), their labels


def mask(ids: list[int], rng: Random, config: DataConfig, tokenizer: Tokenizer) -> Masked:
    """Mask a text as `config.masking` says."""
    if config.masking == "albef":
        return mask_tokens(ids, rng, config.mlm_probability, tokenizer)
    if config.masking == "xvlm":
        return mask_skipgrams(ids, rng, config, tokenizer)
    return mask_words(ids, rng, config.mlm_probability, tokenizer, config.max_masks or None)


def mask_tokens(ids: list[int], rng: Random, probability: float, tokenizer: Tokenizer) -> Masked:
    """Each token by itself, with `probability`; it may be none (ALBEF)."""
    kept = {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id}
    chosen = [i for i, token in enumerate(ids) if token not in kept and rng.random() < probability]
    return _replaced(ids, chosen, rng, tokenizer)


def mask_skipgrams(ids: list[int], rng: Random, config: DataConfig, tokenizer: Tokenizer) -> Masked:
    """Whole words and now and then two or more tokens in a row, `max_masks` at most and at least one (X-VLM).

    From random places on until round(probability * tokens) are chosen; what is too many is left out at random, so
    that a word may be masked in part.
    """
    wanted = max(1, round(config.mlm_probability * len(ids)))
    wanted = min(wanted, config.max_masks or wanted)
    candidates = [i for i in range(1, len(ids)) if ids[i] != tokenizer.sep_id]
    chosen: set[int] = set()
    for place in rng.sample(candidates, len(candidates)):
        if len(chosen) >= wanted:
            break
        if place not in chosen:
            skip = config.skipgram_size >= 2 and rng.random() < config.skipgram_probability
            span = _whole_words(ids, place, rng.randint(2, config.skipgram_size) if skip else 1, tokenizer)
            chosen |= set(candidates).intersection(span)
    return _replaced(ids, rng.sample(sorted(chosen), min(wanted, len(chosen))), rng, tokenizer)


def _whole_words(ids: list[int], start: int, length: int, tokenizer: Tokenizer) -> range:
    """`length` tokens from `start` on, widened to where words begin and end."""
    end = start + length
    while start > 0 and ids[start] in tokenizer.continuation_ids:
        start -= 1
    while end < len(ids) and ids[end] in tokenizer.continuation_ids:
        end += 1
    return range(start, end)


def _replaced(ids: list[int], positions: Iterable[int], rng: Random, tokenizer: Tokenizer) -> Masked:
    """80% [MASK], 10% any token of the vocabulary, 10% as they are."""
    masked, places = list(ids), sorted(positions)
    for place in places:
        draw = rng.random()
        if draw < 0.9:
            masked[place] = tokenizer.mask_id if draw < 0.8 else rng.randrange(tokenizer.vocab_size)
    return masked, places, [ids[place] for place in places]
