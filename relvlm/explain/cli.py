"""`relvlm explain PHOTO TEXT`: a page of where the model looks; `--pointing SHARDS`: how well its heat points."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from PIL import Image

from relvlm import storage
from relvlm.config.schema import DataConfig
from relvlm.data.arguments import positive
from relvlm.data.pictures import decode
from relvlm.data.shards.store import ShardSet
from relvlm.data.tools.inspect import report_damaged
from relvlm.errors import UserError
from relvlm.explain.explanation import explain
from relvlm.explain.page import page
from relvlm.explain.pointing import as_row, figures, pointings
from relvlm.explain.predictions import UnitBox
from relvlm.explain.query import read_query
from relvlm.pretrained import load

EPILOG = """examples:
  relvlm explain photo.jpg "man; riding; horse" --checkpoint runs/demo --out page.html
  relvlm explain photo.jpg "a man rides a horse" --checkpoint runs/demo
  relvlm explain a.jpg "man; on; horse" --checkpoint runs/demo --subject-box 40,10,200,220 --object-box 9,90,300,310
  relvlm explain --pointing data/coco --checkpoint runs/demo --out pointing.jsonl
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `relvlm explain`."""
    parser.description = (
        "One self-contained HTML page on a photo and a text: match probability, heat of each word and of subject and "
        "object, predicted boxes, relations by MRC beside the caption's, and all of it with the two swapped. With "
        "--pointing: the share of heat in the annotated boxes of a shard set, and its hit rate, as one JSON object."
    )
    parser.epilog = EPILOG
    parser.add_argument("photo", nargs="?", type=Path, metavar="PHOTO", help="JPEG or PNG")
    parser.add_argument("text", nargs="?", metavar="TEXT", help="'subject; relation; object', or a caption")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint folder, or a run (its latest)")
    parser.add_argument("--out", type=Path, help="page.html (the default); of --pointing: pointing.jsonl")
    for role in ("subject", "object"):
        parser.add_argument(f"--{role}-box", metavar="X0,Y0,X1,Y1", help="in pixels of the photo, instead of predicted")
    parser.add_argument("--pointing", type=Path, metavar="SHARDS", help="a shard set with boxes")
    parser.add_argument("--limit", type=positive, default=0, metavar="N", help="of --pointing: the first N photos")


def main(args: argparse.Namespace) -> None:
    """Write the page, or the lines; raises UserError for what the user can mend."""
    if (args.pointing is None) == (args.photo is None):
        raise UserError("relvlm explain: give a PHOTO and a TEXT, or --pointing SHARDS (see --help)")
    if args.pointing is None and args.limit:
        raise UserError("--limit: of --pointing alone (leave it out)")
    if args.pointing is not None and (args.subject_box or args.object_box):
        raise UserError("--subject-box, --object-box: of a PHOTO alone (leave them out)")
    if args.pointing is not None:
        _point(args)
        return
    if args.text is None:
        raise UserError("relvlm explain: TEXT: missing (give 'subject; relation; object', or a caption)")
    out, query, photo = _out(args.out, "page.html"), read_query(args.text), open_photo(args.photo)
    given = [_given(args, role, photo) for role in ("subject", "object")]
    if query.triplet is None and any(given):
        raise UserError("--subject-box, --object-box: of a triplet alone (give 'subject; relation; object')")
    found = explain(load(args.checkpoint), photo, query, given)
    _write(out, page(query.text, [found], f"{args.photo}, by {args.checkpoint}"))
    print(out)


def open_photo(path: Path) -> Image.Image:
    """RGB; UserError naming the file where it is absent or cannot be decoded."""
    try:
        return decode(path.read_bytes(), DataConfig.max_pixels)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror} (give a JPEG or PNG)") from error
    except ValueError as error:
        raise UserError(f"{path}: {error} (give a JPEG or PNG)") from error


def _point(args: argparse.Namespace) -> None:
    out, shards = _out(args.out, "pointing.jsonl"), ShardSet(args.pointing)
    faults: list[str] = []
    found = list(pointings(load(args.checkpoint), shards, args.limit, faults))
    report_damaged(faults)
    if not found:
        raise UserError(f"--pointing: {args.pointing}: no photo with a labelled box (give a set that has entities)")
    _write(out, "".join(json.dumps(as_row(each), ensure_ascii=False) + "\n" for each in found))
    photos = len({each.image_id for each in found})
    print(json.dumps({"photos": photos, "damaged": len(faults), **figures(found)}, indent=1))
    print(out, file=sys.stderr)


def _given(args: argparse.Namespace, role: str, photo: Image.Image) -> UnitBox | None:
    """The box of an argument, in [0, 1]; UserError for one that is not in the photo."""
    text, flag = getattr(args, f"{role}_box"), f"--{role}-box"
    if text is None:
        return None
    try:
        x0, y0, x1, y1 = map(float, text.split(","))
    except ValueError as error:
        raise UserError(f"{flag}: {text!r}: not four numbers (give x0,y0,x1,y1 in pixels)") from error
    if not (0 <= x0 < x1 <= photo.width and 0 <= y0 < y1 <= photo.height):
        raise UserError(f"{flag}: {text}: empty, or not inside of the {photo.width}x{photo.height} pixels of the photo")
    return (x0 / photo.width, y0 / photo.height, x1 / photo.width, y1 / photo.height)


def _out(given: Path | None, default: str) -> Path:
    """Where to write; UserError before any work where that has another suffix or cannot be written."""
    out = given or Path(default)
    if out.suffix != Path(default).suffix:
        raise UserError(f"--out: {out}: not {Path(default).suffix} (name it so)")
    storage.check_folder(out.parent, "--out")
    return out


def _write(out: Path, text: str) -> None:
    with storage.writing(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        storage.write_whole(out, text)
