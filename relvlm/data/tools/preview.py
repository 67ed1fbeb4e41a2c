"""A contact sheet of a shard set to look at: photos with boxes and labels, captions, relations (HTML or PNG)."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageColor, ImageDraw, ImageFont

from relvlm.data.shards.address import Place
from relvlm.data.shards.schema import Sample
from relvlm.data.shards.store import DataFault, Record, ShardSet
from relvlm.data.tools import inspect
from relvlm.errors import UserError

WIDTH = 420  # pixels of a photo on the sheet
HEIGHT = 4 * WIDTH  # at most
LINES = 18  # text lines under a photo in a PNG; HTML has all
COLUMNS = 4
STYLE = """body{font:14px/1.4 sans-serif;margin:24px;background:#fafafa}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(420px,1fr));gap:20px}
figure{margin:0;padding:12px;background:#fff;border:1px solid #ddd}img{width:100%}
ul{margin:6px 0;padding-left:18px}b{color:#036}small{color:#777}"""


def preview(path: Place, out: Path, count: int = 24) -> tuple[int, list[str]]:
    """Write a sheet of `count` samples spread evenly over the set to `out` (.html or .png).

    Returns how many it shows, and the faults of those that cannot be read or decoded. Raises UserError for another
    suffix, where none can be shown, and where `out` cannot be written.
    """
    if out.suffix not in (".html", ".png"):
        raise UserError(f"{out}: a preview is .html or .png (choose another --out)")
    shards = ShardSet(path)
    count = min(count, len(shards))
    records, faults = _readable(shards, [number * len(shards) // count for number in range(count)])
    if not records:
        raise UserError(f"{path}: none of {count} samples can be shown, first: {faults[0]} (run: relvlm data lint)")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".html":
            out.write_text(html_sheet(str(path), records), encoding="utf-8", errors="backslashreplace")
        else:
            png_sheet(records).save(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror} (choose another --out)") from error
    return len(records), faults


def _readable(shards: ShardSet, indices: Sequence[int]) -> tuple[list[Record], list[str]]:
    records, faults = [], []
    for index in indices:
        try:
            record = shards.read(index)
            inspect.picture(record)
        except DataFault as fault:
            faults.append(str(fault))
        else:
            records.append(record)
    return records, faults


def color(number: int) -> tuple[int, int, int]:
    """A box colour; neighbours differ clearly."""
    red, green, blue = ImageColor.getrgb(f"hsl({number * 137 % 360}, 90%, 42%)")[:3]
    return red, green, blue


def picture(record: Record) -> Image.Image:
    """The photo at sheet width (a very high one at `HEIGHT`) with its numbered boxes."""
    photo = inspect.picture(record)
    scale = min(WIDTH / photo.width, HEIGHT / photo.height)
    canvas = photo.resize((max(1, round(photo.width * scale)), max(1, round(photo.height * scale))))
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(12)
    for number, entity in enumerate(record.sample.entities):
        box = tuple(v * scale for v in entity.box)
        text = f"{number} {' '.join((*entity.attributes, entity.label))}"
        pen.rectangle(box, outline=color(number), width=2)
        place = (box[0] + 2, max(0.0, min(box[1], canvas.height - 14)))
        pen.rectangle(pen.textbbox(place, text, font=font), fill=color(number))
        pen.text(place, text, fill="white", font=font)
    return canvas


def relation_lines(sample: Sample) -> list[str]:
    """`dog 0 left of cat 2`, the numbers being those on the boxes."""
    name = {e.id: f"{e.label} {number}" for number, e in enumerate(sample.entities)}
    return [f"{name[r.subject]} {r.predicate} {name[r.object]}" for r in sample.relations]


def html_sheet(title: str, records: Sequence[Record]) -> str:
    """One self-contained page."""
    figures = "\n".join(_figure(record) for record in records)
    return (
        f'<!doctype html><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
        f"<h1>{escape(title)}</h1><main>{figures}</main>\n"
    )


def _figure(record: Record) -> str:
    stream = io.BytesIO()
    picture(record).save(stream, "JPEG", quality=85)
    data = base64.b64encode(stream.getvalue()).decode()
    captions = "".join(f"<li>{escape(c)}</li>" for c in record.sample.captions)
    relations = "".join(f"<li><b>{escape(r)}</b></li>" for r in relation_lines(record.sample))
    return (
        f'<figure><img alt="" src="data:image/jpeg;base64,{data}"><small>{escape(record.key)}</small>'
        f"<ul>{captions}</ul><ul>{relations}</ul></figure>"
    )


def png_sheet(records: Sequence[Record]) -> Image.Image:
    """All cards on one image, `COLUMNS` a row."""
    cards = [_card(record) for record in records]
    rows = [cards[start : start + COLUMNS] for start in range(0, len(cards), COLUMNS)]
    heights = [max(card.height for card in row) for row in rows]
    sheet = Image.new("RGB", (WIDTH * min(COLUMNS, len(cards)), sum(heights)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            sheet.paste(card, (column * WIDTH, top))
        top += height
    return sheet


def _card(record: Record) -> Image.Image:
    photo = picture(record)
    text = [*(f"- {c}" for c in record.sample.captions), *relation_lines(record.sample)]
    lines = [part for line in text for part in wrap(line, 62)]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"... and {len(lines) - LINES + 1} more lines"]
    card = Image.new("RGB", (WIDTH, photo.height + 16 * len(lines) + 12), "white")
    card.paste(photo)
    pen = ImageDraw.Draw(card)
    pen.multiline_text((4, photo.height + 2), "\n".join(lines), fill="black", font=ImageFont.load_default(12))
    return card
