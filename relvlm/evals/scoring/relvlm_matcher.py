"""RelVLM as a Matcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from relvlm.data.batches.transforms import eval_transform
from relvlm.data.text import Tokenizer, caption_ids
from relvlm.evals.scoring.weights import weights_hash
from relvlm.model import RelVLM


class RelVLMMatcher:
    """RelVLM: texts are packed without padding, keys and values of an image are projected once for all its pairs."""

    probabilities = has_features = True

    def __init__(self, model: RelVLM, tokenizer: Tokenizer, max_words: int, max_tokens: int, sep: bool | None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_words = max_words
        self.max_tokens = max_tokens or model.config.text.max_positions
        self.sep = getattr(model, "sep", True) if sep is None else sep  # `relvlm.load` sets it
        self.image_size = model.config.image_size
        self.device = torch.device("cpu")
        self.truncated: set[str] = set()
        self.boxes: Callable[..., Tensor] | None = None if model.box_head is None else self._boxes
        self.transform: Callable[[Image.Image], Tensor] = eval_transform(self.image_size)
        self.transform_name = f"square bicubic {self.image_size}"

    def move(self, device: torch.device) -> None:
        self.device = device
        self.model.to(device).eval()

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)

    def encode_text(self, texts: Sequence[str]) -> Sequence[Tensor]:
        ids = [self._ids(text) for text in texts]
        packed = torch.tensor([i for text in ids for i in text], device=self.device)
        sizes = [len(text) for text in ids]
        return self.model.encode_text_packed(packed, _offsets(sizes, self.device)).split(sizes)

    def match(self, images: Tensor, texts: Sequence[Tensor], image: Tensor, text: Tensor) -> Tensor:
        return self.model.match_pairs(images, *self._packed(texts), image, text)

    def image_features(self, rows: Tensor) -> Tensor:
        return self.model.image_features(rows)

    def text_features(self, texts: Sequence[Tensor]) -> Tensor:
        return self.model.text_features(torch.stack([x[0] for x in texts])[:, None])

    def protocol(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "max_words": self.max_words,
            "max_tokens": self.max_tokens,
            "sep": self.sep,
        }

    def fingerprint(self) -> str:
        return weights_hash(self.model)

    def _boxes(self, images: Tensor, texts: Sequence[Tensor], image: Tensor, text: Tensor) -> Tensor:
        return self.model.box_pairs(images, *self._packed(texts), image, text)

    def _packed(self, texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Tokens (T, D), and where each text begins."""
        return torch.cat(list(texts)), _offsets([len(x) for x in texts], self.device)

    def _ids(self, text: str) -> list[int]:
        ids, cut = caption_ids(self.tokenizer, text, self.max_words, self.max_tokens, self.sep)
        if cut:
            self.truncated.add(text)
        return ids


def _offsets(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).to(device)
