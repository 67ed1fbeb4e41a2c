"""What scoring asks of a model.

Anyone's model needs the three methods of `PairModel`, and may have those of `Features` and `Movable`; what else it
lacks is supplied by `any_model.py`. Scoring itself sees a whole `Matcher`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor


@runtime_checkable
class PairModel(Protocol):
    """Any model that can be scored: three methods.

    What it may have beside them and those of `Features`, by name:
    `transform(image) -> (3, H, W)` of a PIL image, else `image_size` (224): square, bicubic, CLIP's mean and std;
    `protocol() -> dict` of what a reader must know; `truncated`: the set of texts that it had to cut;
    `boxes(images, texts, image, text)`, called as `match` is: (G, 4) as (cx, cy, w, h), shares of the whole photo;
    `probabilities = False` where `match` gives similarities, so that a task with a threshold is refused at once;
    for --cache, `fingerprint() -> str` that names its weights, and `transform_name` that names its transform.
    """

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, ...), one row an image, of (B, 3, H, W)."""

    def encode_text(self, texts: Sequence[str]) -> Sequence[Tensor]:
        """(length, ...) of each text; lengths may differ, and say what a text costs."""

    def match(self, images: Tensor, texts: Sequence[Tensor], image: Tensor, text: Tensor) -> Tensor:
        """Of G pairs (images[image[g]], texts[text[g]]): ITM logits (G, 2), 1 = match; or similarities (G,)."""


@runtime_checkable
class Features(Protocol):
    """By these retrieval chooses its candidates; without them it re-scores every pair."""

    def image_features(self, rows: Tensor) -> Tensor:
        """(B, E), L2-normalised, of what `encode_image` gave."""

    def text_features(self, texts: Sequence[Tensor]) -> Tensor:
        """(B, E), L2-normalised, of what `encode_text` gave."""


@runtime_checkable
class Movable(Protocol):
    """What is put onto the device, in eval mode: every `nn.Module`, and what has its two methods."""

    def to(self, device: torch.device) -> Any: ...
    def eval(self) -> Any: ...


class Matcher(PairModel, Features, Protocol):
    """A model with all that scoring uses.

    `probabilities`: whether `match` gives ITM logits, as far as is known before; `has_features`: whether those of
    `Features` may be called; `truncated`: the texts that had to be cut; `boxes`: called as `match` is, gives what each
    text means in its image, (G, 4) as (cx, cy, w, h) in [0, 1]; None where there is no box head.
    """

    probabilities: bool
    has_features: bool
    truncated: set[str]
    boxes: Callable[[Tensor, Sequence[Tensor], Tensor, Tensor], Tensor] | None

    @property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        """(3, H, W) of a PIL image."""

    @property
    def transform_name(self) -> str:
        """Names what `transform` does."""

    def protocol(self) -> dict[str, Any]:
        """What a reader must know to compare a figure."""

    def fingerprint(self) -> str:
        """Names the weights."""

    def move(self, device: torch.device) -> None:
        """To the device, in eval mode."""
