"""Webdataset tars (img2dataset's, or any): `KEY.jpg` with `KEY.txt`, or with the `caption` of `KEY.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from relvlm.data.json_keys import unique_keys
from relvlm.data.shards.index import Span
from relvlm.data.shards.members import PositionedFile
from relvlm.data.shards.schema import Sample
from relvlm.data.shards.tar_walk import Member, headers
from relvlm.data.sources.faults import Faults, LeftOut, RecordFault
from relvlm.data.sources.fields import as_text, mapping
from relvlm.data.sources.item import Item, Size, SlicePhoto
from relvlm.data.sources.meter import Meter
from relvlm.errors import UserError

IMAGES = ("jpg", "jpeg", "png", "webp")
LARGEST_TEXT = 1 << 20  # bytes of a caption's file


@dataclass
class Members:
    """The members of one key: where its photo and its texts lie."""

    key: str
    photo: SlicePhoto | None = None
    texts: dict[str, Span] = field(default_factory=dict)


@dataclass(frozen=True)
class WebTars:
    """Every photo with a caption in the tars, in their order."""

    name: str
    tars: tuple[Path, ...]
    image_id: Callable[[str, str], str]  # of the photo's address ("" where none is told) and its name
    by_address: bool = False  # whether `image_id` looks at the address
    hint: str = "is every member KEY.jpg cut short?"

    def files(self) -> Sequence[Path]:
        return self.tars

    def arguments(self) -> dict[str, Any]:
        return {"tars": len(self.tars), "first": self.tars[0].name, "last": self.tars[-1].name}

    def places(self) -> str:
        return f"{len(self.tars)} tars"

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        meter.total = sum(tar.stat().st_size for tar in self.tars)
        for tar in self.tars:
            found = ((members.key, (tar, members)) for members in grouped(tar))
            yield from faults.sound("image", found, self._item, tar.name)
            meter.done += tar.stat().st_size

    def _item(self, found: tuple[Path, Members]) -> Item:
        tar, members = found
        if members.photo is None:
            raise RecordFault("no photo", f"its members are {', '.join(sorted(members.texts))}")
        url = caption_and_url(read_texts(tar, members.texts))[1] if self.by_address else ""
        key = f"{tar.stem}-{members.key}"
        return Item(self.image_id(url, f"{key}.jpg"), key, members.photo, (tar, members.texts))

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        caption, _ = caption_and_url(read_texts(*item.record))
        return Sample(item.image_id, *size, self.name, (caption,))


def grouped(tar: Path) -> Iterator[Members]:
    """The neighbouring members of each key; a photo that the tar's end cuts off is a fault."""
    total = tar.stat().st_size
    current: Members | None = None
    try:
        for member in headers(tar):
            key, suffix = _split(member)
            if current is None or key != current.key:
                if current is not None:
                    yield current
                current = Members(key)
            if member.offset_data + member.size > total:
                continue  # then the key has no photo, or no caption
            if suffix in IMAGES:
                current.photo = SlicePhoto(member.name, tar, member.offset_data, member.size)
            elif suffix in ("txt", "json") and member.size <= LARGEST_TEXT:
                current.texts[suffix] = (member.offset_data, member.size)
    except OSError as error:
        raise UserError(f"{tar}: cannot be read: {error.strerror or error} (download it again)") from error
    if current is not None:
        yield current


def _split(member: Member) -> tuple[str, str]:
    """(key, suffix) of a member's name: a webdataset's key ends at the first dot of the last part."""
    folder, slash, base = member.name.removeprefix("./").rpartition("/")
    key, _, suffix = base.partition(".")
    return folder + slash + key, suffix.lower()


@lru_cache(maxsize=2)
def _opened(tar: Path) -> PositionedFile:
    return PositionedFile(tar)


def read_texts(tar: Path, places: Mapping[str, Span]) -> dict[str, bytes]:
    """The texts of a key; raises RecordFault."""
    try:
        return {suffix: _opened(tar).read(*place) for suffix, place in places.items()}
    except OSError as error:
        raise RecordFault("its texts cannot be read", str(error)) from error


def caption_and_url(texts: Mapping[str, bytes]) -> tuple[str, str]:
    """The caption with single spaces, and the photo's address where it is told; raises RecordFault."""
    described: dict[str, Any] = {}
    if "json" in texts:
        try:
            described = mapping(json.loads(texts["json"], object_pairs_hook=unique_keys))
        except (ValueError, RecursionError) as error:
            raise RecordFault("json: not valid", str(error)) from error
    try:
        told = texts["txt"].decode() if "txt" in texts else described.get("caption")
    except UnicodeDecodeError as error:
        raise RecordFault("txt: not UTF-8", str(error)) from error
    if told is None:
        raise RecordFault("caption: missing", "neither KEY.txt nor a caption in KEY.json")
    caption = " ".join(as_text(told, "caption").split())
    if not caption:
        raise LeftOut("caption: empty")
    url = described.get("url")
    return caption, url if type(url) is str and url.isprintable() else ""


def tars_in(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The tars that `paths` are, or that lie in them; raises UserError where a path has none."""
    found: list[Path] = []
    for path in paths:
        tars = [path] if path.is_file() else sorted(path.glob("*.tar"))
        if not tars:
            raise UserError(f"{path}: no tar (check --tars)")
        found += tars
    (name, times), *_ = Counter(tar.name for tar in found).most_common(1)
    if times > 1:
        raise UserError(f"--tars: {name} is there twice (rename one: names keep their keys apart)")
    return tuple(found)
