"""Which texts and which pairs are computed together. Pure functions of sizes.

Legend: G pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def order_of_pairs(image_G: Tensor, length_G: Tensor) -> Tensor:
    """(G,) order in which an image's pairs are together, by length, and images with texts of a length near each other.

    Together, because the keys and values of an image are projected once a batch; by length, because padded models
    pay for the longest of a batch.
    """
    if not len(image_G):
        return image_G
    images = int(image_G.max()) + 1
    counts = torch.bincount(image_G, minlength=images).clamp(min=1)
    mean = torch.bincount(image_G, weights=length_G.double(), minlength=images) / counts
    place = torch.empty(images, dtype=torch.long)
    place[torch.argsort(mean, stable=True)] = torch.arange(images)
    return torch.argsort(place[image_G] * (int(length_G.max()) + 1) + length_G, stable=True)


def batches(order: Tensor, image: Tensor, lengths: Tensor, token_budget: int, image_batch: int) -> Iterator[Tensor]:
    """Cut `order` so that each part holds at most `image_batch` images and about `token_budget` text tokens."""
    start, tokens, seen = 0, 0, set[int]()
    images, sizes = image[order].tolist(), lengths[order].tolist()
    for i, (name, size) in enumerate(zip(images, sizes, strict=True)):
        full = tokens + size > token_budget or (name not in seen and len(seen) >= image_batch)
        if i > start and full:
            yield order[start:i]
            start, tokens, seen = i, 0, set()
        tokens += size
        seen.add(name)
    if start < len(order):
        yield order[start:]


def text_chunks(texts: Sequence[str], token_budget: int) -> Iterator[list[str]]:
    """Texts by length, cut by a guess of their tokens (5 letters a token, and two special ones)."""
    chunk: list[str] = []
    tokens = 0
    for text in sorted(texts, key=len):
        guess = len(text) // 5 + 2
        if chunk and tokens + guess > token_budget:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(text)
        tokens += guess
    if chunk:
        yield chunk


def chunks(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`values` in runs of `size`."""
    return (values[i : i + size] for i in range(0, len(values), size))
