"""Which image a name means: 42, `000000000042`, `000000000042.jpg` and `val2014/COCO_val2014_000000000042.jpg` are one.

Numbers count within their dataset: Visual Genome's 42 is another image than COCO's. Where a name does not tell its
dataset, it is taken to be of the one it is compared with.
"""

from __future__ import annotations

import codecs
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from relvlm.errors import UserError

DATASETS = {  # by a sample's source
    "coco": "coco",
    "visual_genome": "visual_genome",
    "vg_regions": "visual_genome",
    "gqa": "visual_genome",
    "sbu": "flickr",
    "flickr30k": "flickr",
}
SHOWN = 5  # names that an error or a warning quotes
_SUFFIX = re.compile(r"\.(?:jpe?g|png|webp|bmp|gif|tiff?|npy|pt|json)$", re.IGNORECASE)
_COCO_NAME = re.compile(r"COCO_(?:train|val|test)\d{4}_(\d+)")
_FOLDERS = (
    (re.compile(r"(?:train|val|test|unlabeled)20\d\d"), "coco"),
    (re.compile(r"VG_100K(?:_2)?"), "visual_genome"),
    (re.compile(r"flickr30k[-_]images"), "flickr"),
)
_WHOLE_FLOAT = re.compile(r"\d+\.0+")  # an id that has been through a table of floats

_log = logging.getLogger(__name__)


class ImageId(NamedTuple):
    """`id` without padding; `dataset` is "" where the name does not tell; `is_file`: spelt as a file, not as an id."""

    id: str
    dataset: str
    is_file: bool


def image_id(name: str | int) -> ImageId:
    """The image that `name` (an id, a file's name, a path or URL) means."""
    folders, _, last = str(name).strip().replace("\\", "/").rpartition("/")
    stem = _SUFFIX.sub("", last)
    dataset = next((d for pattern, d in _FOLDERS for f in folders.split("/") if pattern.fullmatch(f)), "")
    coco = _COCO_NAME.fullmatch(stem)
    if coco:
        return ImageId(_unpadded(coco[1]), "coco", True)
    return ImageId(_unpadded(stem), dataset, bool(folders) or stem != last)


def _unpadded(text: str) -> str:
    return unpadded(text.partition(".")[0] if _WHOLE_FLOAT.fullmatch(text) else text)


def unpadded(text: str) -> str:
    """A number without leading zeros; any other text as it is."""
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text


class ImageList:
    """Images named by hand, such as those to exclude; remembers which entries meant an image that was asked for."""

    def __init__(self, names: Iterable[str | int], dataset: str = "") -> None:
        """`dataset` is that of the images asked for, "" where they are of several."""
        self.dataset = dataset
        self.names = tuple(dict.fromkeys(str(name) for name in names))
        self.images: set[str] = set()  # asked for and found
        self._hit: set[str] = set()
        self._entries: dict[str, list[tuple[str, ImageId]]] = {}
        for name in self.names:
            entry = image_id(name)
            self._entries.setdefault(entry.id, []).append((name, entry))

    def has(self, name: str | int, file: str | None = None) -> bool:
        """Whether an entry means the image `name`; `file` is its photo's name, where that is another than the id."""
        if not self._entries:
            return False
        by_id = image_id(name)
        by_file = by_id if file is None else image_id(file)
        wanted = {entry for entry in self._of(by_id) if file is None or not image_id(entry).is_file}
        wanted |= {entry for entry in self._of(by_file) if file is None or image_id(entry).is_file}
        if wanted:
            self._hit |= wanted
            self.images.add(str(name))
        return bool(wanted)

    def _of(self, asked: ImageId) -> Iterable[str]:
        dataset = asked.dataset or self.dataset
        for name, entry in self._entries.get(asked.id, ()):
            if not entry.dataset or not dataset or entry.dataset == dataset:
                yield name

    @property
    def missed(self) -> list[str]:
        """The entries that meant no image so far."""
        return [name for name in self.names if name not in self._hit]

    def counts(self) -> dict[str, int]:
        """Entries, images that they mean, and entries that mean none: for a manifest."""
        return {"entries": len(self.names), "images": len(self.images), "not_found": len(self.missed)}

    def warning(self, flag: str, among: str) -> str:
        """After the last image: what to say of the entries that mean none; "" if each means one."""
        missed = self.missed
        few = ", ".join(repr(name) for name in missed[:SHOWN])
        return (
            f"{flag}: {len(missed)} of {len(self.names)} entries name no image of {among}, such as {few}"
            if missed
            else ""
        )

    def check(self, flag: str, among: str) -> str:
        """`warning`; raises UserError where no entry means an image."""
        warning = self.warning(flag, among)
        if warning and not self.images:
            raise UserError(f"{warning} (one id or file name a line; leave {flag} out if none of them is meant)")
        return warning


def images_named(images: Iterable[str], names: Iterable[str | int], flag: str) -> list[str]:
    """Those of `images` that an entry of `names`, given by `flag`, means; entries that mean none are logged."""
    wanted = ImageList(names)
    found = [image for image in images if wanted.has(image)]
    warning = wanted.warning(flag, "the gallery")
    if warning:
        _log.warning("%s", warning)
    return found


def read_image_list(file: Path, flag: str) -> list[str]:
    """The names in `file`, one a line or a JSON list, whatever its byte order mark; raises UserError naming `flag`."""
    try:
        text = _decoded(file.read_bytes())
        names = _from_json(text) if text.lstrip().startswith("[") else [line.strip() for line in text.split("\n")]
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror} (check {flag})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: no list of image ids: {error} (check {flag}: one a line, or a JSON list)") from error
    names = [name for name in names if name]
    if not names:
        raise UserError(f"{file}: empty (check {flag}: one image id or file name a line)")
    return names


def _decoded(data: bytes) -> str:
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig")


def _from_json(text: str) -> list[str]:
    content: Any = json.loads(text)
    for place, name in enumerate(content):
        if not isinstance(name, str | int | float) or isinstance(name, bool):
            raise ValueError(f"[{place}]: {name!r} is no image id")
    return [str(name) for name in content]
