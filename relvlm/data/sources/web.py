"""Captions of the web: a table of captions and addresses with a folder of what was downloaded, or webdataset tars.

What SBU, CC3M and CC12M share; the files `sbu.py`, `cc3m.py` and `cc12m.py` say how their tables look.
"""

from __future__ import annotations

import argparse
import hashlib
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any
from urllib.parse import urlsplit

from relvlm.data.shards.schema import Sample
from relvlm.data.sources.building import add_output_arguments, build_and_report
from relvlm.data.sources.faults import Faults, LeftOut, RecordFault, shown
from relvlm.data.sources.item import FilePhoto, Item, Size, Source
from relvlm.data.sources.lines import numbered_lines, split_row
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.webdataset import WebTars, tars_in
from relvlm.errors import UserError

NAME_FIELDS = {"row", "url_name", "md5"}
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """How a dataset's table looks: its columns (`caption` and `url`) and what photos are called."""

    source: str
    columns: tuple[str, ...]
    photo_name: str
    image_id: Callable[[str, str], str]  # of the address and the photo's name


def by_name(url: str, name: str) -> str:
    """The photo's name without its ending."""
    return posixpath.splitext(posixpath.basename(name))[0]  # pathlib takes five times as long, of every row


@dataclass(frozen=True)
class WebRows:
    """The rows of a table whose photo has been downloaded; most tables have many that are gone from the web."""

    layout: Layout
    table: Path
    images: Path
    photo_name: str
    hint: str = "check --images and --photo-name: {row}, {url_name} and {md5} say how the download named its files"

    @property
    def name(self) -> str:
        return self.layout.source

    def files(self) -> list[Path]:
        return [self.table]

    def arguments(self) -> dict[str, Any]:
        return {"table": self.table.name, "photo_name": self.photo_name}

    def places(self) -> str:
        return str(self.images)

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        lines = numbered_lines(self.table, meter, header="\t".join(self.layout.columns))
        yield from faults.sound("image", ((n, (n, line)) for n, line in lines), self._item, self.table.name)

    def _item(self, numbered: tuple[int, bytes]) -> Item:
        row, line = numbered
        fields = dict(zip(self.layout.columns, split_row(line, len(self.layout.columns)), strict=True))
        if not _ADDRESS.fullmatch(fields["url"].strip()):
            raise RecordFault("url: no address (are the columns in another order?)", shown(fields["url"]))
        return self.item(row, fields["url"].strip(), fields["caption"])

    def item(self, row: int, url: str, caption: str) -> Item:
        """The item of a table's row; raises LeftOut without a caption."""
        try:
            url_name = posixpath.basename(urlsplit(url).path.rstrip("/"))
        except ValueError as error:
            raise RecordFault("url: no address", shown(url)) from error
        md5 = hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
        name = self.photo_name.format(row=row, url_name=url_name, md5=md5)
        image = self.layout.image_id(url, name)
        return Item(image, f"{row:09d}", FilePhoto(name, (self.images,)), plain_caption(caption))

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        return Sample(item.image_id, *size, self.layout.source, (item.record,))


def plain_caption(text: str) -> str:
    """Single spaces; raises LeftOut where nothing is left."""
    caption = " ".join(text.split())
    if not caption:
        raise LeftOut("caption: empty")
    return caption


def add_web_arguments(parser: argparse.ArgumentParser, layout: Layout) -> None:
    """The flags of a table with photos, or of tars."""
    columns = ", ".join(layout.columns)
    parser.add_argument("--table", type=Path, metavar="FILE", help=f"tab-separated: {columns}; with --images")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the downloaded photos")
    parser.add_argument(
        "--photo-name",
        default=layout.photo_name,
        metavar="FORM",
        help="how they are named: {row} counts the table's rows from 0 ({row:09d} pads it), {url_name} is the last "
        f"part of the address, {{md5}} its hash; folders may stand before it ({layout.photo_name})",
    )
    parser.add_argument(
        "--tars",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="in their place, what img2dataset (output_format=webdataset) or the like made: tars, or folders of them",
    )
    add_output_arguments(parser)


def web_source(args: argparse.Namespace, layout: Layout) -> Source:
    """The source that the flags name; raises UserError."""
    if bool(args.tars) == bool(args.table):
        raise UserError("neither --table nor --tars, or both (give --table with --images, or --tars)")
    if args.tars:
        return WebTars(layout.source, tars_in(args.tars), layout.image_id, layout.image_id is not by_name)
    if args.images is None:
        raise UserError("--images: missing (the folder of the photos that --table names)")
    return WebRows(layout, args.table, args.images, photo_name(args.photo_name))


def build_web(args: argparse.Namespace, layout: Layout) -> int:
    """Run the command of `layout`; returns the exit status."""
    return build_and_report(web_source(args, layout), args)


def photo_name(form: str) -> str:
    """`form`, which must be one of NAME_FIELDS in any format; raises UserError."""
    try:
        fields = {field for _, field, _, _ in Formatter().parse(form) if field is not None}
        form.format(row=0, url_name="a.jpg", md5="0")
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise UserError(f"--photo-name {form!r}: {error} (known are {{row}}, {{url_name}}, {{md5}})") from error
    if not fields & NAME_FIELDS or not fields <= NAME_FIELDS:
        raise UserError(f"--photo-name {form!r}: names every photo alike (use {{row}}, {{url_name}} or {{md5}})")
    return form
