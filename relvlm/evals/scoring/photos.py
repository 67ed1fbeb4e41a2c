"""A picture to score, a whole photo or a crop of one, and the cache of its encoding on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
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

    def fault(self, max_pixels: int) -> str | None:
        """What is wrong with the file, or with the box in it; None where it can be scored. It is decoded for this."""
        try:
            status = self.path.stat()
        except OSError as error:
            return str(error.strerror)
        size = _size_or_fault(self.path, status.st_mtime_ns, status.st_size, max_pixels)
        if isinstance(size, str):
            return size
        x0, y0, x1, y1 = self.box or (0, 0, *size)
        inside = x0 < x1 and y0 < y1 and x0 < size[0] and y0 < size[1] and x1 > 0 and y1 > 0
        return None if inside else f"the box {x0}, {y0}, {x1}, {y1} is outside of its {size[0]}x{size[1]} pixels"

    def key(self, data: bytes) -> str:
        """Names its content, whatever the file is called."""
        return hashlib.sha256(data + repr(self.box).encode()).hexdigest()


@lru_cache(maxsize=1 << 20)
def _size_or_fault(path: Path, changed: int, size: int, max_pixels: int) -> tuple[int, int] | str:
    """Width and height of an image that can be decoded; once for a file, however many checkpoints are scored."""
    try:
        return decode(path.read_bytes(), max_pixels).size
    except (OSError, ValueError) as error:
        return str(error)


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
