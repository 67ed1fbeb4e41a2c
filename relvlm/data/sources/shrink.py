"""Photos made smaller, and their boxes with them."""

from __future__ import annotations

import io
from dataclasses import replace

from PIL import Image

from relvlm.data.pictures import decode
from relvlm.data.shards.schema import Entity, Sample
from relvlm.data.sources.raw import clip_box

JPEG_QUALITY = 95  # of a shrunk photo


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
