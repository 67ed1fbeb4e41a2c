"""What the raw datasets have in common: JSON files, photographs, boxes, free text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from relvlm.data.json_keys import unique_keys
from relvlm.data.pictures import FORMATS, open_image
from relvlm.data.shards.schema import Box
from relvlm.data.sources.faults import LeftOut, RecordFault, shown
from relvlm.data.sources.fields import as_number
from relvlm.errors import UserError

MIN_SIDE = 1.0  # pixels; what is thinner after clipping is no box
RAW_FORMATS = (*FORMATS, "WEBP")  # WebP is stored as JPEG
MAX_PIXELS = 2**31  # a builder copies photos, however large; a training has a limit of its own


class PhotoFault(RecordFault):
    """A photograph that cannot be used; `name` is its file's."""

    def __init__(self, name: str, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name}: {super().__str__()}"


class NoPhoto(PhotoFault, LeftOut):
    """A photograph that is not there: who has a part of a dataset builds a part of it."""


def load_json(path: Path, kind: type) -> Any:
    """The JSON file at `path`, whose top level must be a `kind` (list or dict); raises UserError.

    Objects in which a key stands twice are RepeatedKeys; NaN and Infinity come as floats.
    """
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=unique_keys)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror} (check the path)") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error} (download it again)") from error
    if not isinstance(content, kind):
        raise UserError(
            f"{path}: top level is a {type(content).__name__}, expected a {kind.__name__} (is it another file?)"
        )
    return content


def photo_size(name: str, data: bytes) -> tuple[int, int]:
    """(width, height) of an encoded photo; raises PhotoFault where it is none of RAW_FORMATS."""
    try:
        return open_image(data, MAX_PIXELS, RAW_FORMATS).size
    except ValueError as error:
        raise PhotoFault(name, "not a readable JPEG, PNG or WebP", str(error)) from error


def check_size(name: str, size: tuple[int, int], annotated: tuple[int, int]) -> None:
    """Raise PhotoFault where a photo has another size (width, height) than its annotation says."""
    if size != annotated:
        raise PhotoFault(
            name, "another size", f"is {size[0]}x{size[1]}, its annotation is for {annotated[0]}x{annotated[1]}"
        )


def read_xywh(values: Iterable[Any], names: Sequence[str]) -> tuple[float, float, float, float]:
    """(left, top, width, height), `names` being those of the fields; raises RecordFault."""
    x, y, width, height = [as_number(value, name) for value, name in zip(values, names, strict=True)]
    if width < 0 or height < 0:
        raise RecordFault(f"{names[2]}, {names[3]}: negative", shown([x, y, width, height]))
    return x, y, width, height


def clip_box(xywh: Sequence[float], width: int, height: int) -> Box | None:
    """`xywh` (left, top, width, height) as a box clipped to the image; None if less than a pixel is left."""
    x, y, w, h = xywh
    x0, y0, x1, y1 = max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h)
    if not (x1 - x0 >= MIN_SIDE and y1 - y0 >= MIN_SIDE):
        return None
    return round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2)


def clipped(xywh: Sequence[float], width: int, height: int) -> Box:
    """`clip_box`; raises LeftOut where no box is left."""
    box = clip_box(xywh, width, height)
    if box is None:
        raise LeftOut("less than a pixel of its box is inside the image")
    return box


def tidy(text: str) -> str:
    """Lower case, single spaces."""
    return " ".join(text.lower().split())
