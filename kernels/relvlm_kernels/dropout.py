"""The keep-masks of dropout: a function of a seed and of places, not of an order of draws.

Philox-4x32-7 with the key (low, high 32 bits of the seed) gives four words for a counter; a word below
floor(dropout * 2^32) drops. Seven rounds are the fewest that pass all of BigCrush (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC 2011, table 2); ten have a margin that a mask does not need, and cost half as much
again.

Of attention probabilities, the counter (quad, packed query row, head, 0) has a word for each key of a quad. Quad
4 b + i are the keys 16 b + 2 i + (0, 1, 8, 9): those that one thread holds of 16 in a tensor core's product, so that it
draws once for its four scores. Of features, column 64 b + 16 w + i of a row has word w of the counter (16 b + i, row,
0, 1), so that vectors of 4 to 16 words lie side by side in the row. Forward and backward, on any backend and with any
tiling, recompute the same mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 7
BLOCK = 16  # keys of four quads

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[Tensor, Tensor], rounds: int = ROUNDS) -> Words:
    """Four words in [0, 2^32), of int64 words that broadcast."""
    (a, b, c, d), (low, high) = counter, key
    for _ in range(rounds):
        (high_a, low_a), (high_c, low_c) = _product(a, MULTIPLIERS[0]), _product(c, MULTIPLIERS[1])
        a, b, c, d = high_c ^ b ^ low, low_c, high_a ^ d ^ high, low_a
        low, high = (low + KEY_STEPS[0]) & WORD, (high + KEY_STEPS[1]) & WORD
    return a, b, c, d


def keep_scale(seed: Tensor, dropout: float, rows_BQ: Tensor, heads: int, keys: int) -> Tensor:
    """(B, H, Q, keys) float64: 0 where a probability is dropped, else 1 / (1 - dropout)."""
    quad = torch.arange(-(-keys // BLOCK) * 4, device=seed.device)
    head = torch.arange(heads, device=seed.device)[:, None, None]
    counter = quad, rows_BQ[:, None, :, None], head, torch.zeros_like(quad)
    word = _by_key(philox(counter, _key_of(seed)))[..., :keys]
    return (word >= threshold(dropout)).double() / (1 - dropout)


def keep_features(seed: Tensor, dropout: float, rows: int, width: int) -> Tensor:
    """(T, D) float64: 0 where a feature is dropped, else 1 / (1 - dropout)."""
    counter = torch.arange(16 * -(-width // 64), device=seed.device)
    row = torch.arange(rows, device=seed.device)[:, None]
    none = torch.zeros_like(counter)
    words = torch.stack(philox((counter, row, none, none + 1), _key_of(seed)), dim=-1)  # (T, 16 blocks, 4)
    words_TD = words.unflatten(1, (-1, 16)).transpose(2, 3).flatten(1)[:, :width]
    return (words_TD >= threshold(dropout)).double() / (1 - dropout)


def threshold(dropout: float) -> int:
    """A word below this drops; 0, which says to kernels that there is no dropout, is left to a rate of 0."""
    return max(int(dropout * 2**32), int(dropout > 0))


def _by_key(words: Words) -> Tensor:
    """(..., 4 quads) of each word -> (..., 16 keys)."""
    word_of_quad = torch.stack(words, -1).unflatten(-2, (-1, 4)).unflatten(-1, (2, 2))  # block, quad, 8 or not, odd
    return word_of_quad.transpose(-3, -2).flatten(-4)


def _key_of(seed: Tensor) -> tuple[Tensor, Tensor]:
    return seed & WORD, (seed >> 32) & WORD


def _product(x: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low words of 32 x 32 bits: int64 wraps around, which leaves all 64 bits right."""
    product = x * factor
    return (product >> 32) & WORD, product & WORD
