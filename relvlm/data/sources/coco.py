"""COCO: photographs with captions and with the boxes of 80 categories (captions_*.json, instances_*.json)."""

from __future__ import annotations

import argparse
import io
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from relvlm.data.arguments import positive
from relvlm.data.pictures import decode
from relvlm.data.shards.schema import Entity, Sample
from relvlm.data.shards.store import Encoded, check_free, write_shards
from relvlm.data.sources.raw import (
    PhotoFault,
    add_output_arguments,
    clip_box,
    load_json,
    progress,
    read_ids,
    report,
    sized_photo,
    tidy,
)
from relvlm.errors import UserError

JPEG_QUALITY = 95  # of a shrunk photo

EPILOG = """example:
  relvlm data build coco --captions annotations/captions_train2017.json \\
      --instances annotations/instances_train2017.json --images train2017 --out data/coco
  relvlm data relate data/coco data/coco_spatial     # spatial relations from the boxes
"""


def build(
    captions: Path,
    instances: Path,
    images: Path,
    out: Path,
    *,
    exclude: Collection[str] = (),
    shard_size: int = 1000,
    max_side: int | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Write the shard set `out`; returns its manifest and the photos left out, each with its reason.

    An image is taken if either file describes it, and shrunk to `max_side` pixels if it is longer. UserError for
    unreadable input or a taken `out`.
    """
    check_free(out)
    samples = parse(load_json(captions, dict), load_json(instances, dict))
    wanted = [(name, s) for name, s in samples if s.image_id not in exclude]
    skipped: list[str] = []
    arguments = {"captions": captions.name, "instances": instances.name, "excluded": len(exclude)}
    manifest = write_shards(
        out,
        _encoded(wanted, images, skipped, max_side),
        source="coco",
        builder_args={**arguments, "shard_size": shard_size, "max_side": max_side},
        shard_size=shard_size,
        skipped=skipped,
    )
    return manifest, skipped


def parse(captions: dict[str, Any], instances: dict[str, Any]) -> list[tuple[str, Sample]]:
    """(file name, sample) of each image in either file, by image id; crowds and degenerate boxes are left out.

    Raises UserError naming the field that is missing.
    """
    try:
        photos = {image["id"]: image for image in (*captions["images"], *instances["images"])}
        category = {c["id"]: tidy(c["name"]) for c in instances["categories"]}
        texts, boxes = _by_image(captions), _by_image(instances)
        return [(photos[i]["file_name"], _sample(photos[i], texts[i], boxes[i], category)) for i in sorted(photos)]
    except KeyError as error:
        raise UserError(f"COCO annotation: {error} is missing (is this a captions and an instances file?)") from error


def _by_image(annotation: dict[str, Any]) -> defaultdict[int, list[dict[str, Any]]]:
    grouped: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in sorted(annotation["annotations"], key=lambda r: r["id"]):
        grouped[record["image_id"]].append(record)
    return grouped


def _sample(
    photo: dict[str, Any], texts: list[dict[str, Any]], boxes: list[dict[str, Any]], category: dict[int, str]
) -> Sample:
    width, height = photo["width"], photo["height"]
    entities = (
        Entity(str(b["id"]), category[b["category_id"]], box)
        for b in boxes
        if not b.get("iscrowd") and (box := clip_box(b["bbox"], width, height))
    )
    captions = tuple(text for t in texts if (text := " ".join(t["caption"].split())))
    return Sample(str(photo["id"]), width, height, "coco", captions, tuple(entities))


def shrink(photo: bytes, sample: Sample, max_side: int) -> tuple[bytes, Sample]:
    """Photo and boxes scaled until the longer side is `max_side` pixels; both as they are if it is no longer.

    A box that gets thinner than a pixel is left out. Raises ValueError if the photo cannot be decoded.
    """
    if max(sample.width, sample.height) <= max_side:
        return photo, sample
    scale = max_side / max(sample.width, sample.height)
    width, height = (max(1, round(side * scale)) for side in (sample.width, sample.height))
    small = io.BytesIO()
    pixels = decode(photo, sample.width * sample.height)
    pixels.resize((width, height), Image.Resampling.BICUBIC).save(small, "JPEG", quality=JPEG_QUALITY)
    entities = (_scaled(e, width / sample.width, height / sample.height, width, height) for e in sample.entities)
    kept = tuple(e for e in entities if e)
    return small.getvalue(), replace(sample, width=width, height=height, entities=kept)


def _scaled(entity: Entity, sx: float, sy: float, width: int, height: int) -> Entity | None:
    x0, y0, x1, y1 = entity.box
    box = clip_box((x0 * sx, y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy), width, height)
    return replace(entity, box=box) if box else None


def _encoded(
    samples: list[tuple[str, Sample]], images: Path, skipped: list[str], max_side: int | None
) -> Iterator[Encoded]:
    for name, sample in progress(samples, "coco"):
        try:
            yield sample.image_id.zfill(12), *_fitted(images, name, sample, max_side)
        except PhotoFault as fault:
            skipped.append(str(fault))
    if samples and len(skipped) == len(samples):
        raise UserError(
            f"{images}: none of the {len(samples)} photos can be used, first: {skipped[0]} (check --images)"
        )


def _fitted(images: Path, name: str, sample: Sample, max_side: int | None) -> tuple[bytes, Sample]:
    photo = sized_photo([images], name, sample.width, sample.height)
    if max_side is None:
        return photo, sample
    try:
        return shrink(photo, sample, max_side)
    except ValueError as error:
        raise PhotoFault(f"{name}: {error}") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build coco`."""
    parser.description = "Build a shard set of COCO photographs with their captions and boxes."
    parser.epilog = EPILOG
    parser.add_argument("--captions", type=Path, required=True, metavar="FILE", help="captions_*.json")
    parser.add_argument("--instances", type=Path, required=True, metavar="FILE", help="instances_*.json")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the photographs")
    parser.add_argument(
        "--max-side",
        type=positive,
        metavar="N",
        help="shrink photos whose longer side exceeds N pixels, boxes with them: small shards, quick decoding",
    )
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    manifest, skipped = build(
        args.captions,
        args.instances,
        args.images,
        args.out,
        exclude=read_ids(args.exclude),
        shard_size=args.shard_size,
        max_side=args.max_side,
    )
    report(args.out, manifest, skipped)
    return 0
