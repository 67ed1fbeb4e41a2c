"""Photos that look like those of a test set: the same picture, resized, re-encoded or slightly cropped.

The difference hash (dHash) of 8 x 8 bits: whether each pixel of a 9 x 8 grey thumbnail is darker than the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from relvlm import storage
from relvlm.data.pictures import open_image, to_rgb
from relvlm.data.sources.faults import LeftOut
from relvlm.data.sources.raw import MAX_PIXELS, RAW_FORMATS
from relvlm.errors import UserError

SIDE = 8
NEAR = 4  # bits of 64; unrelated photos differ in about 32
_PHOTOS = (".jpg", ".jpeg", ".png", ".webp")


def difference_hash(photo: bytes) -> int:
    """The 64 bits of an encoded photo; raises ValueError where it cannot be decoded."""
    image = open_image(photo, MAX_PIXELS, RAW_FORMATS)
    image.draft("L", (16 * SIDE, 16 * SIDE))  # of a JPEG, decode an eighth
    try:
        grey = to_rgb(image).convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"corrupt image: {error}") from error
    pixels = np.asarray(grey)
    return int.from_bytes(np.packbits(pixels[:, :-1] < pixels[:, 1:]).tobytes(), "big")


class Lookalikes:
    """The hashes of a test set's photos."""

    def __init__(self, hashes: Iterable[int], near: int = NEAR) -> None:
        self._hashes, self._near = np.array(sorted(set(hashes)), np.uint64), near

    @property
    def hashes(self) -> list[int]:
        """Each once, increasing."""
        found: list[int] = self._hashes.tolist()
        return found

    def refuse(self, photo: bytes) -> None:
        """Raise LeftOut for a photo that differs in at most `near` bits from one of the test set."""
        differing = np.bitwise_xor(self._hashes, np.uint64(difference_hash(photo)))
        bits = np.unpackbits(differing.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
        if bits.size and bits.min() <= self._near:
            raise LeftOut("looks like a photo of a test set (--unlike)")


def read_lookalikes(folders: Iterable[Path]) -> Lookalikes:
    """The photos in `folders` and below; raises UserError where there is none, or one cannot be read."""
    found: list[int] = []
    for folder in folders:
        paths = [path for path in storage.files_below(folder) if path.suffix.lower() in _PHOTOS]
        if not paths:
            raise UserError(f"{folder}: no photo in it (check --unlike: a folder of {', '.join(_PHOTOS)})")
        for path in paths:
            try:
                found.append(difference_hash(path.read_bytes()))
            except (OSError, ValueError) as error:
                raise UserError(f"{path}: {error} (check --unlike)") from error
    return Lookalikes(found)
