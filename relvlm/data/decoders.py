"""Encoded images to arrays of pixels: JPEGs by simplejpeg where it is installed, all else by Pillow.

Both are libjpeg-turbo with the same settings, and give the same pixels (tests/data/test_decoders.py).
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from relvlm.data.pictures import check_pixels, load_pixels, open_image

SHRINKS = (8, 4, 2, 1)  # by which libjpeg decodes at no cost


class Picture(Protocol):
    """An image whose header has been read."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as stored."""

    def pixels(self, shrink: int = 1) -> np.ndarray:
        """(H, W, 3) uint8, a JPEG's sides divided by 8, 4 or 2 (rounded up) where `shrink` is as much.

        Raises ValueError where the image is corrupt or cut short. Once only.
        """


class PillowPicture(NamedTuple):
    """Any image that Pillow reads; `size` is told before `draft` makes the image itself say another."""

    image: Image.Image
    size: tuple[int, int]

    def pixels(self, shrink: int = 1) -> np.ndarray:
        width, height = self.size
        by = _step(shrink)
        self.image.draft("RGB", (max(1, width // by), max(1, height // by)))
        return np.array(load_pixels(self.image))


class JpegPicture(NamedTuple):
    """A grey or YCbCr JPEG; what simplejpeg thinks damaged is for Pillow to judge, which reads more of it."""

    data: bytes
    max_pixels: int
    size: tuple[int, int]

    def pixels(self, shrink: int = 1) -> np.ndarray:
        import simplejpeg

        by = _step(shrink)
        width, height = (-(-side // by) for side in self.size)
        try:
            found: np.ndarray = simplejpeg.decode_jpeg(self.data, "RGB", min_height=height, min_width=width)
        except ValueError:
            return open_by_pillow(self.data, self.max_pixels).pixels(shrink)
        return found


def open_picture(data: bytes, max_pixels: int) -> Picture:
    """An image whose header has been read and whose pixels have not; raises ValueError."""
    if has_simplejpeg() and data.startswith(b"\xff\xd8\xff"):
        import simplejpeg

        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            colours = ""
        if colours in ("YCbCr", "Gray"):
            check_pixels(width, height, max_pixels)
            return JpegPicture(data, max_pixels, (width, height))
    return open_by_pillow(data, max_pixels)


def open_by_pillow(data: bytes, max_pixels: int) -> PillowPicture:
    """The same without simplejpeg."""
    image = open_image(data, max_pixels)
    return PillowPicture(image, image.size)


@cache
def has_simplejpeg() -> bool:
    """Whether JPEGs are decoded by simplejpeg (pip install 'relvlm[fast]')."""
    return find_spec("simplejpeg") is not None


def remarks() -> list[str]:
    """What a run should say of it."""
    if has_simplejpeg():
        return []
    return ["JPEGs are decoded by Pillow; simplejpeg gives the same pixels sooner (pip install 'relvlm[fast]')"]


def _step(shrink: int) -> int:
    return next(step for step in SHRINKS if step <= max(1, shrink))
