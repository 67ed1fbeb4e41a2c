"""A picture to score, a whole photo or a crop of one, and the cache of its encoding on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from relvlm.data.pictures import decode
from relvlm.errors import UserError

CropBox = tuple[int, int, int, int]


@dataclass(frozen=True)
class Photo:
    """An image file; `box` (x0, y0, x1, y1) in its pixels is cut out first (ARO scores crops)."""

    path: Path
    box: CropBox | None = None

    def read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror} (replace the image)") from error

    def open(self, data: bytes, max_pixels: int) -> Image.Image:
        """RGB pixels of `data`; raises UserError naming the file where they cannot be decoded."""
        try:
            image = decode(data, max_pixels)
        except ValueError as error:
            raise UserError(f"{self.path}: {error} (replace the image, or leave its rows out)") from error
        return image.crop(self.box) if self.box else image

    def key(self, data: bytes) -> str:
        """Names its content, whatever the file is called."""
        return hashlib.sha256(data + repr(self.box).encode()).hexdigest()


class ImageCache:
    """Encodings on disk, one file each, by content; those of other weights or another `context` lie apart."""

    def __init__(self, folder: Path, context: str) -> None:
        self.folder = folder / hashlib.sha256(context.encode()).hexdigest()[:16]
        self.hits = 0

    def get(self, key: str) -> Tensor | None:
        """None where there is none, or a damaged one."""
        try:
            tokens = load_file(self._path(key))["tokens"]
        except (OSError, SafetensorError, KeyError):
            return None
        self.hits += 1
        return tokens

    def put(self, key: str, tokens: Tensor) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{uuid4().hex}")  # other nodes may write the same one
        save_file({"tokens": tokens.contiguous()}, temporary)
        temporary.replace(path)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"
