"""Drawing: background, things, and the marks that depict actions."""

from __future__ import annotations

import io
from math import hypot
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from relvlm.relworld.lexicon import BACKGROUNDS
from relvlm.relworld.scene import Background, Scene, Thing
from relvlm.relworld.shapes import tile

_FINE = 3  # marks are drawn at three times the size, then averaged
Vector = tuple[float, float]


def _background(background: Background, size: int) -> Image.Image:
    """A shade of its own for every seed, so that no two pictures are equal by chance."""
    rng = Random(background.seed)
    red, green, blue = (min(255, channel + rng.randint(-8, 8)) for channel in BACKGROUNDS[background.word])
    if background.pattern == "plain":
        return Image.new("RGB", (size, size), (red, green, blue))
    pixels = np.empty((size, size, 3), np.float32)
    pixels[:] = red, green, blue
    if background.pattern == "gradient":
        ramp = np.linspace(-22, 22, size, dtype=np.float32)
        pixels += (ramp[:, None] if rng.random() < 0.5 else ramp[None, :])[..., None] * rng.choice((-1, 1))
    else:
        noise = np.frombuffer(rng.randbytes(size * size), np.uint8).reshape(size, size, 1)
        pixels += (noise.astype(np.float32) - 128) * 0.14
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


class _Pen:
    """Draws marks from one thing to another in their own axes: `u` from subject to object, `v` across."""

    def __init__(self, draw: ImageDraw.ImageDraw, size: int, subject: Thing, obj: Thing) -> None:
        self.draw, self.size = draw, size
        self.subject, self.object = subject, obj
        (sx, sy), (ox, oy) = subject.centre, obj.centre
        length = hypot(ox - sx, oy - sy)
        self.u: Vector = ((ox - sx) / length, (oy - sy) / length)
        self.a, self.b = subject.side / 2, obj.side / 2
        self.width = max(1.5, size / 30)

    def at(self, thing: Thing, along: float, across: float = 0.0) -> Vector:
        """A point, in fine pixels, `along` and `across` (pixels) from the thing's centre."""
        x, y = thing.centre
        ux, uy = self.u
        return (x + ux * along - uy * across) * _FINE, (y + uy * along + ux * across) * _FINE

    def line(self, *points: Vector, width: float = 1.0) -> None:
        """A line through the points, `width` in units of the pen's width."""
        self.draw.line(points, fill=255, width=max(2, round(self.width * width * _FINE)), joint="curve")

    def trail(self, thing: Thing, sign: int) -> None:
        """Three motion lines on the far (-1) or near (+1) side of the thing, seen from the other."""
        half, reach = thing.side / 2, 0.1 * self.size
        for across in (-0.7, 0.0, 0.7):
            start = sign * (half + 1)
            length = reach if across == 0 else 0.75 * reach
            self.line(
                self.at(thing, start, across * half),
                self.at(thing, start + sign * length, across * half),
                width=0.8,
            )


def _pushing(pen: _Pen) -> None:
    reach = 0.55 * min(pen.a, pen.b)
    for across in (-reach, reach):
        pen.line(pen.at(pen.subject, 0.75 * pen.a, across), pen.at(pen.object, -pen.b - 0.5, across))
    plate = 0.9 * pen.b
    pen.line(pen.at(pen.object, -pen.b - 0.5, -plate), pen.at(pen.object, -pen.b - 0.5, plate), width=1.3)
    pen.trail(pen.subject, -1)


def _pulling(pen: _Pen) -> None:
    pen.line(pen.at(pen.subject, 0.8 * pen.a), pen.at(pen.object, 0))
    pen.line(pen.at(pen.object, 0, -pen.b - 0.5), pen.at(pen.object, 0, pen.b + 0.5), width=1.3)
    pen.trail(pen.object, 1)


def _holding(pen: _Pen) -> None:
    across = pen.b + pen.width * 0.6
    for sign in (-1, 1):
        pen.line(
            pen.at(pen.subject, 0.6 * pen.a, sign * 0.5 * pen.a),
            pen.at(pen.object, -pen.b - 1, sign * across),
            pen.at(pen.object, 0.7 * pen.b, sign * across),
            pen.at(pen.object, pen.b + 1, sign * 0.45 * pen.b),
        )


def _pointing(pen: _Pen) -> None:
    tip, head = -pen.b - 1.0, 0.085 * pen.size
    pen.line(pen.at(pen.subject, pen.a + 1), pen.at(pen.object, tip - head))
    corners = [pen.at(pen.object, tip), *(pen.at(pen.object, tip - head, s * 0.75 * head) for s in (-1, 1))]
    pen.draw.polygon(corners, fill=255)


def _chasing(pen: _Pen) -> None:
    pen.trail(pen.subject, -1)
    pen.trail(pen.object, -1)


def _toward(pen: _Pen) -> None:
    pen.trail(pen.subject, -1)


def _away(pen: _Pen) -> None:
    pen.trail(pen.subject, 1)


def _kicking(pen: _Pen) -> None:
    knee, foot = pen.at(pen.subject, pen.a + 0.02 * pen.size, 0.9 * pen.a), pen.at(pen.object, -pen.b - 1, 0)
    pen.line(pen.at(pen.subject, 0.3 * pen.a, 0.75 * pen.a), knee, foot, width=1.4)
    for along, across in ((-0.6, -1.5), (-1.0, -1.1), (-0.6, 1.5)):
        pen.line(
            pen.at(pen.object, along * 0.6 * pen.b - 0.4 * pen.b, across * 0.7 * pen.b),
            pen.at(pen.object, along * pen.b - 0.6 * pen.b, across * 1.1 * pen.b),
            width=0.8,
        )


_MARKS = {
    "pushing": _pushing,
    "pulling": _pulling,
    "holding": _holding,
    "pointing at": _pointing,
    "chasing": _chasing,
    "toward": _toward,
    "away from": _away,
    "kicking": _kicking,
}


def _eyes(image: Image.Image, pen: _Pen, sign: int) -> None:
    """Two eyes on the side that looks (sign 1: at the object)."""
    fine = image.resize((image.width * _FINE, image.height * _FINE), Image.Resampling.NEAREST)
    draw, radius = ImageDraw.Draw(fine), max(1.8, 0.26 * pen.a) * _FINE
    for across in (-0.4, 0.4):
        x, y = pen.at(pen.subject, sign * 0.45 * pen.a, across * pen.a)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 255, 255), outline=(0, 0, 0))
        x, y = x + sign * pen.u[0] * radius * 0.45, y + sign * pen.u[1] * radius * 0.45
        draw.ellipse((x - radius / 2, y - radius / 2, x + radius / 2, y + radius / 2), fill=(0, 0, 0))
    image.paste(fine.reduce(_FINE))


def _draw_action(image: Image.Image, scene: Scene, subject: int, predicate: str, obj: int) -> None:
    mask = Image.new("L", (scene.size * _FINE, scene.size * _FINE))
    pen = _Pen(ImageDraw.Draw(mask), scene.size, scene.things[subject], scene.things[obj])
    if predicate in ("facing", "facing away from"):
        _eyes(image, pen, 1 if predicate == "facing" else -1)
        return
    _MARKS[predicate](pen)
    ink = (240, 240, 240) if scene.background.word == "black" else (20, 20, 20)
    image.paste(ink, mask=mask.reduce(_FINE))


def draw(scene: Scene) -> Image.Image:
    """The scene as an RGB image of `scene.size` pixels a side."""
    image = _background(scene.background, scene.size)
    for thing in scene.things:
        picture = tile(thing.look, thing.side)
        image.paste(picture, thing.box[:2], picture)
    for subject, predicate, obj in scene.actions:
        _draw_action(image, scene, subject, predicate, obj)
    return image


def jpeg(scene: Scene) -> bytes:
    """The scene as JPEG bytes, without chroma subsampling: colours of small things matter."""
    buffer = io.BytesIO()
    draw(scene).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()
