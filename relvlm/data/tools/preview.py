"""A contact sheet of a shard set to look at: photos with boxes and labels, captions, relations (HTML or PNG)."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from relvlm.data.shards.store import ShardSet
from relvlm.data.tools import inspect
from relvlm.data.tools.chosen import ALL, Card, Chosen, find_cards
from relvlm.data.tools.drawing import draw
from relvlm.errors import UserError

WIDTH = 420  # pixels of a photo on the sheet
HEIGHT = 4 * WIDTH  # at most
LINES = 18  # text lines under a photo in a PNG; HTML has all
COLUMNS = 4
STYLE = """body{font:14px/1.4 sans-serif;margin:24px;background:#fafafa}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(420px,1fr));gap:20px}
figure{margin:0;padding:12px;background:#fff;border:1px solid #ddd}img{width:100%}
ul{margin:6px 0;padding-left:18px}b{color:#036}small{color:#777}.fault{color:#b00}"""


def preview(path: Path, out: Path, count: int = 24, chosen: Chosen = ALL) -> tuple[int, list[str]]:
    """Write a sheet of `count` chosen samples spread over the set to `out` (.html or .png).

    Returns how many it shows, and the faults of those that cannot be read or decoded. Raises UserError for another
    suffix, where none can be shown, and where `out` cannot be written.
    """
    if out.suffix not in (".html", ".png"):
        raise UserError(f"{out}: a preview is .html or .png (choose another --out)")
    shards = ShardSet(path)
    cards, faults = find_cards(shards, min(count, len(shards)), chosen)
    if not cards:
        raise _nothing(path, min(count, len(shards)) if chosen.all else len(shards), chosen, faults)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".html":
            out.write_text(html_sheet(str(path), cards), encoding="utf-8", errors="backslashreplace")
        else:
            png_sheet(cards).save(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror} (choose another --out)") from error
    return len(cards), faults


def _nothing(path: Path, looked_at: int, chosen: Chosen, faults: Sequence[str]) -> UserError:
    if faults:
        return UserError(
            f"{path}: none of {looked_at} samples can be shown, first: {faults[0]} (run: relvlm data lint)"
        )
    if chosen.faults:
        return UserError(f"{path}: none of {looked_at} samples is faulty and what was asked for (leave out --faults)")
    return UserError(f"{path}: none of {looked_at} samples is what was asked for (run: relvlm data stats {path})")


def picture(card: Card) -> Image.Image:
    """The photo at sheet width (a very high one at `HEIGHT`) with boxes and relations; a grey field without a photo."""
    sample = card.record.sample
    scale = min(WIDTH / sample.width, HEIGHT / sample.height)
    size = max(1, round(sample.width * scale)), max(1, round(sample.height * scale))
    canvas = inspect.picture(card.record).resize(size) if card.photo else Image.new("RGB", size, (200, 200, 200))
    draw(canvas, sample, scale, card.relations)
    return canvas


def relation_lines(card: Card) -> list[str]:
    """`dog 0 left of cat 2 [boxes]`, the numbers being those on the boxes, and where the relation is from if told."""
    name = {e.id: f"{e.label} {number}" for number, e in enumerate(card.record.sample.entities)}
    return [
        f"{name[r.subject]} {r.predicate} {name[r.object]}{f' [{r.provenance}]' if r.provenance else ''}"
        for r in card.relations
    ]


def html_sheet(title: str, cards: Sequence[Card]) -> str:
    """One self-contained page."""
    figures = "\n".join(_figure(card) for card in cards)
    return (
        f'<!doctype html><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
        f"<h1>{escape(title)}</h1><main>{figures}</main>\n"
    )


def _figure(card: Card) -> str:
    stream = io.BytesIO()
    picture(card).save(stream, "JPEG", quality=85)
    data = base64.b64encode(stream.getvalue()).decode()
    faults = "".join(f'<li class="fault">{escape(fault)}</li>' for fault in card.faults)
    captions = "".join(f"<li>{escape(c)}</li>" for c in card.record.sample.captions)
    relations = "".join(f"<li><b>{escape(r)}</b></li>" for r in relation_lines(card))
    return (
        f'<figure><img alt="" src="data:image/jpeg;base64,{data}"><small>{escape(card.record.key)}</small>'
        f"<ul>{faults}{captions}</ul><ul>{relations}</ul></figure>"
    )


def png_sheet(cards: Sequence[Card]) -> Image.Image:
    """All cards on one image, `COLUMNS` a row."""
    drawn = [_drawn(card) for card in cards]
    rows = [drawn[start : start + COLUMNS] for start in range(0, len(drawn), COLUMNS)]
    heights = [max(card.height for card in row) for row in rows]
    sheet = Image.new("RGB", (WIDTH * min(COLUMNS, len(drawn)), sum(heights)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            sheet.paste(card, (column * WIDTH, top))
        top += height
    return sheet


def _drawn(card: Card) -> Image.Image:
    photo = picture(card)
    text = [*(f"! {f}" for f in card.faults), *(f"- {c}" for c in card.record.sample.captions), *relation_lines(card)]
    lines = [part for line in text for part in wrap(line, 62)]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"... and {len(lines) - LINES + 1} more lines"]
    whole = Image.new("RGB", (WIDTH, photo.height + 16 * len(lines) + 12), "white")
    whole.paste(photo)
    pen = ImageDraw.Draw(whole)
    pen.multiline_text((4, photo.height + 2), "\n".join(lines), fill="black", font=ImageFont.load_default(12))
    return whole
