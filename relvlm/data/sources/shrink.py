"""Photos made smaller, and their boxes with them."""

from __future__ import annotations

import io
from dataclasses import replace

from PIL import Image

from relvlm.data.pictures import load_pixels, open_image
from relvlm.data.shards.schema import Entity, Sample
from relvlm.data.sources.raw import RAW_FORMATS, clip_box

JPEG_QUALITY = 95  # of a shrunk photo


def shrink(photo: bytes, sample: Sample, max_side: int | None) -> tuple[bytes, Sample]:
    """Photo and boxes scaled until the longer side is `max_side` pixels; both as they are if it is no longer.

    A WebP becomes a JPEG, whatever its size. A box that gets thinner than a pixel is left out. Raises ValueError if
    the photo cannot be decoded.
    """
    scale = 1.0 if max_side is None else min(1.0, max_side / max(sample.width, sample.height))
    if scale == 1 and not is_webp(photo):
        return photo, sample
    width, height = (max(1, round(side * scale)) for side in (sample.width, sample.height))
    small = io.BytesIO()
    pixels = load_pixels(open_image(photo, sample.width * sample.height, RAW_FORMATS))
    pixels.resize((width, height), Image.Resampling.BICUBIC).save(small, "JPEG", quality=JPEG_QUALITY)
    if scale == 1:
        return small.getvalue(), sample
    entities = (_scaled(e, width / sample.width, height / sample.height, width, height) for e in sample.entities)
    kept = tuple(e for e in entities if e)
    ids = {e.id for e in kept}
    relations = tuple(r for r in sample.relations if r.subject in ids and r.object in ids)
    return small.getvalue(), replace(sample, width=width, height=height, entities=kept, relations=relations)


def is_webp(photo: bytes) -> bool:
    """Whether the first bytes are those of a WebP."""
    return photo[:4] == b"RIFF" and photo[8:12] == b"WEBP"


def _scaled(entity: Entity, sx: float, sy: float, width: int, height: int) -> Entity | None:
    x0, y0, x1, y1 = entity.box
    box = clip_box((x0 * sx, y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy), width, height)
    return replace(entity, box=box) if box else None
