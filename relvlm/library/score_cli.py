"""`relvlm score IMAGES TEXTS`: a matrix of match probabilities, as CSV or JSON."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from relvlm import storage
from relvlm.data.arguments import positive
from relvlm.errors import UserError
from relvlm.evals.files import write_atomic
from relvlm.library.photo_files import photos_of, texts_of
from relvlm.library.score import matrix, whole_text_scorer
from relvlm.pretrained import load

EPILOG = """examples:
  relvlm score photos/ texts.txt --checkpoint runs/demo --out scores.csv
  relvlm score a.jpg b.jpg texts.txt --checkpoint runs/demo --out scores.json
  echo "a man on a horse" | relvlm score photos.txt - --checkpoint runs/demo
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `relvlm score`."""
    parser.description = (
        "The probability that each text is true of each photo: a row a photo, a column a text. Photos and texts are "
        "encoded once, pairs fused in packed batches."
    )
    parser.epilog = EPILOG
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGES", help="folders, photos, or files that list photos"
    )
    parser.add_argument("texts", metavar="TEXTS", help="a file, one text a line; - for standard input")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint folder, or a run (its latest)")
    parser.add_argument("--out", type=Path, help="scores.csv or scores.json (default: CSV, printed)")
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where and how it is computed."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--batch-size", type=positive, default=32, help="images at once")


def main(args: argparse.Namespace) -> None:
    """Write or print the matrix; raises UserError for what the user can mend."""
    if args.out is not None:
        if args.out.suffix not in (".csv", ".json"):
            raise UserError(f"--out: {args.out}: neither .csv nor .json (name it so)")
        storage.check_folder(args.out.parent, "--out")
    photos, texts = photos_of(args.images), texts_of(args.texts)
    scorer = whole_text_scorer(load(args.checkpoint), args.device, args.dtype, args.batch_size)
    found = matrix(scorer, photos, texts).tolist()
    text = (as_json if args.out and args.out.suffix == ".json" else as_csv)(photos, texts, found)
    if args.out is None:
        print(text)
        return
    with storage.writing(args.out, "--out"):
        write_atomic(args.out, [text])
    print(f"{args.out}: {len(photos)} photos, {len(texts)} texts")


def as_csv(photos: Sequence[Path], texts: Sequence[str], found: Sequence[Sequence[float]]) -> str:
    """A header with the texts, then a line a photo; probabilities to 6 digits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["image", *texts])
    writer.writerows([photo, *(f"{x:.6g}" for x in row)] for photo, row in zip(photos, found, strict=True))
    return buffer.getvalue().rstrip("\n")


def as_json(photos: Sequence[Path], texts: Sequence[str], found: Sequence[Sequence[float]]) -> str:
    """One object: `images`, `texts`, and `scores` by image and text."""
    rows = {"score": "match probability", "images": [str(photo) for photo in photos], "texts": list(texts)}
    return json.dumps({**rows, "scores": found}, ensure_ascii=False, indent=1)
