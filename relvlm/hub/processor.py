"""Photos and texts to what RelVLMModel takes, by the functions of evaluation.

Legend: B images or texts, L padded text length.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature
from transformers.utils import PushToHubMixin, cached_file

from relvlm.config.schema import DataConfig
from relvlm.data.batches.transforms import eval_transform
from relvlm.data.text import Tokenizer, caption_ids
from relvlm.errors import UserError
from relvlm.evals.scoring.photos import Photo
from relvlm.hub.config import RelVLMConfig

VOCAB = "vocab.txt"
FROM_HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
Picture = Image.Image | str | Path


class RelVLMProcessor(PushToHubMixin):
    """What config.json and vocab.txt of a model folder say of its pixels and tokens; both are saved again.

    Texts are cut as `relvlm eval` cuts them, at 40 words and at the model's positions; a warning says when.
    """

    def __init__(self, config: RelVLMConfig, vocab: Path) -> None:
        self.config, self.vocab = config, vocab.read_bytes()
        self.tokenizer = Tokenizer(vocab)
        if self.tokenizer.vocab_size != config.vocab_size:
            raise UserError(f"{vocab}: {self.tokenizer.vocab_size} tokens, the model has {config.vocab_size}")
        sizes = config.sizes
        self.transform = eval_transform(sizes.image_size)
        self.max_words, self.max_tokens = DataConfig.max_words, sizes.text.max_positions

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> RelVLMProcessor:
        """Of a folder, or of a repository of the Hub."""
        where = {name: kwargs[name] for name in FROM_HUB if name in kwargs}
        config = RelVLMConfig.from_pretrained(pretrained_model_name_or_path, **where)
        vocab = cached_file(pretrained_model_name_or_path, VOCAB, _raise_exceptions_for_missing_entries=False, **where)
        if vocab is None:
            raise UserError(f"{pretrained_model_name_or_path}: no {VOCAB} (put the one it was trained with there)")
        return cls(config, Path(vocab))

    def save_pretrained(self, save_directory: str | Path, **unused: Any) -> None:
        """Writes config.json and vocab.txt."""
        self.config.save_pretrained(save_directory)
        (Path(save_directory) / VOCAB).write_bytes(self.vocab)

    def __call__(
        self,
        images: Picture | Sequence[Picture] | None = None,
        text: str | Sequence[str] | None = None,
        max_length: int | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """`pixel_values` (B, 3, H, W) float32; `input_ids` and `attention_mask` (B, L), padded to the longest.

        `images`: as PIL has them, or files. `max_length`: tokens at most, in place of the model's positions; ValueError
        for more than these, and where no word has room.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors={return_tensors!r}: expected 'pt'")
        found: dict[str, Tensor] = {}
        if images is not None:
            listed = [images] if isinstance(images, (Image.Image, str, Path)) else images
            found["pixel_values"] = torch.stack([self.transform(_opened(image)) for image in listed])
        if text is not None:
            found |= self._tokens([text] if isinstance(text, str) else text, self._limit(max_length))
        return BatchFeature(found)

    def _limit(self, max_length: int | None) -> int:
        least = 2 + self.config.sep  # [CLS], a piece of a word and, where texts have it, [SEP]
        if max_length is not None and not least <= max_length <= self.max_tokens:
            raise ValueError(f"max_length={max_length}: expected {least} to {self.max_tokens}, the model's positions")
        return self.max_tokens if max_length is None else max_length

    def _tokens(self, texts: Sequence[str], max_tokens: int) -> dict[str, Tensor]:
        limits = self.max_words, max_tokens, self.config.sep
        encoded = [caption_ids(self.tokenizer, text, *limits) for text in texts]
        cut = sum(was_cut for _, was_cut in encoded)
        if cut:
            words = f"{cut} of {len(texts)} texts cut, at {self.max_words} words or {max_tokens} tokens"
            warnings.warn(words, stacklevel=3)
        rows = [torch.tensor(ids) for ids, _ in encoded]
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        return {
            "input_ids": pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_id),
            "attention_mask": mask,
        }


def _opened(image: Picture) -> Image.Image:
    """UserError for a file that cannot be decoded."""
    if isinstance(image, Image.Image):
        return image
    photo = Photo(Path(image))
    return photo.open(photo.read(), DataConfig.max_pixels)
