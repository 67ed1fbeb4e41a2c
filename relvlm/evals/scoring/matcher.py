"""What evaluation asks of a model, RelVLM's way of giving it, and any other object's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from relvlm.data.batches.transforms import eval_transform
from relvlm.data.text import Tokenizer, pre_caption
from relvlm.errors import UserError

METHODS = ("encode_image", "encode_text", "match")
PACKED = ("encode_image", "encode_text_packed", "image_features", "text_features", "match_pairs")
IMAGE_SIZE = 224


class Matcher(Protocol):
    """Any model that can be scored: three methods.

    What it may have beside them, by name:
    `image_features(rows) -> (B, E)` and `text_features(texts) -> (B, E)`, L2-normalised, of what the two encoders
    gave: retrieval takes its candidates by them, and without them re-scores every pair;
    `transform(image) -> (3, H, W)` of a PIL image, else `image_size` (224): square, bicubic, CLIP's mean and std;
    `protocol() -> dict` of what a reader must know; `truncated`: the set of texts that it had to cut;
    `probabilities = False` where `match` gives similarities, so that a task with a threshold is refused at once;
    for --cache, `fingerprint() -> str` that names its weights, and `transform_name` that names its transform.
    """

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, ...), one row an image, of (B, 3, H, W)."""

    def encode_text(self, texts: Sequence[str]) -> Sequence[Tensor]:
        """(length, ...) of each text; lengths may differ, and say what a text costs."""

    def match(self, images: Tensor, texts: Sequence[Tensor], image: Tensor, text: Tensor) -> Tensor:
        """Of G pairs (images[image[g]], texts[text[g]]): ITM logits (G, 2), 1 = match; or similarities (G,)."""


def as_matcher(
    model: Any, tokenizer: Tokenizer | None, max_words: int, max_tokens: int, sep: bool | None
) -> Any:
    """The model itself where it is a Matcher, RelVLM's wrapping; raises UserError naming what is absent."""
    if hasattr(model, "match_pairs") or hasattr(model, "encode_text_packed"):
        _need(model, PACKED)
        if getattr(model, "itm_head", model) is None:
            raise UserError("model: itm_head: absent (evaluation needs an ITM head: give another checkpoint)")
        return PackedMatcher(model, tokenizer or model.tokenizer, max_words, max_tokens, sep)
    _need(model, METHODS)
    return model


def named_matcher(name: str, max_words: int) -> Any:
    """`hf:PATH`: a Hugging Face CLIP or BLIP; `py:MODULE:CALLABLE`: what that callable returns."""
    kind, _, rest = name.partition(":")
    if kind == "hf" and rest:
        from relvlm.evals.scoring.huggingface import load

        return load(rest, max_words)
    module, _, attribute = rest.partition(":")
    if kind != "py" or not attribute:
        raise UserError(f"--model: {name!r}: neither hf:PATH nor py:MODULE:CALLABLE")
    try:
        return getattr(import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise UserError(f"--model: {name}: {error} (is its folder on PYTHONPATH?)") from error


def transform_of(matcher: Any) -> Callable[[Image.Image], Tensor]:
    """The model's own transform, or the common protocol's at its image size."""
    own = getattr(matcher, "transform", None)
    return own if own is not None else eval_transform(getattr(matcher, "image_size", IMAGE_SIZE))


def transform_name(matcher: Any) -> str:
    """Names what `transform_of` does."""
    if not hasattr(matcher, "transform"):
        return f"square bicubic {getattr(matcher, 'image_size', IMAGE_SIZE)}"
    if not hasattr(matcher, "transform_name"):
        raise UserError("--cache: model: transform without transform_name (add one, or drop --cache)")
    return str(matcher.transform_name)


def fingerprint(matcher: Any) -> str:
    """Names the weights; raises UserError for a model that has neither a fingerprint nor a state_dict."""
    if hasattr(matcher, "fingerprint"):
        return str(matcher.fingerprint())
    if not isinstance(matcher, nn.Module):
        raise UserError("--cache: model: no fingerprint() names its weights (add one, or drop --cache)")
    return weights_hash(matcher)


def weights_hash(module: nn.Module) -> str:
    """sha256 over names, dtypes and bytes of all tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class PackedMatcher:
    """RelVLM: texts are packed without padding, keys and values of an image are projected once for all its pairs."""

    def __init__(
        self, model: Any, tokenizer: Tokenizer, max_words: int, max_tokens: int, sep: bool | None
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_words = max_words
        self.max_tokens = max_tokens or model.config.text.max_positions
        self.sep = getattr(model, "sep", True) if sep is None else sep
        self.image_size = model.config.image_size
        self.device = torch.device("cpu")
        self.truncated: set[str] = set()

    def to(self, device: torch.device) -> PackedMatcher:
        self.device = device
        self.model.to(device)
        return self

    def eval(self) -> PackedMatcher:
        self.model.eval()
        return self

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)

    def encode_text(self, texts: Sequence[str]) -> Sequence[Tensor]:
        ids = [self._ids(text) for text in texts]
        packed = torch.tensor([i for text in ids for i in text], device=self.device)
        sizes = [len(text) for text in ids]
        return self.model.encode_text_packed(packed, _offsets(sizes, self.device)).split(sizes)

    def match(self, images: Tensor, texts: Sequence[Tensor], image: Tensor, text: Tensor) -> Tensor:
        cu = _offsets([len(x) for x in texts], self.device)
        return self.model.match_pairs(images, torch.cat(list(texts)), cu, image, text)

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

    def _ids(self, text: str) -> list[int]:
        caption, before = pre_caption(text, self.max_words), self.tokenizer.truncated
        (ids,) = self.tokenizer.encode([caption], self.max_tokens, self.sep)
        words_cut = len(pre_caption(text, self.max_words + 1)) > len(caption)
        if words_cut or self.tokenizer.truncated > before:
            self.truncated.add(text)
        return ids


def _need(model: Any, names: Sequence[str]) -> None:
    absent = [name for name in names if not hasattr(model, name)]
    if absent:
        raise UserError(
            f"model: {absent[0]}: absent (evaluation needs {', '.join(names)}: encoders and an ITM head)"
        )


def _offsets(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).to(device)
