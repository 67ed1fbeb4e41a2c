"""Toy models whose match is by how red an image is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Redness(nn.Module):
    """Matches red images with texts that say red; no features, no tokenizer, its own image size."""

    image_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.encoded: list[str] = []

    def encode_image(self, pixels):
        self.encoded += ["image"] * len(pixels)
        return pixels.mean((2, 3)) * self.weight

    def encode_text(self, texts):
        self.encoded += texts
        return [torch.tensor([[float("red" in text)]]) for text in texts]

    def match(self, images, texts, image, text):
        red = images[image, 0] - images[image, 1:].mean(1)
        says = torch.stack([texts[i][0, 0] for i in text.tolist()])
        return torch.stack([torch.zeros(len(image)), red * (2 * says - 1)], dim=1)


class Nearness:
    """The match logit, and the features, are by how red the image is and whether the text says so."""

    def __init__(self, logits: bool = True) -> None:
        self.logits, self.pairs = logits, 0

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3))[:, :1]

    def encode_text(self, texts: Sequence[str]) -> list[torch.Tensor]:
        return [torch.tensor([[float(text.split()[0])]]) for text in texts]

    def match(self, images, texts, image, text) -> torch.Tensor:
        self.pairs += len(image)
        wanted = torch.stack([texts[i][0, 0] for i in text.tolist()])
        near = -(images[image, 0] - wanted).abs()
        return torch.stack([torch.zeros_like(near), near], 1) if self.logits else near


class WithFeatures(Nearness):
    def image_features(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([rows, -(rows**2), torch.ones_like(rows)], 1)

    def text_features(self, texts: Sequence[torch.Tensor]) -> torch.Tensor:
        value = torch.stack([text[0] for text in texts])
        return torch.cat([2 * value, torch.ones_like(value), -(value**2)], 1)  # products: minus squared distances


def tone(red: int) -> float:
    """What CLIP's normalisation makes of a red value."""
    return (red / 255 - 0.48145466) / 0.26862954
