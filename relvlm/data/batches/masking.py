"""Which tokens of a text are masked for MLM: by whole words (the default), or as the official codes choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random

from relvlm.config.schema import DataConfig
from relvlm.data.text import Tokenizer

# ids after masking, masked positions (ascending), their labels
Masked = tuple[list[int], list[int], list[int]]


def mask(ids: list[int], rng: Random, config: DataConfig, tokenizer: Tokenizer) -> Masked:
    """Mask a text as `config.masking` says."""
    if config.masking == "albef":
        return mask_tokens(ids, rng, config.mlm_probability, tokenizer)
    if config.masking == "xvlm":
        return mask_skipgrams(ids, rng, config, tokenizer)
    return mask_words(ids, rng, config.mlm_probability, tokenizer, config.max_masks or None)


def mask_words(
    ids: list[int], rng: Random, probability: float, tokenizer: Tokenizer, max_masks: int | None = None
) -> Masked:
    """Whole words until the next would exceed round(`probability` * tokens); the first always (BERT).

    Special tokens are never masked, and never stand in for a masked one.
    """
    words = _words(ids, tokenizer)
    wanted = round(probability * sum(map(len, words)))
    if max_masks is not None:
        wanted = min(wanted, max_masks)
    rng.shuffle(words)
    positions = words[0] if words else []
    for word in words[1:]:
        if len(positions) + len(word) <= wanted:
            positions = positions + word
    return _replaced(ids, positions, rng, tokenizer, partial(_any_of, tokenizer.word_ids, rng))


def _any_of(tokens: Sequence[int], rng: Random) -> int:
    return tokens[int(rng.random() * len(tokens))]


def mask_tokens(ids: list[int], rng: Random, probability: float, tokenizer: Tokenizer) -> Masked:
    """Each token by itself, with `probability`; it may be none (ALBEF)."""
    kept = {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id}
    chosen = [i for i, token in enumerate(ids) if token not in kept and rng.random() < probability]
    return _replaced(ids, chosen, rng, tokenizer, partial(rng.randrange, tokenizer.vocab_size))


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
    kept = rng.sample(sorted(chosen), min(wanted, len(chosen)))
    return _replaced(ids, kept, rng, tokenizer, partial(rng.randrange, tokenizer.vocab_size))


def _whole_words(ids: list[int], start: int, length: int, tokenizer: Tokenizer) -> range:
    """`length` tokens from `start` on, widened to where words begin and end."""
    end = start + length
    while start > 0 and ids[start] in tokenizer.continuation_ids:
        start -= 1
    while end < len(ids) and ids[end] in tokenizer.continuation_ids:
        end += 1
    return range(start, end)


def _words(ids: list[int], tokenizer: Tokenizer) -> list[list[int]]:
    """Positions of each word's pieces, special tokens left out."""
    words: list[list[int]] = []
    special, continuation = tokenizer.special_ids, tokenizer.continuation_ids
    for position, token in enumerate(ids):
        if token in special:
            continue
        if token in continuation and words and words[-1][-1] == position - 1:
            words[-1].append(position)
        else:
            words.append([position])
    return words


def _replaced(
    ids: list[int], positions: Iterable[int], rng: Random, tokenizer: Tokenizer, other: Callable[[], int]
) -> Masked:
    """80% [MASK], 10% some `other` token, 10% as they are."""
    masked, places = list(ids), sorted(positions)
    for place in places:
        draw = rng.random()
        if draw < 0.9:
            masked[place] = tokenizer.mask_id if draw < 0.8 else other()
    return masked, places, [ids[place] for place in places]
