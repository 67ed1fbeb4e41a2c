"""Scores of (image, text) pairs: each distinct image and text is encoded once, pairs are fused in packed batches.

Legend: B images, S image tokens, T packed tokens, G pairs, D and Dv widths, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from relvlm.data.text import Tokenizer, pre_caption
from relvlm.data.transforms import decode, eval_transform
from relvlm.errors import UserError

T = TypeVar("T")
TOKEN_BUDGET = {"cpu": 2048}
NEEDED = ("encode_image", "encode_text_packed", "image_features", "text_features", "match_pairs")


@dataclass(frozen=True)
class ScoreOptions:
    """How texts are cut and how much is computed at once.

    `max_tokens` 0: as many as the model has positions for. `sep` None: as the model's texts were made (its `sep`).

    `token_budget` bounds the packed text tokens of one fusion pass (0: what suits the device: a CPU's cache is
    small), `image_batch` the images of one.
    """

    device: str = "cpu"
    dtype: Literal["fp32", "bf16"] = "fp32"
    image_batch: int = 32
    token_budget: int = 0
    max_words: int = 40
    max_tokens: int = 0
    sep: bool | None = None
    decode_threads: int = 2
    max_pixels: int = 178_956_970


class Scorer:
    """Holds what it has encoded (in main memory), so that several tasks can share their images."""

    def __init__(self, model: Any, tokenizer: Tokenizer, options: ScoreOptions | None = None) -> None:
        """Moves the model to the device, in eval mode; raises UserError where it cannot score pairs."""
        absent = [name for name in NEEDED if not hasattr(model, name)]
        if absent:
            raise UserError(f"model: {absent[0]}: absent (evaluation needs encoders and an ITM head)")
        self.options = options or ScoreOptions()
        self.device = _device(self.options.device)
        self.token_budget = self.options.token_budget or TOKEN_BUDGET.get(self.device.type, 65536)
        self.model = model.to(self.device).eval()
        self.tokenizer = tokenizer
        self.sep = getattr(model, "sep", True) if self.options.sep is None else self.options.sep
        self.transform = eval_transform(self.model.config.image_size)
        self._images: dict[Path, Tensor] = {}  # (S, Dv)
        self._texts: dict[str, Tensor] = {}  # (L, D)
        self._cut: set[str] = set()

    @property
    def max_tokens(self) -> int:
        """Longest text in tokens, special ones included."""
        return self.options.max_tokens or self.model.config.text.max_positions

    def protocol(self) -> dict[str, Any]:
        """What a reader must know to compare a figure."""
        return {
            "image_size": self.model.config.image_size,
            "max_words": self.options.max_words,
            "max_tokens": self.max_tokens,
            "sep": self.sep,
            "dtype": self.options.dtype,
        }

    def cut(self, texts: Iterable[str]) -> int:
        """How many of these distinct texts were longer than `max_words` or `max_tokens` allow."""
        return len(self._cut.intersection(texts))

    def probabilities(self, images: Sequence[Path], texts: Sequence[str]) -> Tensor:
        """(G,) softmax(ITM logits)[match] of pair g = (images[g], texts[g])."""
        image_names, image_index = _distinct(images)
        text_names, text_index = _distinct(texts)
        logits_G2 = self.match_logits(image_names, text_names, image_index, text_index)
        return logits_G2.softmax(-1)[:, 1]

    def match_logits(
        self, images: Sequence[Path], texts: Sequence[str], image_index: Tensor, text_index: Tensor
    ) -> Tensor:
        """ITM logits (G, 2), fp32 on the CPU, of pairs (images[image_index[g]], texts[text_index[g]])."""
        self.add_images(images)
        self.add_texts(texts)
        lengths = torch.tensor([len(self._texts[text]) for text in texts], dtype=torch.long)
        order = torch.argsort(
            image_index, stable=True
        )  # an image's pairs together: its K, V are projected once
        result = torch.empty(len(order), 2)
        for part in _batches(
            order, image_index, lengths[text_index], self.token_budget, self.options.image_batch
        ):
            logits = self._fuse(images, texts, image_index[part], text_index[part])
            result[part] = logits.float().cpu()
        return result

    def image_features(self, images: Sequence[Path]) -> Tensor:
        """(B, E), L2-normalised, fp32 on the CPU."""
        self.add_images(images)
        chunks = _chunks(images, self.options.image_batch)
        tokens = (torch.stack([self._images[path] for path in chunk]) for chunk in chunks)
        return torch.cat([self._run(self.model.image_features, x.to(self.device)) for x in tokens])

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """(B, E), L2-normalised, fp32 on the CPU."""
        self.add_texts(texts)
        cls_BLD = torch.stack([self._texts[text][:1] for text in texts])
        return self._run(self.model.text_features, cls_BLD.to(self.device))

    def add_images(self, images: Iterable[Path]) -> None:
        """Encode the images that are not held yet; raises UserError naming one that cannot be decoded."""
        new = [path for path in dict.fromkeys(images) if path not in self._images]
        with ThreadPoolExecutor(self.options.decode_threads) as pool:
            for chunk in _chunks(new, self.options.image_batch):
                pixels = torch.stack(list(pool.map(self._pixels, chunk)))
                tokens_BSD = self._run(self.model.encode_image, pixels.to(self.device), keep_dtype=True)
                self._images.update(zip(chunk, tokens_BSD.unbind(), strict=True))

    def add_texts(self, texts: Iterable[str]) -> None:
        """Encode the texts that are not held yet, packed."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        ids = [self._ids(text) for text in new]
        per_batch = max(1, self.token_budget // max(map(len, ids), default=1))
        for chunk in _chunks(range(len(new)), per_batch):
            packed = [torch.tensor(ids[i]) for i in chunk]
            ids_T, cu = torch.cat(packed), _offsets([len(x) for x in packed])
            run = self._run(
                self.model.encode_text_packed, ids_T.to(self.device), cu.to(self.device), keep_dtype=True
            )
            tokens = run.split([len(x) for x in packed])
            self._texts.update((new[i], x) for i, x in zip(chunk, tokens, strict=True))

    def _ids(self, text: str) -> list[int]:
        caption, before = pre_caption(text, self.options.max_words), self.tokenizer.truncated
        (ids,) = self.tokenizer.encode([caption], self.max_tokens, self.sep)
        words_cut = len(pre_caption(text, self.options.max_words + 1)) > len(caption)
        if words_cut or self.tokenizer.truncated > before:
            self._cut.add(text)
        return ids

    def _pixels(self, path: Path) -> Tensor:
        try:
            return self.transform(decode(path.read_bytes(), self.options.max_pixels))
        except ValueError as error:
            raise UserError(f"{path}: {error} (replace the image, or leave its rows out)") from error

    def _fuse(self, images: Sequence[Path], texts: Sequence[str], image: Tensor, text: Tensor) -> Tensor:
        """Logits of one batch: only its own images and texts travel to the device."""
        image_rows, image_index = image.unique(return_inverse=True)
        text_rows, text_index = text.unique(return_inverse=True)
        tokens_BSD = torch.stack([self._images[images[i]] for i in image_rows.tolist()])
        packed = [self._texts[texts[i]] for i in text_rows.tolist()]
        cu = _offsets([len(x) for x in packed])
        tensors = (tokens_BSD, torch.cat(packed), cu, image_index, text_index)
        return self._run(self.model.match_pairs, *(x.to(self.device) for x in tensors))

    @torch.inference_mode()
    def _run(self, method: Any, *tensors: Tensor, keep_dtype: bool = False) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.dtype == "bf16"):
            result: Tensor = method(*tensors)
        return result.cpu() if keep_dtype else result.float().cpu()


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch built without CUDA
        raise UserError(f"--device: {name!r}: {str(error).splitlines()[0]} (try cpu)") from error
    return device


def _batches(
    order: Tensor, image: Tensor, lengths: Tensor, token_budget: int, image_batch: int
) -> Iterator[Tensor]:
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


def _distinct(values: Sequence[T]) -> tuple[list[T], Tensor]:
    """Distinct values, and for each of `values` its place among them."""
    place = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return list(place), torch.tensor([place[value] for value in values], dtype=torch.long)


def _chunks(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (values[i : i + size] for i in range(0, len(values), size))


def _offsets(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
