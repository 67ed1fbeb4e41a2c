"""Hugging Face models as Matchers: CLIP-like dual encoders, and BLIP-like ones with an ITM head.

Legend: B images or texts, S image tokens, L padded text length, G pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from relvlm.data.text import pre_caption
from relvlm.errors import UserError
from relvlm.evals.scoring.weights import weights_hash

BLIP, SIGLIP = "blip", "siglip"  # config.model_type


class HuggingFaceMatcher:
    """What both kinds share: a processor's tokenizer and image transform, and where the weights are.

    Texts go through `pre_caption` and are cut at the model's number of positions (counted in `truncated`).
    """

    probabilities = has_features = True

    def __init__(self, model: Any, processor: Any, max_words: int = 40) -> None:
        self.model = model
        self.tokenizer = processor.tokenizer
        self.processor = processor.image_processor
        self.max_words = max_words
        self.max_tokens = int(model.config.text_config.max_position_embeddings)
        self.device = torch.device("cpu")
        self.truncated: set[str] = set()
        self.boxes: Callable[..., Tensor] | None = None

    def move(self, device: torch.device) -> None:
        self.device = device
        self.model.to(device).eval()

    def transform(self, image: Image.Image) -> Tensor:
        """(3, H, W), by the model's own processor."""
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]

    @property
    def transform_name(self) -> str:
        return self.processor.to_json_string()

    def protocol(self) -> dict[str, Any]:
        return {
            "model": type(self.model).__name__,
            "image_size": self.model.config.vision_config.image_size,
            "max_words": self.max_words,
            "max_tokens": self.max_tokens,
        }

    def fingerprint(self) -> str:
        return weights_hash(self.model)

    def ids(self, text: str) -> Tensor:
        """(L,) token ids, special ones included."""
        caption = pre_caption(text, self.max_words)
        ids = self.tokenizer(caption, truncation=True, max_length=self.max_tokens)["input_ids"]
        words_cut = len(pre_caption(text, self.max_words + 1)) > len(caption)
        if words_cut or len(self.tokenizer(caption)["input_ids"]) > len(ids):
            self.truncated.add(text)
        return torch.tensor(ids, device=self.device)

    def padded(self, ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(B, L) ids and their mask."""
        lengths = torch.tensor([len(x) for x in ids], device=self.device)
        pad = self.tokenizer.pad_token_id or 0
        padded = torch.nn.utils.rnn.pad_sequence(list(ids), batch_first=True, padding_value=pad)
        return padded, (torch.arange(padded.shape[1], device=self.device) < lengths[:, None]).long()


class ClipMatcher(HuggingFaceMatcher):
    """CLIP, SigLIP, ALIGN and the like: a score is the cosine of two features, no probability.

    SigLIP reads a text padded to its full length, without a mask: so it was trained.
    """

    probabilities = False

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Features (B, E)."""
        return _pooled(self.model.get_image_features(pixel_values=pixels))

    def encode_text(self, texts: Sequence[str]) -> Sequence[Tensor]:
        """One feature (1, E) of each text."""
        ids, mask = self.padded([self.ids(text) for text in texts])
        if self.model.config.model_type.startswith(SIGLIP):
            pad = self.tokenizer.pad_token_id or 0
            ids = F.pad(ids, (0, self.max_tokens - ids.shape[1]), value=pad)
            features = _pooled(self.model.get_text_features(input_ids=ids))
        else:
            features = _pooled(self.model.get_text_features(input_ids=ids, attention_mask=mask))
        return list(features[:, None])

    def match(self, images: Tensor, texts: Sequence[Tensor], image: Tensor, text: Tensor) -> Tensor:
        features_GE = self.text_features(texts)[text]
        return (self.image_features(images)[image] * features_GE).sum(-1)

    def image_features(self, rows: Tensor) -> Tensor:
        return F.normalize(rows.float(), dim=-1)

    def text_features(self, texts: Sequence[Tensor]) -> Tensor:
        return F.normalize(torch.cat(list(texts)).float(), dim=-1)


class BlipMatcher(HuggingFaceMatcher):
    """BLIP for retrieval: its text encoder looks at the image in every layer, so a text is encoded with its pair."""

    def __init__(self, model: Any, processor: Any, max_words: int = 40) -> None:
        for name in ("itm_head", "vision_model", "text_encoder"):
            if getattr(model, name, None) is None:
                raise UserError(f"model: {name}: absent (give a BlipForImageTextRetrieval, which has an ITM head)")
        super().__init__(model, processor, max_words)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, S, D)."""
        return self.model.vision_model(pixel_values=pixels)[0]

    def encode_text(self, texts: Sequence[str]) -> Sequence[Tensor]:
        """Ids: nothing can be encoded before the image is known."""
        return [self.ids(text) for text in texts]

    def match(self, images: Tensor, texts: Sequence[Tensor], image: Tensor, text: Tensor) -> Tensor:
        ids, mask = self.padded([texts[i] for i in text.tolist()])
        tokens_GSD = images[image]
        everywhere = torch.ones(tokens_GSD.shape[:2], dtype=torch.long, device=self.device)
        fused = self.model.text_encoder(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=tokens_GSD,
            encoder_attention_mask=everywhere,
        )[0]
        return self.model.itm_head(fused[:, 0])

    def image_features(self, rows: Tensor) -> Tensor:
        return F.normalize(self.model.vision_proj(rows[:, 0]), dim=-1)

    def text_features(self, texts: Sequence[Tensor]) -> Tensor:
        ids, mask = self.padded(texts)

        tokens_BLD = self.model.text_encoder(input_ids=ids, attention_mask=mask)[0]
        return F.normalize(self.model.text_proj(tokens_BLD[:, 0]), dim=-1)


def load(path: str, max_words: int = 40) -> HuggingFaceMatcher:
    """The model in a local folder (nothing is downloaded); raises UserError where it cannot be loaded."""
    from transformers import AutoConfig, AutoModel, AutoProcessor, BlipForImageTextRetrieval

    if not (Path(path) / "config.json").is_file():
        raise UserError(f"--model: hf:{path}: no config.json in this folder (save_pretrained one there first)")
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        processor = AutoProcessor.from_pretrained(path, local_files_only=True)
        kind: Any = BlipForImageTextRetrieval if config.model_type == BLIP else AutoModel
        model, loading = kind.from_pretrained(path, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise UserError(f"--model: hf:{path}: {error}") from error
    if loading["missing_keys"]:
        some = ", ".join(sorted(loading["missing_keys"])[:3])
        raise UserError(f"--model: hf:{path}: weights absent, {some}, ... (they would be random)")
    return wrap(model, processor, max_words)


def wrap(model: Any, processor: Any, max_words: int = 40) -> HuggingFaceMatcher:
    """The Matcher of a model in memory; raises UserError for one that is neither kind."""
    if model.config.model_type == BLIP:
        return BlipMatcher(model, processor, max_words)
    if hasattr(model, "get_image_features") and hasattr(model, "get_text_features"):
        return ClipMatcher(model, processor, max_words)
    raise UserError(f"model: {type(model).__name__}: neither CLIP-like (get_image_features) nor BLIP-like (itm_head)")


def _pooled(output: Any) -> Tensor:
    """Transformers 4 gives the features themselves, 5 an output that holds them."""
    return output if isinstance(output, Tensor) else output.pooler_output
