"""What the raw datasets have in common: JSON files, photographs, boxes, free text, the builders' flags and report."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from PIL import Image
from tqdm import tqdm

from relvlm.data.arguments import positive
from relvlm.data.shards.schema import Box
from relvlm.data.shards.store import SKIPPED
from relvlm.errors import UserError

MIN_SIDE = 1.0  # pixels; what is thinner after clipping is no box
LISTED = 5  # skipped photographs that the report prints; the file lists all
T = TypeVar("T")


class PhotoFault(Exception):
    """A photograph that cannot be used; the message says which and why."""


def load_json(path: Path, kind: type) -> Any:
    """The JSON file at `path`, whose top level must be a `kind` (list or dict); raises UserError."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror} (check the path)") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error} (download it again)") from error
    if not isinstance(content, kind):
        raise UserError(
            f"{path}: top level is a {type(content).__name__}, expected a {kind.__name__} (is it another file?)"
        )
    return content


def read_photo(folders: Sequence[Path], name: str) -> tuple[bytes, int, int]:
    """(encoded bytes, width, height) of the first `folder/name` there is; raises PhotoFault."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise PhotoFault(f"{name}: leaves the photo folder")
    file = next((f for folder in folders if (f := folder / name).is_file()), None)
    if file is None:
        raise PhotoFault(f"{name}: no such photo")
    data = file.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as photo:
            return data, *photo.size
    except (OSError, Image.DecompressionBombError) as error:
        raise PhotoFault(f"{name}: not a readable JPEG or PNG: {error}") from error


def sized_photo(folders: Sequence[Path], name: str, width: int, height: int) -> bytes:
    """Encoded bytes of a photo that has the size its annotation was drawn on; raises PhotoFault."""
    data, *size = read_photo(folders, name)
    if size != [width, height]:
        raise PhotoFault(f"{name}: is {size[0]}x{size[1]}, its annotation is for {width}x{height}")
    return data


def clip_box(xywh: Sequence[float], width: int, height: int) -> Box | None:
    """`xywh` (left, top, width, height) as a box clipped to the image; None if less than a pixel is left."""
    x, y, w, h = (float(v) for v in xywh)
    x0, y0, x1, y1 = max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h)
    if not (x1 - x0 >= MIN_SIDE and y1 - y0 >= MIN_SIDE):  # also for NaN
        return None
    return round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2)


def tidy(text: str) -> str:
    """Lower case, single spaces."""
    return " ".join(str(text).lower().split())


def progress(items: Collection[T], what: str) -> Iterable[T]:
    """`items` with a bar on a terminal, silent elsewhere."""
    return tqdm(items, desc=what, unit="image", disable=None)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every builder has."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new folder for the shards and manifest.json"
    )
    parser.add_argument("--shard-size", type=positive, default=1000, metavar="N", help="samples per shard (1000)")
    parser.add_argument(
        "--exclude",
        type=Path,
        metavar="FILE",
        help="image ids to leave out, one a line (for example the images of a test set)",
    )


def read_ids(file: Path | None) -> frozenset[str]:
    """The lines of `file`, stripped; empty without a file; raises UserError if it cannot be read."""
    if file is None:
        return frozenset()
    try:
        return frozenset(file.read_text().split())
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror} (check --exclude)") from error


def report(out: Path, manifest: dict[str, Any], skipped: list[str]) -> None:
    """Say on standard output what was built, on standard error what was left out."""
    totals = manifest["totals"]
    counts = ", ".join(f"{totals[k]} {k}" for k in ("samples", "captions", "entities", "relations"))
    print(f"{out}: {counts} in {totals['shards']} shards")
    for line in skipped[:LISTED]:
        print(f"skipped {line}", file=sys.stderr)
    if skipped:
        print(f"skipped {len(skipped)} photos in all, listed in {out / SKIPPED}", file=sys.stderr)
