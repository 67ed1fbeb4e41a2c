"""What the raw datasets have in common: JSON files, photographs, boxes, free text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from relvlm.data.pictures import open_image
from relvlm.data.shards.schema import Box
from relvlm.data.sources.faults import LeftOut, RecordFault, shown
from relvlm.data.sources.fields import as_number, unique_keys
from relvlm.errors import UserError

MIN_SIDE = 1.0  # pixels; what is thinner after clipping is no box
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


def read_photo(folders: Sequence[Path], name: str) -> tuple[bytes, int, int]:
    """(encoded bytes, width, height) of the one `folder/name` there is; raises PhotoFault."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise PhotoFault(name, "leaves the photo folder")
    try:
        found = list(dict.fromkeys(f.read_bytes() for folder in folders if (f := folder / name).is_file()))
    except OSError as error:
        raise PhotoFault(name, "cannot be read", error.strerror or str(error)) from error
    if not found:
        raise NoPhoto(name, "no such photo")
    if len(found) > 1:
        raise PhotoFault(name, "is another photo in each folder", ", ".join(map(str, folders)))
    try:
        return found[0], *open_image(found[0], MAX_PIXELS).size
    except ValueError as error:
        raise PhotoFault(name, "not a readable JPEG or PNG", str(error)) from error


def sized_photo(folders: Sequence[Path], name: str, width: int, height: int) -> bytes:
    """Encoded bytes of a photo that has the size its annotation was drawn on; raises PhotoFault."""
    data, *size = read_photo(folders, name)
    check_size(name, (size[0], size[1]), (width, height))
    return data


def check_size(name: str, size: tuple[int, int], annotated: tuple[int, int]) -> None:
    """Raise PhotoFault where a photo has another size (width, height) than its annotation says."""
    if size != annotated:
        raise PhotoFault(
            name, "another size", f"is {size[0]}x{size[1]}, its annotation is for {annotated[0]}x{annotated[1]}"
        )


def read_xywh(values: Iterable[Any], names: Sequence[str]) -> tuple[float, float, float, float]:
    """(left, top, width, height), `names` being those of the fields; raises RecordFault."""
    x, y, width, height = (as_number(value, name) for value, name in zip(values, names, strict=True))
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
