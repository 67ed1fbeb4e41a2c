"""What the tools have in common that look at a shard set: sound samples, pictures, the naming of damaged ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from PIL import Image

from relvlm.config.schema import DataConfig
from relvlm.data.pictures import decode
from relvlm.data.shards.schema import Sample
from relvlm.data.shards.store import DataFault, Record, ShardSet

LISTED = 5  # damaged samples that a command names


def sound_samples(shards: ShardSet, damaged: list[str]) -> Iterator[Sample]:
    """The annotation of every sample that can be read; the others' faults are appended to `damaged`."""
    from tqdm import tqdm  # of the extra `train`, which who only looks at pictures has no need of

    for index in tqdm(range(len(shards)), desc=str(shards.path), unit="image", disable=None):
        try:
            sample = shards.read(index).sample
        except DataFault as fault:
            damaged.append(str(fault))
            continue
        yield sample


def picture(record: Record, max_pixels: int = DataConfig.max_pixels) -> Image.Image:
    """The image as RGB; raises DataFault where a training would count it as corrupt, or of another size."""
    try:
        image = decode(record.image, max_pixels)
    except ValueError as error:
        raise DataFault(record.shard, record.key, str(error)) from error
    width, height = record.sample.width, record.sample.height
    if image.size != (width, height):
        said = f"image is {image.width}x{image.height}, its JSON says {width}x{height}"
        raise DataFault(record.shard, record.key, said)
    return image


def report_damaged(damaged: Sequence[str]) -> None:
    """Name the first damaged samples on standard error, and say how many there are."""
    for fault in damaged[:LISTED]:
        print(f"damaged: {fault}", file=sys.stderr)
    if len(damaged) > LISTED:
        print(f"damaged: {len(damaged)} samples in all (relvlm data lint lists them)", file=sys.stderr)
