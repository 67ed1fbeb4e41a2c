"""Photos, heat maps and boxes as parts of a page: data addresses, and SVG in units of the photo."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image
from torch import Tensor

from relvlm.explain.predictions import UnitBox

ROOM = 0.09  # of the photo's height, that a label takes
LONGEST = 640  # pixels of the photo's longer side in a page
# Cold to hot; dark ones are nearly transparent, so that the photo shows through.
RAMP = np.array([(66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], dtype=np.float64)


@dataclass(frozen=True)
class DrawnBox:
    """`kind` is a class of the page's style: subject, object or caption; `given`: dashed, else the model's."""

    box: UnitBox
    kind: str
    label: str
    given: bool = False


def photo_address(photo: Image.Image, longest: int = LONGEST) -> str:
    """A data address of the photo, shrunk where it is larger than a page needs."""
    small = photo.copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return address(small, "PNG" if max(photo.size) <= 64 else "JPEG")


def heat_address(heat_N: Tensor, grid: tuple[int, int]) -> str:
    """A pixel a patch, for the browser to stretch over the photo; what speaks against a match is left blank."""
    values = heat_N.clamp(min=0).reshape(grid).double().numpy()
    values = values / max(values.max(), np.finfo(np.float64).tiny)
    places = np.linspace(0, 1, len(RAMP))
    colour = np.stack([np.interp(values, places, RAMP[:, channel]) for channel in range(3)], axis=-1)
    opacity = 255 * 0.9 * values
    return address(Image.fromarray(np.dstack([colour, opacity]).round().astype(np.uint8), "RGBA"), "PNG")


def address(image: Image.Image, form: str) -> str:
    """`data:image/...` of an image."""
    buffer = io.BytesIO()
    image.save(buffer, form, quality=85)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def view(boxes: Sequence[DrawnBox], heat: str = "", of: str = "p0") -> str:
    """The photo (whose address is that of the style's class `of`) under a heat map and boxes."""
    parts = [f'<img class=heat alt="" src="{heat}">'] if heat else []
    if boxes:
        shapes = "".join(_rectangle(box) for box in boxes)
        parts.append(f'<svg viewBox="0 0 1 1" preserveAspectRatio=none aria-hidden=true>{shapes}</svg>')
        parts += [_tag(box) for box in boxes if box.label]
    return f'<div class="view {of}{" hot" * bool(heat)}"><i></i>{"".join(parts)}</div>'


def _rectangle(box: DrawnBox) -> str:
    x0, y0, x1, y1 = box.box
    place = f'x="{x0:.4f}" y="{y0:.4f}" width="{x1 - x0:.4f}" height="{y1 - y0:.4f}"'
    return f'<rect class=edge {place} /><rect class="{box.kind}{" given" * box.given}" {place} />'


def _tag(box: DrawnBox) -> str:
    """The label, inside the photo: an object's below its box, others' above, or within where there is no room.

    So that two boxes at one place still show both.
    """
    x0, y0, x1, y1 = box.box
    side = f"left:{100 * x0:.2f}%" if x0 < 0.7 else f"right:{100 * (1 - x1):.2f}%"
    below = box.kind == "object"
    room = y1 <= 1 - ROOM if below else y0 >= ROOM
    place = f"top:{100 * (y1 if below else y0):.2f}%"
    shift = ";transform:translateY(-100%)" if below != room else ""
    return f'<span class="tag {box.kind}" style="{side};{place}{shift}">{escape(box.label)}</span>'
