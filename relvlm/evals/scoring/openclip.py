"""open_clip's dual encoders as Matchers: a score is the cosine of two features, no probability.

Legend: B images or texts, L text length, E embedding width, G pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from relvlm.data.text import pre_caption
from relvlm.errors import UserError
from relvlm.evals.scoring.weights import weights_hash

MOST = 5  # tags that an error names
SCHEMAS = ("hf-hub:", "local-dir:")  # names of open_clip's own that say where the weights are


class OpenClipMatcher:
    """A model of open_clip with its image transform and its tokenizer, which pads to the model's context length.

    Texts go through `pre_caption`; those that the tokenizer cuts are counted in `truncated`.
    """

    probabilities, has_features = False, True

    def __init__(
        self,
        name: str,
        model: Any,
        transform: Callable[[Image.Image], Tensor],
        tokenizer: Callable[..., Tensor],
        max_words: int = 40,
    ) -> None:
        self.name, self.model, self.transform, self.tokenizer = name, model, transform, tokenizer
        self.max_words = max_words
        self.max_tokens = int(model.context_length)
        self.pad = int(self._padded([""])[0, -1])
        self.device = torch.device("cpu")
        self.truncated: set[str] = set()
        self.boxes: Callable[..., Tensor] | None = None

    def move(self, device: torch.device) -> None:
        self.device = device
        self.model.to(device).eval()

    @property
    def transform_name(self) -> str:
        return repr(self.transform)

    def protocol(self) -> dict[str, Any]:
        size = self.model.visual.image_size
        return {
            "open_clip": self.name,
            "image_size": size if isinstance(size, int) else size[0],
            "max_words": self.max_words,
            "max_tokens": self.max_tokens,
        }

    def fingerprint(self) -> str:
        return weights_hash(self.model)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Features (B, E)."""
        return self.model.encode_image(pixels)

    def encode_text(self, texts: Sequence[str]) -> Sequence[Tensor]:
        """One feature (1, E) of each text."""
        captions = [pre_caption(text, self.max_words) for text in texts]
        for text, caption, longer in zip(texts, captions, self._padded(captions), strict=True):
            if int(longer[-1]) != self.pad or len(pre_caption(text, self.max_words + 1)) > len(caption):
                self.truncated.add(text)
        return list(self.model.encode_text(self.tokenizer(captions).to(self.device))[:, None])

    def match(self, images: Tensor, texts: Sequence[Tensor], image: Tensor, text: Tensor) -> Tensor:
        return (self.image_features(images)[image] * self.text_features(texts)[text]).sum(-1)

    def image_features(self, rows: Tensor) -> Tensor:
        return F.normalize(rows.float(), dim=-1)

    def text_features(self, texts: Sequence[Tensor]) -> Tensor:
        return F.normalize(torch.cat(list(texts)).float(), dim=-1)

    def _padded(self, captions: list[str]) -> Tensor:
        """Ids (B, L + 1): with room for one more than the model takes, which what is too long for it fills."""
        return self.tokenizer(captions, context_length=self.max_tokens + 1)


def load(name: str, max_words: int = 40) -> OpenClipMatcher:
    """The model NAME:PRETRAINED of open_clip, a tag or a file; raises UserError where there is no such thing.

    Without PRETRAINED only where the name itself says where the weights are: they would be random.
    """
    try:
        import open_clip
    except ImportError as error:
        raise UserError(f"--model: open_clip:{name}: {error} (run: pip install open_clip_torch)") from error
    model, pretrained = (name, None) if name.startswith(SCHEMAS) else _parts(name)
    if pretrained == "":
        tags = open_clip.list_pretrained_tags_by_model(model) or ["a file of weights"]
        some = ", ".join(tags[:MOST]) + ", ..." * (len(tags) > MOST)
        raise UserError(f"--model: open_clip:{name}: no weights named (give open_clip:{model}:TAG, of {some})")
    try:
        made, _, transform = open_clip.create_model_and_transforms(model, pretrained=pretrained)
        tokenizer = open_clip.get_tokenizer(model)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise UserError(f"--model: open_clip:{name}: {str(error).splitlines()[0][:200]}") from error
    return OpenClipMatcher(name, made, transform, tokenizer, max_words)


def _parts(name: str) -> tuple[str, str]:
    model, _, pretrained = name.partition(":")
    return model, pretrained
