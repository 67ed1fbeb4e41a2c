"""The keep-mask of dropout on attention probabilities: a function of a seed and of places, not of an order of draws.

Philox-4x32-10 (Salmon et al., SC 2011) with the key (low, high 32 bits of the seed) and the counter (key, packed
query row, head, 0); its first word is compared with floor(dropout * 2^32). Forward and backward, on any backend and
with any tiling, recompute the same mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10


def first_word(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> Tensor:
    """First Philox word, in [0, 2^32), of int64 words that broadcast."""
    (a, b, c, d), (low, high) = counter, key
    for _ in range(ROUNDS):
        (high_a, low_a), (high_c, low_c) = _product(a, MULTIPLIERS[0]), _product(c, MULTIPLIERS[1])
        a, b, c, d = high_c ^ b ^ low, low_c, high_a ^ d ^ high, low_a
        low, high = (low + KEY_STEPS[0]) & WORD, (high + KEY_STEPS[1]) & WORD
    return a


def keep_scale(seed: Tensor, dropout: float, rows_BQ: Tensor, heads: int, keys: int) -> Tensor:
    """(B, H, Q, keys) float64: 0 where a probability is dropped, else 1 / (1 - dropout)."""
    key = torch.arange(keys, device=seed.device)
    head = torch.arange(heads, device=seed.device)[:, None, None]
    word = first_word((key, rows_BQ[:, None, :, None], head, torch.zeros_like(key)), (seed & WORD, (seed >> 32) & WORD))
    return (word >= threshold(dropout)).double() / (1 - dropout)


def threshold(dropout: float) -> int:
    """A first word below this drops the probability."""
    return int(dropout * 2**32)


def _product(x: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low words of 32 x 32 bits: int64 wraps around, which leaves all 64 bits right."""
    product = x * factor
    return (product >> 32) & WORD, product & WORD
