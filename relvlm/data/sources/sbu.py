"""SBU Captioned Photos: photos of Flickr; a table `caption, url`, or the release's two files of a line a photo."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from relvlm.data.sources.building import build_and_report
from relvlm.data.sources.faults import Faults
from relvlm.data.sources.item import Item
from relvlm.data.sources.lines import as_line, numbered_lines
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.web import Layout, WebRows, add_web_arguments, by_name, photo_name, web_source
from relvlm.errors import UserError

EPILOG = """examples:
  relvlm data build sbu --urls SBU_captioned_photo_dataset_urls.txt \\
      --captions SBU_captioned_photo_dataset_captions.txt --images sbu_images --out data/sbu
  relvlm data build sbu --tars sbu --max-side 256 --processes 16 --out data/sbu      # by img2dataset
"""
_PHOTO = re.compile(r"https?://[^/]*flickr\.com/(?:[^/]+/)+(\d+)_[0-9a-f]+(?:_\w)?\.jpg", re.IGNORECASE)


def flickr_id(url: str, name: str) -> str:
    """The photo's id at Flickr, which Flickr30K and COCO's `flickr_url` count by too; else its file's name."""
    match = _PHOTO.fullmatch(url)
    return match[1] if match else by_name(url, name)


SBU = Layout("sbu", ("caption", "url"), "{url_name}", flickr_id)


@dataclass(frozen=True)
class SbuFiles(WebRows):
    """The release's pair of files: line n of `table` is the address of what line n of `captions` says."""

    captions: Path = Path()

    def files(self) -> list[Path]:
        return [self.table, self.captions]

    def arguments(self) -> dict[str, Any]:
        return {"urls": self.table.name, "captions": self.captions.name, "photo_name": self.photo_name}

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        pairs = zip_longest(numbered_lines(self.table, meter), numbered_lines(self.captions, meter))
        numbered = ((pair[0], pair) for pair in self._alike(pairs))
        yield from faults.sound("image", numbered, self._pair, self.table.name)

    def _alike(self, pairs: Any) -> Iterator[tuple[int, bytes, bytes]]:
        for url, caption in pairs:
            if url is None or caption is None or url[0] != caption[0]:
                raise UserError(f"{self.table}, {self.captions}: not as many lines (download them again)")
            yield url[0], url[1], caption[1]

    def _pair(self, pair: tuple[int, bytes, bytes]) -> Item:
        row, url, caption = pair
        return self.item(row, as_line(url).strip(), as_line(caption))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build sbu`."""
    parser.description = "Build a shard set of SBU Captioned Photos."
    parser.epilog = EPILOG
    parser.add_argument("--urls", type=Path, metavar="FILE", help="an address a line; with --captions and --images")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="a caption a line")
    add_web_arguments(parser, SBU)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    if args.urls is None and args.captions is None:
        return build_and_report(web_source(args, SBU), args)
    if None in (args.urls, args.captions, args.images) or args.tars or args.table:
        raise UserError("--urls, --captions and --images go together, without --table and --tars")
    source = SbuFiles(SBU, args.urls, args.images, photo_name(args.photo_name), captions=args.captions)
    return build_and_report(source, args)
