"""A Matcher of anyone's model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from relvlm.data.batches.transforms import eval_transform
from relvlm.errors import UserError
from relvlm.evals.scoring.matcher import Features, Movable, PairModel
from relvlm.evals.scoring.weights import weights_hash

IMAGE_SIZE = 224


class AnyModel:
    """What a model has by the names that `PairModel` lists, and the common protocol for the rest."""

    def __init__(self, model: PairModel) -> None:
        self.model = model
        self.has_features = isinstance(model, Features)
        self.probabilities: bool = getattr(model, "probabilities", True)
        self.truncated: set[str] = getattr(model, "truncated", set())
        self.boxes: Callable[..., Tensor] | None = getattr(model, "boxes", None)
        self.image_size: int = getattr(model, "image_size", IMAGE_SIZE)
        self.own_transform: Callable[[Image.Image], Tensor] | None = getattr(model, "transform", None)

    def move(self, device: torch.device) -> None:
        if isinstance(self.model, Movable):
            self.model.to(device)
            self.model.eval()

    @property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        return self.own_transform or eval_transform(self.image_size)

    @property
    def transform_name(self) -> str:
        """UserError for a transform of its own without a name."""
        if self.own_transform is None:
            return f"square bicubic {self.image_size}"
        name = getattr(self.model, "transform_name", None)
        if name is None:
            raise UserError("--cache: model: transform without transform_name (add one, or drop --cache)")
        return str(name)

    def protocol(self) -> dict[str, Any]:
        own = getattr(self.model, "protocol", None)
        return own() if own else {}

    def fingerprint(self) -> str:
        """UserError for a model that has neither a fingerprint nor a state_dict."""
        own = getattr(self.model, "fingerprint", None)
        if own:
            return str(own())
        if not isinstance(self.model, nn.Module):
            raise UserError("--cache: model: no fingerprint() names its weights (add one, or drop --cache)")
        return weights_hash(self.model)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)

    def encode_text(self, texts: Sequence[str]) -> Sequence[Tensor]:
        return self.model.encode_text(texts)

    def match(self, images: Tensor, texts: Sequence[Tensor], image: Tensor, text: Tensor) -> Tensor:
        return self.model.match(images, texts, image, text)

    def image_features(self, rows: Tensor) -> Tensor:
        return self._features().image_features(rows)

    def text_features(self, texts: Sequence[Tensor]) -> Tensor:
        return self._features().text_features(texts)

    def _features(self) -> Features:
        if not isinstance(self.model, Features):
            raise UserError("model: image_features, text_features: absent (retrieval then scores every pair)")
        return self.model
