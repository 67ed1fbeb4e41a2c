"""Scores of (image, text) pairs: each distinct image and text is encoded once, pairs are fused in packed batches.

Several processes share the images among them, each with its pairs, and all of them have all scores at the end.

Legend: B images, S image tokens, T packed tokens, G pairs, D and Dv widths, E embedding width.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from relvlm.config.schema import DataConfig
from relvlm.data.text import Tokenizer
from relvlm.errors import UserError
from relvlm.evals.scoring.models import as_matcher
from relvlm.evals.scoring.packs import batches, chunks, order_of_pairs, text_chunks
from relvlm.evals.scoring.photos import ImageCache, Photo
from relvlm.ranks import gather_objects, rank, world_size

T = TypeVar("T")
TOKEN_BUDGET = {"cpu": 2048}
Picture = Path | Photo


@dataclass(frozen=True)
class ScoreOptions:
    """How texts are cut and how much is computed at once.

    `max_tokens` 0: as many as the model has positions for. `sep` None: as the model's texts were made (its `sep`).

    `token_budget` bounds the packed text tokens of one fusion pass (0: what suits the device: a CPU's cache is
    small), `image_batch` the images of one, `memory_gb` the image encodings held at once. `cache`: folder for
    encodings on disk.
    """

    device: str = "cpu"
    dtype: Literal["fp32", "bf16"] = "fp32"
    image_batch: int = 32
    token_budget: int = 0
    max_words: int = 40
    max_tokens: int = 0
    sep: bool | None = None
    decode_threads: int = min(8, os.cpu_count() or 1)
    max_pixels: int = DataConfig.max_pixels
    memory_gb: float = 8.0
    cache: Path | None = None


class Scorer:
    """Holds what it has encoded (in main memory), so that several tasks can share their images."""

    def __init__(self, model: Any, tokenizer: Tokenizer | None = None, options: ScoreOptions | None = None) -> None:
        """Moves the model to the device, in eval mode; raises UserError where it cannot score pairs."""
        self.options = options or ScoreOptions()
        chosen = self.options
        self.device = _device(chosen.device)
        self.token_budget = chosen.token_budget or TOKEN_BUDGET.get(self.device.type, 65536)
        self.matcher = as_matcher(model, tokenizer, chosen.max_words, chosen.max_tokens, chosen.sep)
        self.matcher.move(self.device)
        self.transform = self.matcher.transform
        self.cache = self._open_cache(chosen.cache) if chosen.cache else None
        self._images: OrderedDict[Photo, Tensor] = OrderedDict()  # (S, Dv)
        self._bytes = 0
        self._texts: dict[str, Tensor] = {}  # (L, D)

    @cached_property
    def model(self) -> str:
        """Names the weights; the class, of a model that cannot name them."""
        try:
            return self.matcher.fingerprint()
        except UserError:
            kind = type(getattr(self.matcher, "model", self.matcher))
            return f"{kind.__module__}.{kind.__qualname__}"

    def protocol(self) -> dict[str, Any]:
        """What a reader must know to compare a figure."""
        return {**self.matcher.protocol(), "dtype": self.options.dtype, "model": self.model}

    def cut(self, texts: Iterable[str]) -> int:
        """How many of these distinct texts were longer than `max_words` or `max_tokens` allow."""
        cut = set[str]().union(*gather_objects(self.matcher.truncated))
        return len(cut.intersection(texts))

    def faults(self, photos: Sequence[Photo]) -> dict[Photo, str]:
        """What is wrong with each photo that cannot be scored; the processes share them, and all know all."""
        own = photos[_share(len(photos))]
        with ThreadPoolExecutor(self.options.decode_threads) as pool:
            found = list(pool.map(lambda photo: photo.fault(self.options.max_pixels), own))
        parts = gather_objects({photo: fault for photo, fault in zip(own, found, strict=True) if fault})
        return {photo: fault for part in parts for photo, fault in part.items()}

    def scores(self, images: Sequence[Picture], texts: Sequence[str]) -> tuple[Tensor, bool]:
        """(G,) of pair g = (images[g], texts[g]), and whether they are softmax(ITM logits)[match] or similarities."""
        image_names, image_index = distinct(images)
        text_names, text_index = distinct(texts)
        logits = self.match_logits(image_names, text_names, image_index, text_index)
        return as_scores(logits)

    def probabilities(self, images: Sequence[Picture], texts: Sequence[str]) -> Tensor:
        """(G,) softmax(ITM logits)[match] of pair g = (images[g], texts[g])."""
        found, are_probabilities = self.scores(images, texts)
        if not are_probabilities:
            raise UserError("model: match gives similarities, no ITM logits (it needs an ITM head)")
        return found

    def match_logits(
        self, images: Sequence[Picture], texts: Sequence[str], image_index: Tensor, text_index: Tensor
    ) -> Tensor:
        """ITM logits (G, 2), or similarities (G,), fp32 on the CPU.

        Pair g is (images[image_index[g]], texts[text_index[g]]).
        """
        return self.of_pairs(self.matcher.match, images, texts, image_index, text_index)

    def of_pairs(
        self,
        method: Callable[..., Tensor],
        images: Sequence[Picture],
        texts: Sequence[str],
        image_index: Tensor,
        text_index: Tensor,
    ) -> Tensor:
        """What a method of the matcher, called as `match` is, gives for pairs: (G, ...), fp32 on the CPU."""
        photos = [_photo(image) for image in images]
        own = torch.zeros(len(photos), dtype=torch.bool)
        own[_share(len(photos))] = True
        mine = own[image_index].nonzero().squeeze(1)
        part = self._match(method, photos, texts, image_index[mine], text_index[mine])
        pieces = [piece for piece in gather_objects((mine, part)) if len(piece[0])]
        result = pieces[0][1].new_empty(len(image_index), *pieces[0][1].shape[1:])
        for place, logits in pieces:
            result[place] = logits
        return result

    def image_features(self, images: Sequence[Picture]) -> Tensor:
        """(B, E), L2-normalised, fp32 on the CPU."""
        photos = [_photo(image) for image in images]
        found = []
        for chunk in chunks(photos[_share(len(photos))], self.options.image_batch):
            tokens_BSD = torch.stack(self.encoded(chunk)).to(self.device)
            found.append(self._run(self.matcher.image_features, tokens_BSD).float().cpu())
        return torch.cat([part for parts in gather_objects(found) for part in parts])

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """(B, E), L2-normalised, fp32 on the CPU."""
        own = texts[_share(len(texts))]
        self.add_texts(own)
        found = []
        for chunk in chunks(own, 1024):
            held = [self._texts[text].to(self.device) for text in chunk]
            found.append(self._run(self.matcher.text_features, held).float().cpu())
        return torch.cat([part for parts in gather_objects(found) for part in parts])

    def encoded(self, images: Iterable[Picture]) -> list[Tensor]:
        """Encodings (S, Dv); those not held are computed, or read from the cache. UserError names a bad image."""
        wanted = [_photo(image) for image in images]
        new = [photo for photo in dict.fromkeys(wanted) if photo not in self._images]
        held = {photo: self._images[photo] for photo in wanted if photo in self._images}
        with ThreadPoolExecutor(self.options.decode_threads) as pool:
            coming: list[Future] = []
            parts = list(chunks(new, self.options.image_batch))
            for i, part in enumerate(parts):  # the next part is decoded while this one is encoded
                current = coming or [pool.submit(self._prepare, photo) for photo in part]
                coming = [pool.submit(self._prepare, photo) for photo in (parts[i + 1] if i + 1 < len(parts) else ())]
                held |= self._encode(part, [future.result() for future in current])
        return [held[photo] for photo in wanted]

    def add_texts(self, texts: Iterable[str]) -> None:
        """Encode the texts that are not held yet, those of a length together."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for chunk in text_chunks(new, self.token_budget):
            tokens = self._run(self.matcher.encode_text, chunk)
            # clones: a view of its whole batch would be sent between processes, and kept, with the batch
            self._texts.update((text, x.cpu().clone()) for text, x in zip(chunk, tokens, strict=True))

    def _match(
        self, method: Callable[..., Tensor], photos: Sequence[Photo], texts: Sequence[str], image: Tensor, text: Tensor
    ) -> Tensor:
        """What the method gives for this process's pairs."""
        used = [texts[i] for i in text.unique().tolist()]
        self.add_texts(used)
        lengths = torch.tensor([len(self._texts[t]) if t in self._texts else 0 for t in texts], dtype=torch.int64)
        order = order_of_pairs(image, lengths[text])
        self._encode_ahead([photos[i] for i in dict.fromkeys(image[order].tolist())])
        result: Tensor | None = None
        for part in batches(order, image, lengths[text], self.token_budget, self.options.image_batch):
            found = self._fuse(method, photos, texts, image[part], text[part]).float().cpu()
            if result is None:
                result = found.new_empty(len(image), *found.shape[1:])
            result[part] = found
        return torch.empty(0, 2) if result is None else result

    def _encode_ahead(self, photos: Sequence[Photo]) -> None:
        """Encode in large batches, decoding ahead, as many as half of the memory holds; the rest when needed."""
        for chunk in chunks(photos, 8 * self.options.image_batch):
            if self._bytes > self.options.memory_gb * 2**29:
                break
            self.encoded(chunk)

    def _fuse(
        self, method: Callable[..., Tensor], photos: Sequence[Photo], texts: Sequence[str], image: Tensor, text: Tensor
    ) -> Tensor:
        """Of one batch: only its own images and texts travel to the device."""
        image_rows, image_index = image.unique(return_inverse=True)
        text_rows, text_index = text.unique(return_inverse=True)
        tokens_BSD = torch.stack(self.encoded(photos[i] for i in image_rows.tolist())).to(self.device)
        held = [self._texts[texts[i]].to(self.device) for i in text_rows.tolist()]
        where = (image_index.to(self.device), text_index.to(self.device))
        return self._run(method, tokens_BSD, held, *where)

    def _prepare(self, photo: Photo) -> tuple[str, Tensor | None, Tensor | None]:
        """Cache key, the encoding if the cache has it, else the pixels (3, H, W)."""
        data = photo.read()
        key = photo.key(data) if self.cache else ""
        known = self.cache.get(key) if self.cache else None
        return (
            key,
            known,
            None if known is not None else self.transform(photo.open(data, self.options.max_pixels)),
        )

    def _encode(self, photos: Sequence[Photo], prepared: Sequence[Any]) -> dict[Photo, Tensor]:
        """Encodings of one batch, held from now on as far as memory allows."""
        found = {photo: known for photo, (_, known, _) in zip(photos, prepared, strict=True) if known is not None}
        new = [(photo, key, x) for photo, (key, _, x) in zip(photos, prepared, strict=True) if x is not None]
        if new:
            pixels = torch.stack([x for _, _, x in new]).to(self.device)
            tokens_BSD = self._run(self.matcher.encode_image, pixels).cpu()
            for (photo, key, _), tokens in zip(new, tokens_BSD.unbind(), strict=True):
                found[photo] = tokens.clone()  # a view would keep the whole batch alive
                if self.cache:
                    self.cache.put(key, tokens)
        self._hold(found)
        return found

    def _hold(self, found: dict[Photo, Tensor]) -> None:
        """Keep these; let go of the oldest where they are too many."""
        self._images.update(found)
        self._bytes += sum(x.nbytes for x in found.values())
        while self._bytes > self.options.memory_gb * 2**30 and len(self._images) > len(found):
            self._bytes -= self._images.popitem(last=False)[1].nbytes

    def _open_cache(self, folder: Path) -> ImageCache:
        named = (
            self.matcher.fingerprint(),
            self.matcher.transform_name,
            self.options.dtype,
            self.device.type,
        )
        return ImageCache(folder, " ".join(named))

    @torch.inference_mode()
    def _run(self, method: Any, *arguments: Any) -> Any:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.dtype == "bf16"):
            return method(*arguments)


def as_scores(logits: Tensor) -> tuple[Tensor, bool]:
    """Of ITM logits (G, 2) the match probabilities (G,); similarities (G,) stay. And whether they are probabilities."""
    return (logits.softmax(-1)[:, 1], True) if logits.dim() == 2 else (logits, False)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch built without CUDA
        raise UserError(f"--device: {name!r}: {str(error).splitlines()[0]} (try cpu)") from error
    return device


def _photo(image: Picture) -> Photo:
    return image if isinstance(image, Photo) else Photo(image)


def _share(n: int) -> slice:
    """This process's block of n things."""
    return slice(rank() * n // world_size(), (rank() + 1) * n // world_size())


def distinct(values: Sequence[T]) -> tuple[list[T], Tensor]:
    """Distinct values, and for each of `values` its place among them."""
    place = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return list(place), torch.tensor([place[value] for value in values], dtype=torch.long)
