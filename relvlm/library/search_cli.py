"""`relvlm search FOLDER TEXT`: the photos that a text is true of, as lines and as a contact sheet."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from relvlm import storage
from relvlm.data.arguments import positive
from relvlm.errors import UserError
from relvlm.evals.files import write_atomic
from relvlm.library.index import Index
from relvlm.library.photo_files import photos_of
from relvlm.library.score import whole_text_scorer
from relvlm.library.score_cli import add_options
from relvlm.library.search import BEST, CANDIDATES, Found, search_photos
from relvlm.library.sheet import sheet
from relvlm.pretrained import load

EPILOG = """examples:
  relvlm search photos/ "a man on a horse" --checkpoint runs/demo --out sheet.html
  relvlm search photos/ "a dog under a table" --checkpoint runs/demo --index photos.npz --best 5
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `relvlm search`."""
    parser.description = (
        "The photos of a folder that a text is true of, the best first. Each photo is encoded once and its features "
        "are kept in --index by content; the nearest --candidates are re-scored by the matching head."
    )
    parser.epilog = EPILOG
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="photos are looked for below it")
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint folder, or a run (its latest)")
    parser.add_argument("--best", type=positive, default=BEST, metavar="N", help=f"to show ({BEST})")
    parser.add_argument(
        "--candidates", type=positive, default=CANDIDATES, metavar="K", help=f"to re-score ({CANDIDATES})"
    )
    parser.add_argument("--index", type=Path, help="features.npz to keep (default: beside --out, else not kept)")
    parser.add_argument("--out", type=Path, help="sheet.html: a contact sheet")
    add_options(parser)


def main(args: argparse.Namespace) -> None:
    """Print `match cosine path` of each hit, write the sheet; raises UserError for what the user can mend."""
    if args.best > args.candidates:
        raise UserError(f"--best: {args.best} of {args.candidates} candidates (give more --candidates)")
    index = _index(args)
    photos = photos_of([args.folder])
    scorer = whole_text_scorer(load(args.checkpoint), args.device, args.dtype, args.batch_size)
    found = search_photos(scorer, Index(scorer.model, index), photos, args.text, args.best, args.candidates)
    _report(found)
    for hit in found.hits:
        print(f"{hit.match:.4f} {hit.cosine:+.4f} {hit.path}")
    if args.out is not None:
        with storage.writing(args.out, "--out"):
            write_atomic(args.out, [sheet(args.text, found)])
        print(args.out, file=sys.stderr)


def _index(args: argparse.Namespace) -> Path | None:
    """UserError, before any work, for names of another kind and places that cannot be written."""
    for flag, path, suffix in (("--out", args.out, ".html"), ("--index", args.index, ".npz")):
        if path is not None:
            if path.suffix != suffix:
                raise UserError(f"{flag}: {path}: not {suffix} (name it so)")
            storage.check_folder(path.parent, flag)
    return args.index or (args.out.with_suffix(".npz") if args.out is not None else None)


def _report(found: Found) -> None:
    """Name the photos that were left out, the first few of them."""
    for path, fault in list(found.faults.items())[:5]:
        print(f"left out: {path}: {fault}", file=sys.stderr)
    if len(found.faults) > 5:
        print(f"left out: {len(found.faults)} photos in all", file=sys.stderr)
